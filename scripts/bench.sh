#!/usr/bin/env bash
# Measures sealrs on a generated payload of real binaries and container images, each job beside the same work done by
# standard tools, and says whether the targets are met. Usage: scripts/bench.sh --help
#
# The programs of a job run by turns, each several times, with a warm page cache. Times include bringing the result to
# the disk: sealrs syncs what it writes by itself, the others are followed by `sync` inside the measured time.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'END'
Usage: scripts/bench.sh [--only movement] [--size MIB] [--rounds N] [--quick] [--keep] [--scratch DIR] [--sealrs FILE]

  --only movement only push and pull of one large image, of 2048 MiB unless --size says otherwise
  --size MIB      size of the payload; default 1200
  --rounds N      how often each program runs each job; default 3
  --quick         a small payload and few images, once: whether it works, not how fast
  --keep          leave the scratch folder, with the results
  --scratch DIR   where to work, a folder that does not exist yet; default: a new one in /var/tmp
  --sealrs FILE   the program to measure; default: what scripts/build.sh builds

It needs tar, zstd, docker-registry and skopeo; buildah is measured if it is there and this is root. Everything lies in
the scratch folder, which is removed at the end, except that skopeo and buildah note what they copied in
/var/lib/containers/cache.
END
}

size=1200 rounds=3 images=20 smallest=$((6 << 20)) largest=$((57 << 20)) keep=no scratch='' sealrs=''
only='' moved_size=2048
while [ $# -gt 0 ]; do
    case $1 in
        --only) only=$2 && shift ;;
        --size) size=$2 moved_size=$2 && shift ;;
        --rounds) rounds=$2 && shift ;;
        --quick) size=64 moved_size=64 rounds=1 images=4 smallest=$((512 << 10)) largest=$((3 << 20)) ;;
        --keep) keep=yes ;;
        --scratch) scratch=$2 && shift ;;
        --sealrs) sealrs=$(realpath "$2") && shift ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
case $only in
    '' | movement) ;;
    *) usage >&2 && exit 2 ;;
esac
export moved_size
for tool in tar zstd docker-registry skopeo python3 curl sha256sum; do
    command -v "$tool" >/dev/null || {
        echo "error: $tool is missing; as root, scripts/test.sh --install-only installs it" >&2
        exit 1
    }
done
with_buildah=no
command -v buildah >/dev/null && [ "$(id -u)" = 0 ] && with_buildah=yes
[ -n "$sealrs" ] || sealrs=$(scripts/build.sh)

