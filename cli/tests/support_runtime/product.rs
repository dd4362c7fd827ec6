//! The programs that make a host a part of a cluster, and how each is installed by these tests.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::host::testdata;
use crate::support::succeed;

/// A program that hosts become a cluster by, as a stand-in of `testdata` or as it is.
#[derive(Debug)]
pub struct Product {
    /// What it is called: as a runtime, as a program, and as the folder of its stand-in.
    pub name: &'static str,
    /// The first part of the variables by which the real program is given.
    variables: &'static str,
    pub version: &'static str,
    /// The service of a host that is the cluster's first.
    pub service: &'static str,
    /// The name under which it wants the image of sandboxes.
    pub pause: &'static str,
    /// Where its settings are in the image, and those with which it needs no further images.
    pub settings: (&'static str, &'static str),
    /// Flags of `sealrs run` for the same.
    pub flags: &'static [&'static str],
    /// Files on a host that are their owner's alone, for bash.
    pub secret_files: &'static str,
    /// Prints a secret of the cluster, and where it is besides the program's own folders.
    pub secret: (&'static str, &'static [&'static str]),
    /// Makes a host one on which the stand-in finds what the settings leave to others.
    prepare: &'static str,
}

pub const K3S: Product = Product {
    name: "k3s",
    variables: "SEALRS_TEST_K3S",
    version: "v1.31.2+k3s1",
    service: "k3s",
    pause: "docker.io/rancher/mirrored-pause:3.6",
    settings: (
        "etc/k3s/config.yaml",
        "disable: [coredns, local-storage, metrics-server]\n",
    ),
    flags: &[],
    secret_files: "/etc/rancher/k3s/*",
    // Before it there is the fingerprint of the authority, which is no secret.
    secret: (
        "sed 's/.*://' /etc/rancher/k3s/token",
        &[
            "/etc/rancher/k3s/token",
            "/var/lib/sealer/data/my-cluster/secrets/k3s-token",
        ],
    ),
    prepare: ":",
};

pub const K0S: Product = Product {
    name: "k0s",
    variables: "SEALRS_TEST_K0S",
    version: "v1.36.3+k0s.2",
    service: "k0scontroller",
    pause: "quay.io/k0sproject/pause:3.10.2-0",
    settings: (
        "etc/k0s/k0s.yaml",
        "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  network:\n    provider: custom\n    \
         kubeProxy: {disabled: true}\n    nodeLocalLoadBalancing: {enabled: false}\n  workerProfiles:\n  - name: test\n    \
         values: {failCgroupV1: false, cgroupDriver: cgroupfs, failSwapOn: false}\n",
    ),
    // The hosts have cgroups of version 1.
    flags: &[
        "--runtime-config",
        "ignore-pre-flight-checks=true",
        "--runtime-config",
        "profile=test",
        "--runtime-config",
        "disable-components=konnectivity-server,metrics-server,coredns,kube-proxy",
    ],
    secret_files: "/etc/k0s/k0s.yaml /var/lib/k0s/pki/admin.conf",
    secret: (
        "sed -n 2p /var/lib/k0s/pki/ca.key",
        &["/var/lib/sealer/data/my-cluster/secrets/k0s/ca.key"],
    ),
    prepare: "mkdir -p /etc/cni/net.d; cat >/etc/cni/net.d/10-bridge.conflist <<X\n\
        {\"cniVersion\": \"0.4.0\", \"name\": \"net\", \"plugins\": [{\"type\": \"bridge\", \"bridge\": \"cni0\", \"isGateway\": true, \
        \"ipMasq\": true, \"ipam\": {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": \"10.244.$NUMBER.0/24\"}]], \
        \"routes\": [{\"dst\": \"0.0.0.0/0\"}]}}]}\nX",
};

impl Product {
    /// Puts the program there: the real one or the stand-in.
    pub fn put(&self, path: &str) {
        match env::var_os(self.variables) {
            Some(real) => drop(fs::copy(real, path).unwrap()),
            None => {
                let make = testdata(&format!("{0}/make-{0}.sh", self.name));
                succeed(Command::new(make).arg(path));
            }
        }
    }

    /// Whether the real program is installed.
    pub fn is_real(&self) -> bool {
        env::var_os(self.variables).is_some()
    }

    /// What makes a host ready for it: a program with its arguments, or a line of bash to run on the host.
    pub fn preparation(&self, hosts_sh: &Path, number: u32) -> Result<Command, String> {
        match env::var_os(format!("{}_PREPARE", self.variables)) {
            Some(program) => {
                let mut command = Command::new(program);
                command.arg(hosts_sh).arg(number.to_string());
                Ok(command)
            }
            None => Err(format!("NUMBER={number}; {}", self.prepare)),
        }
    }

    /// Paths that the real program makes besides its own.
    pub fn leaves(&self) -> Vec<String> {
        words(&format!("{}_LEAVES", self.variables))
    }
}

/// The words of a variable of the environment.
pub fn words(variable: &str) -> Vec<String> {
    let value = env::var(variable).unwrap_or_default();
    value.split_whitespace().map(str::to_owned).collect()
}
