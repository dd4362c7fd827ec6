#!/usr/bin/env bash
# Measures what the built-in registry gives to many clients at once, beside Debian's docker-registry and nginx with the
# same files, and says whether the targets are met. Usage: scripts/bench/registry.sh --help
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'EOF'
Usage: scripts/bench/registry.sh [--clients N] [--size MIB] [--rounds N] [--quick] [--scratch DIR] [--sealrs FILE]

  --clients N     how many clients pull at once; default 64
  --size MIB      what each of them pulls, in 16 blobs; default 2048
  --rounds N      how often each server is measured, by turns; default 3
  --quick         8 clients and 128 MiB, once: whether it works, not how fast
  --scratch DIR   where to work, a folder that does not exist yet; default: a new one in /var/tmp
  --sealrs FILE   the program to measure; default: what scripts/build.sh builds

It needs docker-registry, nginx, python3 and curl. All runs over the loopback device with a warm page cache.
EOF
}

clients=64 size=2048 rounds=3 scratch='' sealrs=''
while [ $# -gt 0 ]; do
    case $1 in
        --clients) clients=$2 && shift ;;
        --size) size=$2 && shift ;;
        --rounds) rounds=$2 && shift ;;
        --quick) clients=8 size=128 rounds=1 ;;
        --scratch) scratch=$2 && shift ;;
        --sealrs) sealrs=$(realpath "$2") && shift ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
PATH=$PATH:/usr/sbin
for tool in docker-registry nginx python3 curl; do
    command -v "$tool" >/dev/null || {
        echo "error: $tool is missing" >&2
        exit 1
    }
done
[ -n "$sealrs" ] || sealrs=$(scripts/build.sh)
[ -n "$scratch" ] || scratch=$(mktemp -du /var/tmp/sealrs-bench.XXXXXX)
mkdir -p "$(dirname "$scratch")"
mkdir -m 700 "$scratch"

server=''
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=''
}
trap 'stop; rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM

dir=$scratch/registry address=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo "payload: 16 blobs of $((size / 16)) MiB"
python3 - "$dir" $((size / 16)) >"$scratch/digests" <<'EOF'
import hashlib, os, sys
folder, size = sys.argv[1], int(sys.argv[2])
home = f"{folder}/docker/registry/v2"
for number in range(16):
    aside = f"{folder}/blob"
    os.makedirs(folder, exist_ok=True)
    state = hashlib.sha256()
    with open(aside, "wb") as file:
        for _ in range(size):
            piece = os.urandom(1 << 20)
            state.update(piece)
            file.write(piece)
    digest = state.hexdigest()
    data, link = f"{home}/blobs/sha256/{digest[:2]}/{digest}", f"{home}/repositories/bench/_layers/sha256/{digest}"
    os.makedirs(data, exist_ok=True)
    os.makedirs(link, exist_ok=True)
    os.rename(aside, f"{data}/data")
    with open(f"{link}/link", "w") as file:
        file.write(f"sha256:{digest}")
    print(digest)
EOF
sync -f "$scratch"

cat >"$scratch/registry.yml" <<EOF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $dir}}
http: {addr: "$address"}
EOF
cat >"$scratch/nginx.conf" <<EOF
daemon off; pid $scratch/nginx.pid; error_log $scratch/nginx.log error; worker_processes auto; user root;
events { worker_connections 1024; }
http {
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream; keepalive_requests 100000;
    server { listen $address; location / { root $dir/docker/registry/v2/blobs/sha256; } }
}
EOF

start() { # SERVER
    case $1 in
        sealrs*) "$sealrs" --quiet registry serve --dir "$dir" --listen "$address" >"$scratch/log" 2>&1 & ;;
        docker-registry) docker-registry serve "$scratch/registry.yml" >"$scratch/log" 2>&1 & ;;
        nginx) nginx -c "$scratch/nginx.conf" >"$scratch/log" 2>&1 & ;;
    esac
    server=$!
    curl -s -o "$scratch/answer" --retry 20 --retry-connrefused --retry-delay 1 "http://$address/v2/" || {
        cat "$scratch/log" >&2
        exit 1
    }
}
paths() { # SERVER
    case $1 in
        nginx) sed -E 's|^((..).*)|/\2/\1/data|' "$scratch/digests" ;;
        *) sed 's|^|/v2/bench/blobs/sha256:|' "$scratch/digests" ;;
    esac
}
cat "$dir"/docker/registry/v2/blobs/sha256/*/*/data >"$scratch/warm" && rm "$scratch/warm"
for _ in $(seq "$rounds"); do
    for name in nginx docker-registry 'sealrs, first pull' 'sealrs'; do
        # The first pull also finds out whether the blobs are what they should be; the same process serves the second.
        [ "$name" = sealrs ] || start "$name"
        # shellcheck disable=SC2046 # one argument a path
        result=$(python3 scripts/bench/pull.py "$address" "$clients" "$server" $(paths "$name")) || {
            echo "error: $name: $result" >&2
            cat "$scratch/log" >&2
            exit 1
        }
        echo "$result" | sed "s/^{/{\"server\": \"$name\", /" | tee -a "$scratch/results"
        [ "$name" = 'sealrs, first pull' ] || stop
    done
done

echo "load average after: $(cut -d' ' -f1-3 /proc/loadavg)"
python3 - "$scratch/results" <<'EOF'
import json, sys
best = {}
with open(sys.argv[1]) as file:
    for line in file:
        run = json.loads(line)
        if run["server"] not in best or run["rate"] > best[run["server"]]["rate"]:
            best[run["server"]] = run
print(f"\n{'server':20} {'GB/s':>6} {'CPU s':>6} {'GB per CPU s':>12} {'peak MiB':>8}")
for name, run in best.items():
    print(f"{name:20} {run['rate']:6.2f} {run['cpu']:6.1f} {run['gigabytes'] / max(run['cpu'], 0.01):12.2f} {run['peak']:8}")
ours, debian, nginx = (best[name]["rate"] for name in ("sealrs", "docker-registry", "nginx"))
print(f"\nsealrs gives {ours / debian:.2f} times what docker-registry gives (target: 2), and {ours / nginx:.2f} times nginx")
sys.exit(ours < 2 * debian)
EOF
