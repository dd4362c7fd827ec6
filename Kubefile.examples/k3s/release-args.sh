#!/bin/sh
# Prints the --build-arg flags for a release of k3s, with the checksums that the release publishes.
# Usage: release-args.sh VERSION [ARCHITECTURE [URL]]
set -eu
version=$1
architecture=${2:-amd64}
url=${3:-https://github.com/k3s-io/k3s/releases/download/$version}
case $architecture in
    amd64) suffix='' ;;
    arm) suffix=-armhf ;;
    *) suffix=-$architecture ;;
esac

get() {
    curl --fail --silent --show-error --location --retry 3 "$url/$1"
}
sums=$(get "sha256sum-$architecture.txt")
sum_of() {
    echo "$sums" | awk -v name="$1" '{ sub(/^.*\//, "", $2) } $2 == name { print $1; found = 1 } END { exit !found }' || {
        echo "error: $url/sha256sum-$architecture.txt does not list $1" >&2
        exit 1
    }
}
program=$(sum_of "k3s$suffix")
airgap=$(sum_of "k3s-airgap-images-$architecture.tar.zst")
# The release publishes no checksum of its list, so this one says only that it stays what it is now.
list=$(get k3s-images.txt | sha256sum | cut -d' ' -f1)

echo "--build-arg K3S_VERSION=$version"
echo "--build-arg K3S_URL=$url"
echo "--build-arg K3S_SUFFIX=$suffix"
echo "--build-arg K3S_SHA256=$program"
echo "--build-arg K3S_AIRGAP_SHA256=$airgap"
echo "--build-arg K3S_LIST_SHA256=$list"
