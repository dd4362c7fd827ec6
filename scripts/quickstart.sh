#!/bin/sh
# The main job from end to end in a scratch folder: build a ClusterImage, save it, install it with no network, and
# pull an image back from its private registry. Needs Rust and a C compiler; no root, no internet but for crates.
set -eu
cd "$(dirname "$0")/.."
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Building sealrs (the first time takes a few minutes)"
sealrs=$(./scripts/build.sh)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/sealrs-quickstart.XXXXXX")
export SEALRS_ROOT="$scratch/connected"
upstream=
cleanup() {
    [ -z "$upstream" ] || kill "$upstream" 2>/dev/null || true
    "$sealrs" --quiet --root "$scratch/airgapped" delete --all --force >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

say "A registry stands for the internet: sealrs's own, with one tiny image in it"
digest=$(Kubefile.examples/quickstart/make-upstream.sh "$scratch/upstream")
"$sealrs" registry serve --dir "$scratch/upstream" --listen 127.0.0.1:5101 &
upstream=$!

say "Building the ClusterImage Kubefile.examples/quickstart"
"$sealrs" build -f Kubefile.examples/quickstart/Kubefile -t quickstart:v1 Kubefile.examples/quickstart
"$sealrs" save quickstart:v1 -o "$scratch/quickstart.tar"
"$sealrs" images

say "Cutting the network: the upstream registry stops, and only quickstart.tar crosses the gap"
kill "$upstream"
wait "$upstream" 2>/dev/null || true
upstream=
export SEALRS_ROOT="$scratch/airgapped"

say "Installing from the file"
"$sealrs" run "$scratch/quickstart.tar" --registry-domain localhost --registry-port 5102

say "Pulling the image back from the private registry, by tag and by digest"
mkdir "$scratch/check"
printf 'FROM scratch\n' >"$scratch/check/Kubefile"
printf 'localhost:5102/quickstart/hello:v1\nlocalhost:5102/quickstart/hello@%s\n' "$digest" >"$scratch/check/images"
"$sealrs" --root "$scratch/check-root" build -f "$scratch/check/Kubefile" -t check:v1 \
    --image-list "$scratch/check/images" --ca-file "$scratch/airgapped/data/my-cluster/pki/ca.crt" "$scratch/check"

say "Removing everything again"
"$sealrs" delete --all --force
say "Done. What happened: an image was pulled from a registry that then went away, crossed the gap in one file, and was
served by the cluster's own registry under a certificate made on the spot. Next: docs/build.md"
