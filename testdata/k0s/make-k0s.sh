#!/usr/bin/env bash
# make-k0s.sh FILE - packs the stand-in for k0s into one executable file, as k0s is one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../standin/pack.sh" "$here" "$@"
