#!/bin/sh
# Makes a folder that a registry can serve (the docker-distribution layout), with one tiny container image in it, from
# nothing but coreutils and tar. It stands for the registries of the internet, so that the quickstart needs none.
# Usage: make-upstream.sh FOLDER
set -eu
folder=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$folder/docker/registry/v2
repository=$tree/repositories/quickstart/hello

# put FILE: stores it as a blob and prints its digest.
put() {
    hex=$(sha256sum <"$1" | cut -d' ' -f1)
    place=$tree/blobs/sha256/$(echo "$hex" | cut -c1-2)/$hex
    mkdir -p "$place"
    cp "$1" "$place/data"
    echo "sha256:$hex"
}
# link DIGEST PLACE: points to a blob.
link() {
    mkdir -p "$2"
    printf %s "$1" >"$2/link"
}
size() { wc -c <"$1" | tr -d ' '; }

echo "Hello from a container image that crossed the air gap." >"$work/hello.txt"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" hello.txt
layer=$(put "$work/layer.tar")
case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(uname -m) ;;
esac
printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$architecture" "$layer" >"$work/config.json"
config=$(put "$work/config.json")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%s}]}' \
    "$config" "$(size "$work/config.json")" "$layer" "$(size "$work/layer.tar")" >"$work/manifest.json"
manifest=$(put "$work/manifest.json")

for blob in "$layer" "$config"; do
    link "$blob" "$repository/_layers/sha256/${blob#sha256:}"
done
link "$manifest" "$repository/_manifests/revisions/sha256/${manifest#sha256:}"
link "$manifest" "$repository/_manifests/tags/v1/index/sha256/${manifest#sha256:}"
link "$manifest" "$repository/_manifests/tags/v1/current"
echo "$manifest"
