//! Looks for lines that are known in the log of a runtime's service.

use super::Diagnosis;

/// A line that is known.
pub(super) struct Known {
    /// Parts that are all in the line; one with `^` before it is its beginning.
    parts: &'static [&'static str],
    cause: &'static str,
    remedy: &'static str,
    /// The service tries again for ever, or ends: waiting can't help.
    hopeless: bool,
}

pub(super) const fn hopeless(parts: &'static [&'static str], cause: &'static str, remedy: &'static str) -> Known {
    Known {
        parts,
        cause,
        remedy,
        hopeless: true,
    }
}

pub(super) const fn perhaps(parts: &'static [&'static str], cause: &'static str, remedy: &'static str) -> Known {
    Known {
        parts,
        cause,
        remedy,
        hopeless: false,
    }
}

const NO_MAJORITY: &str = "bring all masters up, or take those that are lost out with `sealrs delete --masters`";

/// Lines of what all of them are made of: containerd, the kubelet, network plugins and etcd.
const COMMON: [Known; 13] = [
    hopeless(
        &["failed to resolve reference", "certificate signed by unknown authority"],
        "containerd does not believe a registry's certificate",
        "see that nothing but sealrs has written the settings for this registry, or give a certificate authority that is known",
    ),
    hopeless(
        &[
            "failed to resolve reference",
            "server gave HTTP response to HTTPS client",
        ],
        "a registry speaks plain HTTP, and is asked by HTTPS",
        "give the registry a certificate, or set it up with `http://` in containerd's settings",
    ),
    hopeless(
        &["failed to resolve reference", "401 Unauthorized"],
        "a registry wants a user and a password",
        "bundle the image, or give the registry's login to containerd",
    ),
    hopeless(
        &["proxyconnect tcp"],
        "what should be reached directly is asked of a proxy, which does not answer",
        "add the hosts' addresses and the private registry's name to NO_PROXY, where HTTPS_PROXY is set",
    ),
    hopeless(
        &["already has an IP address different from"],
        "a bridge of another pod network is there",
        "remove it (`ip link delete cni0`), then run the same command again",
    ),
    hopeless(
        &["is incompatible, use 'nft' tool"],
        "the firewall's rules were made by another iptables than the one that is used here",
        "remove these rules (`nft flush ruleset`), or let both be of one kind (`update-alternatives --config iptables`)",
    ),
    hopeless(
        &["lookup localhost", "no such host"],
        "this host does not know localhost",
        "add `127.0.0.1 localhost` to /etc/hosts",
    ),
    hopeless(
        &["etcdserver: unhealthy cluster"],
        "etcd takes no new member: one that it knows is down",
        NO_MAJORITY,
    ),
    hopeless(
        &["re-configuration failed due to not enough started members"],
        "etcd takes no new member: too few of those that it knows are up",
        NO_MAJORITY,
    ),
    perhaps(
        &["prober found high clock drift"],
        "the clocks of masters differ",
        "set the clocks of all hosts, for instance with chrony",
    ),
    perhaps(
        &["leader is overloaded likely from slow disk"],
        "the disk is too slow for etcd",
        "put etcd's data on a disk that syncs in a few milliseconds",
    ),
    perhaps(
        &["slow fdatasync"],
        "the disk is too slow for etcd",
        "put etcd's data on a disk that syncs in a few milliseconds",
    ),
    perhaps(
        &["SELinux is enabled", "not been started with"],
        "SELinux is on, and containers are not labelled for it",
        "install the runtime's SELinux policy, or turn SELinux's enforcing off",
    ),
];

/// What a log means, by these lines and those that all have in common: the first one that is found counts, hopeless ones before
/// others.
pub(super) fn diagnose(log: &str, known: &[Known]) -> Option<Diagnosis> {
    let find = |wanted: bool| {
        COMMON
            .iter()
            .chain(known)
            .filter(move |known| known.hopeless == wanted)
            .find_map(|known| {
                let has = |line: &str, part: &str| match part.strip_prefix('^') {
                    Some(beginning) => line.starts_with(beginning),
                    None => line.contains(part),
                };
                let has_all = |line: &&str| known.parts.iter().all(|part| has(line, part));
                let line = log.lines().rfind(has_all)?;
                Some(Diagnosis {
                    cause: format!("{}: {}", known.cause, shorten(line.trim())),
                    remedy: known.remedy.to_owned(),
                    hopeless: known.hopeless,
                })
            })
    };
    find(true).or_else(|| find(false))
}

/// A line without its time and level, cut where nobody would read on.
pub(super) fn shorten(line: &str) -> String {
    let message = line
        .split_once(" msg=")
        .map_or(line, |(_, message)| message)
        .trim_matches('"')
        .replace("\\\"", "\"");
    let mut short: String = message.chars().take(300).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_what_runtimes_are_made_of() {
        for (line, says) in [
            (
                r#"E1127 kuberuntime_manager.go:1256] "CreatePodSandbox for pod failed" err="rpc error: code = Unknown desc = failed to setup network for sandbox: plugin type=\"bridge\" failed (add): failed to set bridge addr: \"cni0\" already has an IP address different from 10.244.1.1/24""#,
                "bridge of another pod network",
            ),
            (
                r#"failed to pull and unpack image "sea.hub:5000/a:1": failed to resolve reference "sea.hub:5000/a:1": failed to do request: Head "https://sea.hub:5000/v2/a/manifests/1": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
                "does not believe a registry's certificate",
            ),
            (
                r#"failed to resolve reference "r:5000/a:1": failed to do request: Head "https://r:5000/v2/a/manifests/1": http: server gave HTTP response to HTTPS client"#,
                "speaks plain HTTP",
            ),
            (
                r#"failed to resolve reference "r/a:1": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials: unexpected status: 401 Unauthorized"#,
                "wants a user",
            ),
            (
                r#"Get "https://10.0.0.1:6443/cacerts": proxyconnect tcp: dial tcp 10.9.9.9:3128: connect: connection refused"#,
                "asked of a proxy",
            ),
            (
                "iptables v1.8.9 (nf_tables): table `filter' is incompatible, use 'nft' tool.",
                "another iptables",
            ),
            (
                "dial tcp: lookup localhost on 10.0.0.1:53: no such host",
                "does not know localhost",
            ),
            (
                r#"{"level":"warn","msg":"prober found high clock drift","clock-drift":"3h"}"#,
                "clocks of masters",
            ),
            (
                r#"{"level":"warn","msg":"slow fdatasync","took":"2.1s"}"#,
                "too slow for etcd",
            ),
            (
                "rpc error: code = Unavailable desc = etcdserver: unhealthy cluster",
                "one that it knows is down",
            ),
        ] {
            let found = diagnose(line, &[]).unwrap_or_else(|| panic!("{line}"));
            assert!(found.cause.contains(says) && !found.remedy.is_empty(), "{found:?}");
        }
        assert_eq!(diagnose("level=info msg=\"all is well\"", &[]), None);
    }
}
