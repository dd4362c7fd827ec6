#!/usr/bin/env bash
# Builds Kubernetes 1.20.2 (kubeadm, kubelet, the control plane) once from Debian's own source package, into a folder
# outside the checkout, and prints that folder. kubectl and etcd come from Debian's packages, without installing them; what has
# to be there as crictl is built from testdata/kubernetes. Needs root on Debian 12; takes 6 to 12 minutes and 4 GB the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/sealrs-tests
target=$cache/kubernetes-1.20.2
programs="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm"
mkdir -p "$cache"
# One at a time: who waits finds it built.
exec 9>"$cache/kubernetes.lock"
flock 9
work=$(mktemp -d -p "${TMPDIR:-/var/tmp}")
trap 'rm -rf "$work"' EXIT

# The programs of other packages, and the stand-in, which is built again when its source is newer.
add_others() {
    if ! [ -e "$target/etcdctl" ]; then
        mkdir "$work/packages"
        (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root kubernetes-client etcd-server etcd-client)
        for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/packages/files"; done
        cp "$work"/packages/files/usr/bin/{kubectl,etcd,etcdctl} "$target/"
    fi
    if ! [ "$target/crictl" -nt testdata/kubernetes/main.go ]; then
        # shellcheck source=scripts/go.sh
        . scripts/go.sh
        (cd testdata/kubernetes && CGO_ENABLED=0 go build -ldflags=-s -o "$work/crictl" .)
        mv "$work/crictl" "$target/crictl"
    fi
} >&2

if [ -e "$target/kubeadm" ]; then
    add_others
    echo "$target"
    exit
fi
(
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        golang-1.19-go golang-github-modern-go-reflect2-dev rsync dpkg-dev make
    # Sources from where the packages come from, with lists of their own.
    mkdir -p "$work/sources" "$work/lists/partial"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/sources/$(basename "$file")"
    done
    [ -e /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/sources/list.list"
    options=(-o "Dir::Etc::sourceparts=$work/sources" -o Dir::Etc::sourcelist=/dev/null -o "Dir::State::lists=$work/lists")
    apt-get "${options[@]}" update -qq
    cd "$work"
    apt-get "${options[@]}" source -qq --download-only kubernetes
    dpkg-source -x kubernetes_*.dsc src
    cd src
    # That of the package panics in programs that a newer Go has built.
    rm vendor/github.com/modern-go/reflect2/*.go
    cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.go vendor/github.com/modern-go/reflect2/
    mkdir -p .go/src/k8s.io
    ln -s ../../.. .go/src/k8s.io/kubernetes
    printf '%s\n' KUBE_GIT_COMMIT= KUBE_GIT_TREE_STATE=clean KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 \
        >"$work/version"
    export KUBE_GIT_VERSION_FILE=$work/version GOPATH=$PWD/.go CGO_ENABLED=0 GOFLAGS='' PATH=/usr/lib/go-1.19/bin:$PATH
    what=
    for program in $programs; do what="$what cmd/$program"; done
    make GOLDFLAGS="-s -w" WHAT="${what# }"
    mkdir "$work/done"
    for program in $programs; do cp "_output/bin/$program" "$work/done/"; done
    rm -rf "$target"
    mv "$work/done" "$target"
) >&2
add_others
echo "$target"
