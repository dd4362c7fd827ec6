# The part of the benchmark that moves one large ClusterImage to a registry on this machine and back, over plain HTTP.
# scripts/bench.sh sources it and has what it uses: measure, fresh, the registry.
# shellcheck shell=bash
# shellcheck disable=SC2154

export moved=$scratch/moved moved_name=bench/moved:v1
export moved_root=$moved/root moved_storage=$moved/storage

sealrs_push() {
    "$sealrs" --root "$moved_root" push "$moved_name" "$upstream/$moved_name"
    sync -f "$moved_storage"
}
skopeo_push() {
    skopeo --insecure-policy copy -q --preserve-digests --dest-tls-verify=false \
        "oci:$moved_root/store:$(cat "$moved/stored-name")" "docker://$upstream/$moved_name"
    sync -f "$moved_storage"
}
sealrs_pull() {
    "$sealrs" --root "$root" pull "$upstream/$moved_name"
}
skopeo_pull_moved() {
    skopeo --insecure-policy copy -q --preserve-digests --src-tls-verify=false \
        "docker://$upstream/$moved_name" "oci:$out:moved"
    sync -f "$out"
}
copy_moved() {
    cp -r "$moved_root/store/blobs" "$out"
    sync -f "$out"
}
hash_moved() {
    sha256sum "$moved_root"/store/blobs/sha256/*
}
write_zeros() {
    dd if=/dev/zero of="$out" bs=1M count="$moved_size" conv=fsync
}
export -f sealrs_push skopeo_push sealrs_pull skopeo_pull_moved copy_moved hash_moved write_zeros

# What no mover can beat: the bytes copied, hashed by one core, written by the disk.
measure_limits() { # JOB
    fresh
    measure "$1" 'cp of the blobs' "$out" copy_moved
    measure "$1" 'sha256sum, one core' "$out" hash_moved
    fresh
    measure "$1" 'dd of zeros, fsync' "$out" write_zeros
}

serve_own_registry() { # FOLDER
    mkdir -p "$1"
    "$sealrs" --quiet registry serve --dir "$1" --listen "$upstream" --allow-push >"$scratch/registry.log" 2>&1 &
    # shellcheck disable=SC2034 # for stop_registry of bench.sh
    registry_pid=$!
    curl -fsS --retry 20 --retry-connrefused --retry-delay 1 "http://$upstream/v2/" >/dev/null 2>&1
}

# Builds the image: two thirds binaries, the rest container images, whose blobs are layers of their own.
build_moved() {
    mkdir -p "$moved/context"
    echo "moved: $(python3 scripts/bench/payload.py "$moved/context" $(((moved_size * 2 / 3) << 20))), in plain layers"
    echo "and $(python3 scripts/bench/images.py "$moved/upstream" "$images" "$smallest" "$largest" "$moved/context/share")"
    serve_registry "$moved/upstream"
    for number in $(seq -w 1 "$images"); do
        echo "$upstream/bench/image-$(printf %02d "$((10#$number))"):v1"
    done >"$moved/context/imageList"
    {
        printf 'FROM scratch\n%s\n' 'LABEL cluster.alpha.sealer.io/cluster-runtime-type=script'
        printf 'COPY %s %s\n' bin bin lib lib share share scripts scripts imageList manifests/
    } >"$moved/context/Kubefile"
    # Nobody packs on the way, so that all move the same bytes; container images lie in plain layers anyway.
    "$sealrs" --quiet --root "$moved_root" build --compression none -f "$moved/context/Kubefile" -t "$moved_name" \
        "$moved/context" >"$scratch/log"
    stop_registry
    stored_name "$moved_root/store" >"$moved/stored-name"
    rm -rf "$moved/context" "$moved/upstream"
}

movement() {
    build_moved
    for _ in $(seq "$rounds"); do
        measure_limits 'limits'
        for kind in 'docker-registry' "sealrs's registry"; do
            # An empty registry for each.
            for program in skopeo sealrs; do
                fresh
                rm -rf "$moved_storage"
                case $kind in
                    docker-registry) serve_registry "$moved_storage" ;;
                    *) serve_own_registry "$moved_storage" ;;
                esac
                case $program in
                    skopeo) measure "push to $kind" 'skopeo copy' "$moved_storage" skopeo_push ;;
                    sealrs) measure "push to $kind" sealrs "$moved_storage" sealrs_push ;;
                esac
                [ $program = sealrs ] || stop_registry
            done
            measure "push to $kind, nothing changed" sealrs "$moved_storage" sealrs_push
            measure "push to $kind, nothing changed" 'skopeo copy' "$moved_storage" skopeo_push

            fresh
            measure "pull from $kind" sealrs "$root" sealrs_pull
            measure "pull from $kind, nothing changed" sealrs "$root" sealrs_pull
            fresh
            measure "pull from $kind" 'skopeo copy' "$out" skopeo_pull_moved
            measure "pull from $kind, nothing changed" 'skopeo copy' "$out" skopeo_pull_moved
            fresh
            stop_registry
        done
        rm -rf "$moved_storage"
    done
}
