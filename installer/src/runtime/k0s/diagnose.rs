//! What k0s's log lines mean: those that users meet, each with its remedy.

use super::super::Diagnosis;
use super::super::known::{self, Known, hopeless, perhaps, shorten};

/// The first one that is found counts.
const KNOWN: [Known; 18] = [
    hopeless(
        &["pre-flight checks failed"],
        "k0s's own checks refuse this host",
        "put right what the line says, or pass `--runtime-config ignore-pre-flight-checks=true`",
    ),
    hopeless(
        &["invalid node config"],
        "k0s refuses its configuration",
        "correct the image's etc/k0s/k0s.yaml, or the ClusterConfig of the Clusterfile",
    ),
    hopeless(
        &["the server has asked for the client to provide credentials"],
        "the first controller does not take this host's token: it has expired, or was made for another cluster",
        "run the same command again for a new one, and see that the hosts' clocks agree",
    ),
    hopeless(
        &["x509: certificate signed by unknown authority"],
        "the controller that answers is of another cluster",
        "see that no other cluster has this address, and remove what is left of one with `k0s reset`",
    ),
    hopeless(
        &["x509: certificate has expired or is not yet valid"],
        "the hosts' clocks do not agree",
        "set the clocks of all hosts, for instance with chrony",
    ),
    hopeless(
        &["Kine health-check timed out"],
        "the datastore does not answer, or refuses the user",
        "see that this host reaches the datastore, and that `spec.storage.kine.dataSource` of the ClusterConfig is right",
    ),
    hopeless(
        &["failed to sync etcd config"],
        "the members of etcd take no new one: one of them is down, or one of this address is still in their list",
        "bring all masters up, or take the old member out with `k0s etcd leave --peer-address ADDRESS` on one that is",
    ),
    hopeless(
        &["the member has been permanently removed from the cluster"],
        "this host was taken out of etcd",
        "remove the host with `sealrs delete --masters`, then add it again",
    ),
    hopeless(
        &["/pki/", "permission denied"],
        "a part of k0s, which runs as a user of its own, can't read a file that it needs",
        "see that its folder and the folders above it let others pass (`chmod o+x`)",
    ),
    hopeless(
        &["address already in use"],
        "another program has a port of k0s's",
        "stop that program",
    ),
    hopeless(
        &["no space left on device"],
        "a disk of this host is full",
        "make room, then run the same command again",
    ),
    hopeless(
        &["is not supported on cgroup v1"],
        "the kubelet does not run with cgroups of version 1",
        "boot with cgroups of version 2, or give k0s.yaml a worker profile with `failCgroupV1: false`",
    ),
    hopeless(
        &["failed to build KubeletFlags"],
        "the kubelet refuses its arguments",
        "correct `--runtime-config kubelet-extra-args`",
    ),
    hopeless(
        &["failed to validate kubelet flags"],
        "the kubelet refuses its arguments",
        "correct what is given by `--runtime-config labels`, `taints` and `kubelet-extra-args`",
    ),
    perhaps(
        // Components of its log errors of their own, which they get over.
        &["^Error: "],
        "k0s, or a part of it, ended",
        "correct what the line says",
    ),
    perhaps(
        &["failed to connect to apiserver"],
        "the first controller can't be reached",
        "see that no firewall stands between the hosts, and that the first controller is up",
    ),
    perhaps(
        &["connect: connection refused"],
        "something that k0s needs does not answer yet",
        "look at the log of k0scontroller on the first master",
    ),
    perhaps(
        &["respawning in 5s"],
        "a part of k0s ends again and again",
        "look at the lines before this one in the log of the service",
    ),
];

pub(super) fn diagnose(log: &str) -> Option<Diagnosis> {
    known::diagnose(log, &KNOWN)
}

/// An archive of the bundle that k0s could not import, nor has imported since: it goes on without the images.
pub(super) fn left_out(log: &str) -> Option<Diagnosis> {
    const FAILED: &str = "Failed to load OCI bundle ";
    let lines: Vec<&str> = log.lines().collect();
    let (path, line) = lines.iter().enumerate().find_map(|(number, line)| {
        let (_, rest) = line.split_once(FAILED)?;
        let path = rest.split(['"', ' ', '\\']).next()?;
        let loaded = format!("OCI bundle {path} loaded");
        let later = lines.get(number..).unwrap_or_default();
        (!later.iter().any(|line| line.contains(&loaded))).then_some((path, *line))
    })?;
    let why = line.split_once(" error=").map_or(line, |(_, why)| why);
    let why = why.trim().trim_matches('"').replace("\\\"", "\"");
    Some(Diagnosis {
        cause: format!("k0s could not import {path}: {}", shorten(&why)),
        remedy: "build the image again with a whole archive that is not packed, and whose images have full names"
            .to_owned(),
        hopeless: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_have_cause_and_remedy() {
        for (line, says, hopeless) in [
            (
                "Error: failed to start controller node components: Kine health-check timed out",
                "the datastore does not answer",
                true,
            ),
            (
                "Error: failed to join controller: failed to join existing cluster via https://10.88.0.11:9443: the server has \
                 asked for the client to provide credentials",
                "does not take this host's token",
                true,
            ),
            (
                "Get \"https://10.88.0.11:9443/v1beta1/ca\": tls: failed to verify certificate: x509: certificate signed by \
                 unknown authority",
                "of another cluster",
                true,
            ),
            ("time=x level=info msg=\"respawning in 5s\"", "again and again", false),
        ] {
            let found = diagnose(&format!("a\n{line}\nb")).unwrap();
            assert!(found.cause.contains(says) && found.hopeless == hopeless, "{found:?}");
        }
        assert_eq!(diagnose("level=info msg=\"starting Kubelet\""), None);
    }

    #[test]
    fn an_archive_that_was_left_out_is_named() {
        let failed = "level=error msg=\"Failed to load OCI bundle /var/lib/k0s/images/a.tar\" component=OCIBundleReconciler \
                      error=\"failed to process OCI bundle: can't import bundle: archive/tar: invalid tar header\"";
        assert!(left_out(failed).unwrap().cause.contains("/var/lib/k0s/images/a.tar"));
        let loaded = format!("{failed}\nlevel=info msg=\"OCI bundle /var/lib/k0s/images/a.tar loaded\"");
        assert_eq!(left_out(&loaded), None);
    }
}
