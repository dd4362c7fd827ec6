#!/usr/bin/env bash
# pack.sh FOLDER FILE - packs the stand-in in FOLDER, with the parts that all stand-ins share, into one executable file.
#
# It runs wherever /usr/bin/python3 is 3.11 or newer; README.md in FOLDER tells what it does and which Debian packages a
# host needs for it.
set -euo pipefail

[ $# = 2 ] || {
    sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
    exit 2
}
here=$(cd "$(dirname "$0")" && pwd)
modules=$(mktemp -d)
trap 'rm -rf "$modules"' EXIT
cp "$here"/*.py "$1"/*.py "$modules"
rm -f "$modules"/test_*.py
cp "$1"/*.txt "$modules" 2>/dev/null || true
find "$modules" -exec touch --date=@315619200 {} + # zip begins in 1980: the same input, the same file
/usr/bin/python3 -m zipapp --python /usr/bin/python3 --compress --output "$2" "$modules"
chmod 755 "$2"
