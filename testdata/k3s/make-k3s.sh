#!/usr/bin/env bash
# make-k3s.sh FILE - packs the stand-in for k3s into one executable file, as k3s is one.
#
# It runs wherever /usr/bin/python3 is 3.11 or newer; README.md beside this file tells what it
# does and which Debian packages a host needs for it.
set -euo pipefail

[ $# = 1 ] || {
    sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
}
here=$(cd "$(dirname "$0")" && pwd)
modules=$(mktemp -d)
trap 'rm -rf "$modules"' EXIT
cp "$here"/*.py "$modules"
rm "$modules"/test_*.py
find "$modules" -exec touch --date=@315619200 {} + # zip begins in 1980: the same input, the same file
/usr/bin/python3 -m zipapp --python /usr/bin/python3 --compress --output "$1" "$modules"
chmod 755 "$1"
