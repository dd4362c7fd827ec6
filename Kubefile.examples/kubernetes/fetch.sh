#!/bin/sh
# Puts a release of Kubernetes and what it runs on into rootfs/, each file checked against the checksum that its project
# publishes beside it, and writes the list of the control plane's images.
# Usage: fetch.sh VERSION [ARCHITECTURE]
# The versions of the other programs, and where all of them are, come from the environment.
set -eu
cd "$(dirname "$0")"
version=$1
architecture=${2:-amd64}
: "${KUBERNETES_URL:=https://dl.k8s.io}"
: "${CRI_TOOLS:=v1.34.0}" "${CRI_TOOLS_URL:=https://github.com/kubernetes-sigs/cri-tools/releases/download}"
: "${CONTAINERD:=2.1.4}" "${CONTAINERD_URL:=https://github.com/containerd/containerd/releases/download}"
: "${RUNC:=v1.3.1}" "${RUNC_URL:=https://github.com/opencontainers/runc/releases/download}"
: "${CNI_PLUGINS:=v1.8.0}" "${CNI_PLUGINS_URL:=https://github.com/containernetworking/plugins/releases/download}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get() { curl --fail --silent --show-error --location --retry 3 "$1" -o "$2"; }
# get_checked URL SUMS: SUMS is a file with the file's checksum, alone or in a line with its name.
get_checked() {
    name=${1##*/}
    get "$1" "$work/$name"
    get "$2" "$work/sums"
    sum=$(awk -v name="$name" '{ sub(/^\*/, "", $2) } NF == 1 || $2 == name { print $1; exit }' "$work/sums")
    [ -n "$sum" ] || { echo "error: $2 does not list $name" >&2; exit 1; }
    echo "$sum  $work/$name" | sha256sum -c --quiet -
}

mkdir -p rootfs/bin/cni rootfs/manifests/network
for program in kubeadm kubelet kubectl; do
    url=$KUBERNETES_URL/$version/bin/linux/$architecture/$program
    get_checked "$url" "$url.sha256"
    install -m 755 "$work/$program" rootfs/bin/
done
url=$CRI_TOOLS_URL/$CRI_TOOLS/crictl-$CRI_TOOLS-linux-$architecture.tar.gz
get_checked "$url" "$url.sha256"
tar -xzf "$work/${url##*/}" -C rootfs/bin crictl
url=$CONTAINERD_URL/v$CONTAINERD/containerd-$CONTAINERD-linux-$architecture.tar.gz
get_checked "$url" "$url.sha256sum"
tar -xzf "$work/${url##*/}" -C rootfs bin/containerd bin/containerd-shim-runc-v2 bin/ctr
url=$RUNC_URL/$RUNC/runc.$architecture
get_checked "$url" "$RUNC_URL/$RUNC/runc.sha256sum"
install -m 755 "$work/runc.$architecture" rootfs/bin/runc
url=$CNI_PLUGINS_URL/$CNI_PLUGINS/cni-plugins-linux-$architecture-$CNI_PLUGINS.tgz
get_checked "$url" "$url.sha256"
tar -xzf "$work/${url##*/}" -C rootfs/bin/cni --no-same-owner
find rootfs/bin/cni -type f ! -perm -100 -delete

# kubeadm knows them; one of another architecture than this machine's can't be asked.
if [ -n "${KUBEADM:-}" ] || rootfs/bin/kubeadm version -o short >/dev/null 2>&1; then
    "${KUBEADM:-rootfs/bin/kubeadm}" config images list --kubernetes-version "$version" >rootfs/manifests/imageList
else
    echo "write rootfs/manifests/imageList: what \`kubeadm config images list --kubernetes-version $version\` prints" >&2
fi
[ -n "$(find rootfs/manifests/network -type f)" ] ||
    echo "put the manifests of a network into rootfs/manifests/network: without one no node gets ready" >&2
