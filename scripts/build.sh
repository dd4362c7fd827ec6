#!/bin/sh
# Builds the release binary, one fully static file that runs on any Linux of its architecture, and prints its path.
set -eu
cd "$(dirname "$0")/.."
command -v cc >/dev/null || {
    echo "error: there is no C compiler (cc), which Rust needs to link" >&2
    echo "  hint: apt-get install gcc libc6-dev" >&2
    exit 1
}
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --release --locked --bin sealrs --target "$target" >&2
echo "$PWD/target/$target/release/sealrs"