[ -n "$scratch" ] || scratch=$(mktemp -du /var/tmp/sealrs-bench.XXXXXX)
mkdir -p "$(dirname "$scratch")"
mkdir "$scratch"
scratch=$(realpath "$scratch")
registry_pid=''
stop_registry() {
    if [ -n "$registry_pid" ]; then
        kill "$registry_pid" 2>/dev/null || true
        wait "$registry_pid" 2>/dev/null || true
    fi
    registry_pid=''
}
finish() {
    stop_registry
    if [ -e "$scratch/running" ]; then
        sealrs_delete || true
    fi
    clean_buildah
    [ $keep = yes ] || rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 1' INT TERM

# What the measured commands see. They run in a shell of their own, which gets these functions.
export sealrs scratch
export root=$scratch/root context=$scratch/context out=$scratch/out archive=$scratch/image.tar
export payload=bench/payload:v1 image=bench/image:v1

buildah_here() {
    buildah --root "$scratch/buildah" --runroot "$scratch/buildah-run" "$@"
}
clean_buildah() {
    if [ -e "$scratch/buildah/overlay" ]; then
        umount "$scratch/buildah/overlay" 2>/dev/null || true
    fi
    rm -rf "$scratch/buildah" "$scratch/buildah-run"
}
sealrs_build() {
    "$sealrs" --root "$root" build -f "$context/Kubefile" -t "$payload" "$context"
}
sealrs_build_images() {
    "$sealrs" --root "$root" build -f "$context/Kubefile.images" -t bench/images:v1 "$context"
}
sealrs_save() {
    "$sealrs" --root "$scratch/store-root" save "$image" -o "$out"
}
sealrs_load() {
    "$sealrs" --root "$root" load -i "$archive"
}
sealrs_run() {
    "$sealrs" --root "$root" run "$archive" --cluster bench --registry-domain localhost --registry-port "$run_port"
}
sealrs_delete() {
    "$sealrs" --quiet --root "$root" delete --cluster bench --all --force
}
pack() { # FOLDERS...: what sealrs does, without the digest of the unpacked layer
    tar -C "$context" -cf - "$@" | zstd -q -T0 | tee "$out" | sha256sum
    sync "$out"
}
hash_all() {
    tar -C "$context" -cf - bin lib share scripts | sha256sum
}
buildah_build() {
    buildah_here bud --layers --isolation chroot --signature-policy "$scratch/policy.json" -f "$context/Kubefile" \
        -t payload "$context"
}
buildah_push() {
    buildah_build
    buildah_here push --signature-policy "$scratch/policy.json" payload "oci:$out:payload"
    sync -f "$out"
}
skopeo_pull() {
    while read -r reference; do
        skopeo --insecure-policy copy -q --src-tls-verify=false "docker://$reference" "oci:$out:${reference##*/}"
    done <"$context/imageList"
    sync -f "$out"
}
skopeo_save() {
    skopeo --insecure-policy copy -q "oci:$scratch/store-root/store:$(cat "$scratch/stored-name")" "oci-archive:$out:$image"
    sync "$out"
}
skopeo_load() {
    skopeo --insecure-policy copy -q "oci-archive:$archive" "oci:$out:image"
    sync -f "$out"
}
copy_store() {
    cp -r "$scratch/store-root/store/blobs" "$out"
    sync -f "$out"
}
copy_archive() {
    cp "$archive" "$out"
    sync "$out"
}
unpack() {
    mkdir "$out"
    while read -r blob packing; do
        if [ "$packing" = zstd ]; then
            zstd -q -d -c "$blob" | tar -C "$out" -xf -
        else
            tar -C "$out" -xf "$blob"
        fi
    done <"$scratch/layers"
    sync -f "$out"
}
export -f buildah_here sealrs_build sealrs_build_images sealrs_save sealrs_load sealrs_run pack hash_all buildah_build \
    buildah_push skopeo_pull skopeo_save skopeo_load copy_store copy_archive unpack

# measure JOB PROGRAM PATH COMMAND: runs COMMAND, whose result is at PATH.
measure() {
    sync
    python3 scripts/bench/measure.py "$scratch/results" "$scratch/log" "$1" "$2" "$3" bash -c "set -euo pipefail; $4"
    echo "$1: $2" >&2
}
fresh() {
    rm -rf "$root" "$out"
}
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Serves a folder at $upstream.
serve_registry() {
    mkdir -p "$1"
    cat >"$scratch/registry.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $1}}
http: {addr: "$upstream"}
END
    docker-registry serve "$scratch/registry.yml" >"$scratch/registry.log" 2>&1 &
    registry_pid=$!
    curl -fsS --retry 20 --retry-connrefused --retry-delay 1 "http://$upstream/v2/" >/dev/null
}
# The name of a store's only image, as skopeo needs it.
stored_name() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])' \
        <"$1/index.json"
}
report() {
    echo "load average after: $(cut -d' ' -f1-3 /proc/loadavg)"
    cat <<'END'

build, rebuild: the payload in four COPY layers. container images: FROM scratch and an image list. save, load, run: the
payload and the container images together. `run` is the whole command: reading and verifying the archive, unpacking it,
making the registry's certificates and starting it, a runtime script that does nothing; `zstd -d | tar x` unpacks the
same layers, which lie ready as files, and verifies nothing. push, pull: one image of binaries and container
images, in plain layers, to an empty registry on this machine and into an empty store; what the registry writes is brought
to the disk too.

END
    python3 scripts/bench/report.py "$scratch/results"
    [ $keep = no ] || echo "results: $scratch/results"
}
upstream=127.0.0.1:$(free_port)
export upstream
# shellcheck source=scripts/bench/movement.sh
. scripts/bench/movement.sh

needed=$((size * 7 + images * 3 * largest / 1048576))
[ $needed -gt $((moved_size * 5)) ] && [ -z "$only" ] || needed=$((moved_size * 5))
free=$(df --output=avail -BM "$scratch" | tail -n1 | tr -dc 0-9)
if [ "$free" -lt $needed ]; then
    echo "error: $scratch has $free MiB free, and about $needed MiB are needed" >&2
    exit 1
fi
echo "sealrs: $("$sealrs" --version); machine: $(nproc) cores, $(uname -sr); scratch: $scratch ($(stat -f -c %T "$scratch"))"
echo "load average before: $(cut -d' ' -f1-3 /proc/loadavg)"

if [ "$only" = movement ]; then
    movement
    report
    exit
fi

