//! What k3s's log lines mean: those that users meet, each with its remedy.

use super::super::Diagnosis;
use super::super::known::{self, Known, hopeless, perhaps, shorten};

/// The first one that is found counts.
const KNOWN: [Known; 31] = [
    hopeless(
        &["no default routes found"],
        "this host has no default route, so k3s can't find its own address",
        "name the address with `--host-ip ADDRESS`",
    ),
    hopeless(
        &["nable to find default route"],
        "this host has no default route, so flannel can't find its interface",
        "name the interface with `--runtime-config flannel-iface=NAME`",
    ),
    hopeless(
        &["bootstrap data already found and encrypted with different token"],
        "there is a database of another k3s cluster, with another token",
        "remove what is left of it (/var/lib/rancher/k3s/server), or give k3s that cluster's token",
    ),
    hopeless(
        &["newer than datastore and could cause a cluster outage"],
        "files of an earlier k3s contradict its database",
        "remove the files that the line names, or all of /var/lib/rancher/k3s if that cluster is given up",
    ),
    hopeless(
        &["server is not ready: yaml:"],
        "/etc/rancher/k3s/registries.yaml is not YAML",
        "delete the cluster and install it again: sealrs writes that file",
    ),
    hopeless(
        &["level=fatal", "yaml: line"],
        "k3s's configuration is not YAML",
        "correct /etc/rancher/k3s/config.yaml or the files in config.yaml.d",
    ),
    hopeless(
        &["flag provided but not defined"],
        "k3s does not know one of its settings",
        "leave out what the line names; this version of k3s does not have it",
    ),
    hopeless(
        &["bind: address already in use"],
        "another program listens on a port that k3s needs",
        "stop that program",
    ),
    hopeless(
        &["no space left on device"],
        "the disk is full",
        "free some space below /var/lib/rancher/k3s",
    ),
    hopeless(
        &["failed to find memory cgroup"],
        "the kernel runs without memory cgroups",
        "boot with the kernel parameters cgroup_memory=1 cgroup_enable=memory",
    ),
    hopeless(
        &["cgroup v1", "kubelet"],
        "this kubelet refuses cgroups of version 1",
        "boot with cgroups of version 2, or pass `--runtime-config kubelet-arg=fail-cgroupv1=false`",
    ),
    hopeless(
        &["Following Cgroup subsystem not mounted"],
        "a cgroup controller that the kubelet needs is missing",
        "boot a kernel with the controllers that the line names",
    ),
    hopeless(
        &["snapshotter cannot be enabled"],
        "the file system of /var/lib/rancher can't hold overlays",
        "pass `--runtime-config snapshotter=native`, or put /var/lib/rancher on ext4 or xfs",
    ),
    hopeless(
        &["xec format error"],
        "the image's bin/k3s is for another architecture",
        "build the image with the k3s binary of this host's architecture",
    ),
    hopeless(
        &["token CA hash does not match"],
        "the token belongs to a cluster with another certificate authority",
        "use the token of the cluster that is to be joined",
    ),
    hopeless(
        &["invalid token"],
        "the token has a wrong form",
        "use the token as the server wrote it",
    ),
    hopeless(
        &["not authorized"],
        "the cluster refuses the token",
        "use the cluster's token: agents need the agent token where one is set",
    ),
    hopeless(
        &["preparing server: forbidden"],
        "a token for agents can't make a server",
        "use the cluster's server token",
    ),
    hopeless(
        &["Node password rejected"],
        "the cluster knows a node of this name with another password",
        "delete that node first, or give this host another name",
    ),
    hopeless(
        &["duplicate node name found"],
        "the cluster has a server of this name",
        "give this host another name",
    ),
    hopeless(
        &["critical configuration value mismatch"],
        "the servers' settings differ where they must be equal",
        "give all servers the same settings; the lines before name them",
    ),
    hopeless(
        &["etcd disabled"],
        "the first server keeps its data in SQLite, so no other can join",
        "install the first server with `--runtime-config cluster-init=true`",
    ),
    hopeless(
        &["failed SASL auth"],
        "the database refuses the user or the password",
        "correct the datastore's endpoint",
    ),
    hopeless(
        &["kubelet exited: failed to validate kubelet flags"],
        "the kubelet refuses a setting",
        "correct what the line names: it comes from `--runtime-config` or from the image's etc/k3s/config.yaml",
    ),
    perhaps(
        &["kubelet exited: failed to run Kubelet"],
        "the kubelet does not start",
        "put right what the line names",
    ),
    perhaps(
        &["certificate has expired or is not yet valid"],
        "a certificate is not valid at this time",
        "set the clocks of all hosts",
    ),
    perhaps(
        &["failed to get CA certs"],
        "the server that is to be joined can't be reached",
        "check that this host reaches the server's port 6443",
    ),
    perhaps(
        &["failed to get sandbox image"],
        "the pause image is neither in the bundle nor in the registry",
        "add it to the image's `images/` or to its image list, under the name in the line",
    ),
    perhaps(
        &["unhandled file type; supported extensions"],
        "a file in the image's `images/` is no archive that k3s imports",
        "leave it out, or repack it as .tar or .tar.zst",
    ),
    perhaps(
        &["level=error", "ailed to ingest"],
        "an archive of the bundle can't be imported",
        "repack it; zstd's window may be 32 MiB at most",
    ),
    perhaps(
        &["cni plugin not initialized"],
        "the node has no pod network",
        "check the image's network plugin and the setting `flannel-backend`",
    ),
];

