#!/usr/bin/env bash
# make-image.sh KIND NAME ARCHIVE [FILE...] - a tiny container image, made from nothing.
#
#   KIND     pause (one static binary that sleeps, 0.3 MB) or busybox (Debian's static one, 1 MB)
#   NAME     its reference in ARCHIVE, in full: docker.io/library/busybox:1.35
#   ARCHIVE  the OCI archive to write: .tar, for skopeo's oci-archive:ARCHIVE
#   FILE     each becomes one more layer with that file in the image's root
#
# The same input gives the same user the same digests. IMAGE_ARCH=arm64 only says so in the image's
# configuration: enough for tests that choose a platform, and nothing to run.
# Needs the Debian packages umoci skopeo busybox-static gcc libc6-dev; no root, no daemon.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
fi
kind=$1 name=$2 archive=$3
shift 3

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layout=$work/oci:image
rootless=()
[ "$(id -u)" = 0 ] || rootless=(--rootless)

insert() { # a file or folder of $work, with a fixed time
    find "$work/$1" -exec touch --no-dereference --date=@0 {} +
    umoci insert "${rootless[@]}" --image "$layout" --history.created 1970-01-01T00:00:00Z "$work/$1" "$2"
}

umoci init --layout "$work/oci"
umoci new --image "$layout"
case $kind in
pause)
    gcc -Os -static -s -o "$work/pause" "$here/pause.c"
    insert pause /pause
    configuration=(--config.entrypoint /pause)
    ;;
busybox)
    mkdir -p "$work/root/bin" "$work/root/tmp"
    chmod 1777 "$work/root/tmp"
    cp /bin/busybox "$work/root/bin/busybox"
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
    done
    insert root /
    configuration=(--config.cmd sh --config.env PATH=/bin)
    ;;
*)
    echo "make-image.sh: no such kind of image: $kind (pause, busybox)" >&2
    exit 2
    ;;
esac
for file in "$@"; do
    cp "$file" "$work/"
    insert "$(basename "$file")" "/$(basename "$file")"
done
umoci config --image "$layout" --created 1970-01-01T00:00:00Z --no-history \
    ${IMAGE_ARCH:+--architecture "$IMAGE_ARCH"} "${configuration[@]}"
rm -f "$archive"
skopeo --insecure-policy copy --quiet "oci:$layout" "oci-archive:$archive:$name"