mkdir "$context"
echo "payload: $(python3 scripts/bench/payload.py "$context" $((size << 20)))"
echo "container images: $(python3 scripts/bench/images.py "$scratch/upstream" "$images" "$smallest" "$largest" "$context/share")"
run_port=$(free_port)
export run_port
serve_registry "$scratch/upstream"
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$scratch/policy.json"
for number in $(seq -w 1 "$images"); do
    echo "$upstream/bench/image-$(printf %02d "$((10#$number))"):v1"
done >"$context/imageList"
label='LABEL cluster.alpha.sealer.io/cluster-runtime-type=script'
copies=$(printf 'COPY %s %s\n' bin bin lib lib share share scripts scripts)
printf 'FROM scratch\n%s\n%s\n' "$label" "$copies" >"$context/Kubefile"
printf 'FROM scratch\n%s\nCOPY imageList manifests/\n' "$label" >"$context/Kubefile.images"
# All of it, and a runtime that does nothing.
mkdir -p "$context/runtime"
for name in init reset; do
    printf '#!/bin/sh\n' >"$context/runtime/$name.sh"
    chmod 755 "$context/runtime/$name.sh"
done
printf 'FROM scratch\n%s\n%s\nCOPY imageList manifests/\nCOPY runtime scripts/runtime\n' "$label" "$copies" \
    >"$context/Kubefile.all"
# A file that changed a moment ago is not taken for unchanged by its time stamp alone.
sleep 3

pipeline='tar | zstd | tee | sha256sum'
for round in $(seq "$rounds"); do
    fresh
    measure build sealrs "$root" sealrs_build
    fresh
    measure build "$pipeline" "$out" 'pack bin lib share scripts'
    if [ $with_buildah = yes ]; then
        clean_buildah && fresh
        measure build 'buildah bud, push' "$out" buildah_push
    fi
done

fresh
sealrs_build >"$scratch/log" 2>&1
for round in $(seq "$rounds"); do
    measure 'rebuild, nothing changed' sealrs "$root" sealrs_build
    measure 'rebuild, nothing changed' 'tar | sha256sum' "$out" hash_all
    if [ $with_buildah = yes ]; then
        measure 'rebuild, nothing changed' 'buildah bud' "$scratch/buildah" buildah_build
    fi
done
for round in $(seq "$rounds"); do
    find "$context" -type f -exec touch {} +
    sleep 3
    measure 'rebuild, all files touched' sealrs "$root" sealrs_build
    measure 'rebuild, all files touched' 'tar | sha256sum' "$out" hash_all
done
changed=$(find "$context/scripts" -type f -size -4 | sort | sed -n 1p)
for round in $(seq "$rounds"); do
    echo "# round $round" >>"$changed"
    measure 'rebuild, one file changed' sealrs "$root" sealrs_build
    rm -f "$out"
    measure 'rebuild, one file changed' 'the same, of its layer' "$out" 'pack scripts'
    if [ $with_buildah = yes ]; then
        measure 'rebuild, one file changed' 'buildah bud' "$scratch/buildah" buildah_build
    fi
done
clean_buildah

for round in $(seq "$rounds"); do
    fresh
    measure 'container images' sealrs "$root" sealrs_build_images
    fresh
    measure 'container images' 'skopeo copy, one by one' "$out" skopeo_pull
done

# The whole image, for what follows.
fresh
"$sealrs" --quiet --root "$scratch/store-root" build -f "$context/Kubefile.all" -t "$image" "$context" >"$scratch/log"
python3 - "$scratch/store-root/store" >"$scratch/layers" <<'END'
import json, sys
store = sys.argv[1]
def blob(digest):
    return store + "/blobs/" + digest.replace(":", "/")
document = json.load(open(store + "/index.json"))
while "manifests" in document:
    document = json.load(open(blob(document["manifests"][0]["digest"])))
for layer in document["layers"]:
    print(blob(layer["digest"]), "zstd" if layer["mediaType"].endswith("zstd") else "none")
END
stored_name "$scratch/store-root/store" >"$scratch/stored-name"
for round in $(seq "$rounds"); do
    fresh
    measure save sealrs "$out" sealrs_save
    [ -e "$archive" ] || cp "$out" "$archive"
    fresh
    measure save 'cp of the blobs' "$out" copy_store
    fresh
    measure save 'skopeo copy' "$out" skopeo_save
done
for round in $(seq "$rounds"); do
    fresh
    measure load sealrs "$root" sealrs_load
    fresh
    measure load 'cp of the archive' "$out" copy_archive
    fresh
    measure load 'skopeo copy' "$out" skopeo_load
done
for round in $(seq "$rounds"); do
    fresh
    touch "$scratch/running"
    measure run sealrs "$root" sealrs_run
    sealrs_delete >"$scratch/log" 2>&1
    rm "$scratch/running"
    fresh
    measure run 'zstd -d | tar x' "$out" unpack
done

fresh
stop_registry
rm -rf "$scratch/store-root" "$scratch/upstream" "$context" "$archive"
movement
report
