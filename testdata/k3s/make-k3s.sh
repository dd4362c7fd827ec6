#!/usr/bin/env bash
# make-k3s.sh FILE - packs the stand-in for k3s into one executable file, as k3s is one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../standin/pack.sh" "$here" "$@"
