#!/usr/bin/env bash
# Installs what the tests need (as root on Debian; else says what is missing) and runs them all.
# Usage: scripts/test.sh [--install-only] [arguments of cargo nextest run]
set -euo pipefail
cd "$(dirname "$0")/.."

# The real parts: registries, image tools, container runtimes, and what the test hosts are made of.
packages=(
    gcc libc6-dev python3 python3-venv python3-jsonschema python3-yaml shellcheck openssl curl git strace util-linux
    xz-utils zstd bzip2 lz4 pigz time zsh fish groff-base
    docker-registry apache2-utils skopeo umoci buildah busybox-static
    containerd runc containernetworking-plugins etcd-server
    openssh-server openssh-client sudo sshpass nftables iproute2 iptables conntrack e2fsprogs btrfs-progs systemd dbus
)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "these packages are missing; tests that need them skip: ${missing[*]}" >&2
    else
        echo "installing ${missing[*]}" >&2
        [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ] || apt-get update -qq
        # What the tests need are programs: no package may start its service on this machine.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            printf '#!/bin/sh\nexit 101\n' >$policy
            chmod +x $policy
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
fi
# shellcheck source=scripts/tools.sh
. ./scripts/tools.sh
[ "${1:-}" = --install-only ] && exit 0

cargo nextest run --workspace --locked "$@"
cargo test --quiet --workspace --doc --locked