/// The meaning of the last line that has one; what can't get better counts more.
pub(super) fn diagnose(log: &str) -> Option<Diagnosis> {
    known::diagnose(log, &KNOWN)
}

/// An archive of the bundle that k3s could not import, nor has imported since: it goes on without the images.
pub(super) fn left_out(log: &str) -> Option<Diagnosis> {
    const FAILED: &str = "Error encountered while importing ";
    let lines: Vec<&str> = log.lines().collect();
    let (path, why) = lines.iter().enumerate().find_map(|(number, line)| {
        let (_, rest) = line.split_once(FAILED)?;
        let (path, why) = rest.split_once(": ")?;
        let imported = format!("Imported images from {path} in ");
        let later = lines.get(number..).unwrap_or_default();
        // An image that is known by its digest alone gets no tag, and needs none.
        let has_no_tag = why.contains("failed to retag images") && why.contains("@sha256:");
        let is_left_out = !has_no_tag && !later.iter().any(|line| line.contains(&imported));
        is_left_out.then_some((path, why))
    })?;
    let why = why
        .strip_prefix(&format!("failed to import images from {path}: "))
        .unwrap_or(why);
    let remedy = if path.ends_with(".txt") {
        "name the images in the image list instead of a .txt file, so that they are in the image, and build it again"
    } else {
        "build the image again with a whole archive (.tar, .tar.gz, .tar.bz2, .tar.lz4 or .tar.zst, \
         zstd's window at most 32 MiB) whose images have full names"
    };
    Some(Diagnosis {
        cause: format!("k3s could not import {path}: {}", shorten(why.trim())),
        remedy: remedy.to_owned(),
        hopeless: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as a real one wrote them, and a word of the cause.
    const LINES: [(&str, &str, bool); 21] = [
        (
            r#"time="2026-11-23T10:00:00Z" level=fatal msg="no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"""#,
            "default route",
            true,
        ),
        (
            r#"time="t" level=fatal msg="starting kubernetes: preparing server: bootstrap data already found and encrypted with different token""#,
            "another token",
            true,
        ),
        (
            r#"level=fatal msg="Failed to reconcile with temporary etcd: bootstrap data already found and encrypted with different token""#,
            "another token",
            true,
        ),
        (
            r#"level=fatal msg="yaml: line 1: did not find expected node content""#,
            "configuration is not YAML",
            true,
        ),
        (
            r#"level=info msg="Waiting to retrieve agent configuration; server is not ready: yaml: line 2: mapping values are not allowed in this context""#,
            "registries.yaml",
            true,
        ),
        (
            "Incorrect Usage: flag provided but not defined: -tls-san",
            "does not know",
            true,
        ),
        (
            r#"level=error msg="token CA hash does not match the Cluster CA certificate hash: A != B""#,
            "certificate authority",
            true,
        ),
        (r#"level=error msg="invalid token CA hash length""#, "wrong form", true),
        (
            r#"level=info msg="Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration from server: not authorized""#,
            "refuses the token",
            true,
        ),
        (
            r#"level=info msg="Waiting to retrieve agent configuration; server is not ready: /var/lib/rancher/k3s/agent/serving-kubelet.crt: Node password rejected, duplicate hostname or contents""#,
            "another password",
            true,
        ),
        (
            r#"level=fatal msg="starting kubernetes: preparing server: etcd disabled""#,
            "SQLite",
            true,
        ),
        (
            r#"level=fatal msg="starting kubernetes: preparing server: failed to validate server configuration: critical configuration value mismatch between servers""#,
            "differ",
            true,
        ),
        (
            r#"level=fatal msg="etcd cluster join failed: duplicate node name found, please use a unique name for this node""#,
            "of this name",
            true,
        ),
        (
            r#"level=fatal msg="starting kubernetes: preparing server: forbidden""#,
            "agents can't",
            true,
        ),
        (
            r#"level=error msg="failed to ping connection: failed to connect to `user=k3s database=kine`: h:5432 (h): failed SASL auth: FATAL: password""#,
            "database refuses",
            true,
        ),
        (
            r#"level=error msg="failed to get CA certs: Get \"https://10.0.0.1:6443/cacerts\": dial tcp 10.0.0.1:6443: connect: no route to host""#,
            "can't be reached",
            false,
        ),
        (
            r#"level=error msg="unhandled file type; supported extensions: .tar .tar.lz4""#,
            "no archive",
            false,
        ),
        (
            r#"level=error msg="... failed to ingest ...""#,
            "can't be imported",
            false,
        ),
        (
            r#"level=error msg="kubelet exited: failed to validate kubelet flags: invalid node labels: '[{a b}]' - name part must consist of""#,
            "refuses a setting",
            true,
        ),
        (
            r#"level=error msg="kubelet exited: failed to run Kubelet: Failed to start ContainerManager open /proc/sys/vm/overcommit_memory""#,
            "kubelet does not start",
            false,
        ),
        (
            r#"level=fatal msg="/var/lib/rancher/k3s/server/cred/passwd newer than datastore and could cause a cluster outage. Remove the file(s)""#,
            "contradict",
            true,
        ),
    ];

    #[test]
    fn knows_the_lines_that_k3s_writes() {
        for (line, cause, hopeless) in LINES {
            let log = format!("level=info msg=\"Starting k3s v1\"\n{line}\nlevel=info msg=\"x\"\n");
            let diagnosis = diagnose(&log).unwrap_or_else(|| panic!("{line}"));
            assert!(diagnosis.cause.contains(cause), "{line}: {diagnosis:?}");
            assert_eq!(diagnosis.hopeless, hopeless, "{line}");
            assert!(!diagnosis.cause.contains("level="), "{diagnosis:?}");
        }
    }

    #[test]
    fn knows_which_archives_were_not_imported() {
        let line = |level: &str, message: &str| format!("time=\"t\" level={level} msg=\"{message}\"\n");
        let imports = "/var/lib/rancher/k3s/agent/images";
        let failed = |file: &str, why: &str| {
            let message = format!("Error encountered while importing {imports}/{file}: {why}");
            line("error", &message)
        };
        let cut = failed("cut.tar", "failed to import images from x: unexpected EOF");
        let diagnosis = left_out(&cut).unwrap();
        assert!(diagnosis.cause.contains("cut.tar"), "{diagnosis:?}");
        assert!(diagnosis.cause.contains("unexpected EOF"), "{diagnosis:?}");
        let list = failed("list.txt", "failed to pull images");
        assert!(left_out(&list).unwrap().remedy.contains("image list"));

        let later = line("info", &format!("Imported images from {imports}/cut.tar in 3ms"));
        assert_eq!(left_out(&(cut.clone() + &later)), None);
        assert!(left_out(&(later + &cut)).is_some());
        let tag = "failed to retag images: failed to parse tags for image";
        let digest = failed("digest.tar", &format!("{tag} docker.io/library/x@sha256:abc: y"));
        assert_eq!(left_out(&digest), None);
        assert!(left_out(&failed("bare.tar", &format!("{tag} v1.2: y"))).is_some());
        assert_eq!(left_out("Importing images from x\nImported a\n"), None);
    }

    #[test]
    fn a_good_start_means_nothing_bad() {
        let log = "time=\"t\" level=info msg=\"Starting k3s v1.31.2+k3s1 (abc)\"\n\
                   level=info msg=\"Server node token is available at /var/lib/rancher/k3s/server/token\"\n\
                   level=info msg=\"Waiting for control-plane node node1 startup: nodes \\\"node1\\\" not found\"\n\
                   level=info msg=\"k3s is up and running\"\n";
        assert_eq!(diagnose(log), None);
    }

    #[test]
    fn what_is_hopeless_counts_more() {
        let log = "failed to get CA certs\nlevel=fatal msg=\"no default routes found in x\"\nfailed to get CA certs\n";
        assert!(diagnose(log).unwrap().hopeless);
        let long = format!("no default routes found {}", "x".repeat(1000));
        assert!(diagnose(&long).unwrap().cause.len() < 500);
    }
}
