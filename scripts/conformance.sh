#!/usr/bin/env bash
# Runs the official conformance tool of the OCI distribution specification against the built-in registry, with every
# option on. Needs the internet the first time: for the tool, and for Go where there is none. Prints the summary; the report
# is in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=github.com/opencontainers/distribution-spec/conformance
version=v0.0.0-20260831232431-97274622c111
program=${SEALRS:-}
target=${CARGO_TARGET_DIR:-target}

# shellcheck source=scripts/go.sh
. ./scripts/go.sh
[ -n "$program" ] || {
    cargo build --locked --package sealrs
    program=$target/debug/sealrs
}
mkdir -p "$target/conformance"
GOBIN=$(cd "$target/conformance" && pwd) go install "$tool@$version"

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
"$program" registry serve --dir "$work" --listen 127.0.0.1:0 --allow-push --allow-sparse 2>"$work/log" &
server=$!
for _ in $(seq 100); do
    address=$(sed -n 's|.*http://\(127\.0\.0\.1:[0-9]*\).*|\1|p' "$work/log")
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || {
    echo "error: the registry did not start:" >&2
    cat "$work/log" >&2
    exit 1
}

results=$target/conformance/results
rm -rf "$results"
status=0
env OCI_REGISTRY="$address" OCI_TLS=disabled OCI_VERSION=1.1 OCI_RESULTS_DIR="$results" \
    OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true OCI_API_MANIFESTS_DIGEST_HEADER=true \
    OCI_API_MANIFESTS_TAG_PARAM=true OCI_API_BLOBS_MOUNT_ANONYMOUS=true OCI_DATA_SPARSE=true OCI_DATA_SHA512=true \
    "$target/conformance/conformance" >"$work/summary" 2>&1 || status=$?
sed -n '/^OCI Conformance Result/,/Total/p' "$work/summary"
if [ "$status" != 0 ] || grep -qE '^ +(FAIL|Error|Skip)[^:]*: +[1-9]' "$work/summary"; then
    grep -vE '^ *$' "$work/summary" | head -n 100
    cat "$work/log"
    echo "error: the registry does not conform; the whole report: $results/report.html" >&2
    exit 1
fi
