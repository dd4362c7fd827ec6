#!/bin/sh
# Prints the --build-arg flags for a release of k0s, with the checksums that the release publishes.
# Usage: release-args.sh VERSION [ARCHITECTURE [URL]]
set -eu
version=$1
architecture=${2:-amd64}
url=${3:-https://github.com/k0sproject/k0s/releases/download/$version}

sums=$(curl --fail --silent --show-error --location --retry 3 "$url/sha256sums.txt")
sum_of() {
    echo "$sums" | awk -v name="$1" '{ sub(/^\*/, "", $2) } $2 == name { print $1; found = 1 } END { exit !found }' || {
        echo "error: $url/sha256sums.txt does not list $1" >&2
        exit 1
    }
}
program=$(sum_of "k0s-$version-$architecture")
airgap=$(sum_of "k0s-airgap-bundle-$version-linux-$architecture.tar")
list=$(sum_of "airgap-images-linux-$architecture.txt")

echo "--build-arg K0S_VERSION=$version"
echo "--build-arg K0S_URL=$url"
echo "--build-arg K0S_SHA256=$program"
echo "--build-arg K0S_AIRGAP_SHA256=$airgap"
echo "--build-arg K0S_LIST_SHA256=$list"
