#!/usr/bin/env bash
# make.sh SEALRS KUBE FOLDER - a ClusterImage with a real Kubernetes 1.20.2, built as one builds it from k8s.gcr.io and Docker Hub.
#
#   SEALRS   the program that builds it
#   KUBE     the programs that scripts/kubernetes.sh has built
#   FOLDER   where it is made: FOLDER/context can be changed and built again with `make.sh SEALRS KUBE FOLDER again NAME`,
#            which makes FOLDER/NAME.tar; the first one is FOLDER/kubernetes.tar
#
# Two registries answer in a network of their own, where nobody else sees them. Needs root, and the Debian packages
# docker-registry skopeo umoci busybox-static gcc openssl iptables conntrack containernetworking-plugins; and Go the first time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sealrs=$1 kube=$2 folder=$3 name=${5:-kubernetes}
mkdir -p "$folder"
cd "$folder"
lib=/usr/lib/$(uname -m)-linux-gnu
version=v1.20.2

image() { "$here/image.py" "images/$1" "${@:2}"; }

if [ "${4:-}" != again ]; then
    mkdir -p images context/rootfs/{bin/cni,etc,manifests}
    gcc -Os -static -s -o pause "$here/../images/pause.c"
    for program in kube-apiserver kube-controller-manager kube-scheduler; do
        image "k8s.gcr.io_$program@$version" "/usr/local/bin/$program" "$kube/$program:/usr/local/bin/$program"
    done
    image k8s.gcr.io_etcd@3.4.13-0 /usr/local/bin/etcd "$kube/etcd:/usr/local/bin/etcd" "$kube/etcdctl:/usr/local/bin/etcdctl"
    links=()
    for link in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        links+=("/usr/sbin/xtables-nft-multi:/usr/sbin/$link")
    done
    image "k8s.gcr.io_kube-proxy@$version" /usr/local/bin/kube-proxy "$kube/kube-proxy:/usr/local/bin/kube-proxy" "${links[@]}" \
        /usr/sbin/conntrack "$lib/xtables" "$(readlink -f "$lib/libm.so.6"):$lib/libm.so.6"
    image k8s.gcr.io_pause@3.2 /pause pause:/pause
    image k8s.gcr.io_coredns@1.7.0 /coredns "$kube/crictl:/coredns"
    "$here/../images/make-image.sh" busybox docker.io/library/busybox:1.35 images/docker.io_library_busybox@1.35

    for program in kubeadm kubelet kubectl crictl; do cp "$kube/$program" context/rootfs/bin/; done
    cp /usr/lib/cni/{bridge,host-local,loopback,portmap} context/rootfs/bin/cni/
    cp "$here/kubeadm.yml" context/rootfs/etc/
    cp "$here/network.yaml" "$here/pod.yaml" context/rootfs/manifests/
    # A kubelet of a container may not lower what the kernel kills first.
    install -m 755 "$here/runc.sh" context/rootfs/bin/runc
    for file in images/*; do basename "$file" | tr _@ /:; done >context/rootfs/imageList
    cat >context/Kubefile <<-END
	FROM scratch
	LABEL cluster.alpha.sealer.io/cluster-runtime-type=kubernetes cluster.alpha.sealer.io/cluster-runtime-version=$version
	COPY rootfs .
	CMDS ["kubectl apply -f manifests/network.yaml", "kubectl apply -f manifests/pod.yaml"]
	END
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 10 \
        -subj /CN=test -addext basicConstraints=critical,CA:TRUE 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=test 2>/dev/null
    echo subjectAltName=DNS:docker.io,DNS:registry-1.docker.io,DNS:k8s.gcr.io >names
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -extfile names -out server.crt 2>/dev/null
    mkdir -p trust
    cp ca.crt trust/
    echo 127.0.0.1 localhost docker.io registry-1.docker.io k8s.gcr.io >hosts
    cat >registry.yml <<-END
	version: 0.1
	log: {level: error, accesslog: {disabled: true}}
	storage: {filesystem: {rootdirectory: $PWD/storage}}
	http:
	  addr: 127.0.0.1:443
	  secret: test
	  tls: {certificate: $PWD/server.crt, key: $PWD/server.key}
	END
fi

# shellcheck disable=SC2016 # Expanded by the inner shell.
unshare --net --mount --pid --fork --kill-child bash -euc '
    sealrs=$1 name=$2 again=$3
    ip link set lo up
    mount --bind hosts /etc/hosts
    docker-registry serve registry.yml 2>registry.log &
    for _ in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/443) 2>/dev/null && break; sleep 0.1; done
    if [ "$again" != again ]; then
        for file in images/*; do
            target=$(basename "$file" | tr _@ /:)
            skopeo --insecure-policy copy --quiet --dest-cert-dir trust "oci-archive:$file" \
                "docker://${target/#docker.io/registry-1.docker.io}"
        done
    fi
    "$sealrs" --root "$PWD/root" --quiet build --compression none --no-discovery --ca-file ca.crt -f context/Kubefile -t "$name:test" context
' bash "$sealrs" "$name" "${4:-}"
"$sealrs" --root "$PWD/root" --quiet save "$name:test" -o "$name.tar"
