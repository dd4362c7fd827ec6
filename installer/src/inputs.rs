//! What was asked for, as the journal keeps it: two runs that were asked for the same are the same run. Values that may be
//! secrets are there as digests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use sealrs_image::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::member::{Member, Role};
use crate::options::Options;
use crate::plan::FORMAT;

/// What a Clusterfile calls hooks.
const HOOKS: &str = "Plugins";

/// What a run was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inputs {
    /// The format of plans.
    format: u32,
    /// The image's manifest.
    image: Digest,
    registry_domain: String,
    registry_port: u16,
    host_ip: Option<IpAddr>,
    // Journals of earlier versions have neither: their clusters can still be deleted.
    #[serde(default)]
    masters: Vec<IpAddr>,
    #[serde(default)]
    nodes: Vec<IpAddr>,
    /// Variables by name.
    env: BTreeMap<String, Digest>,
    cmds: Option<Vec<String>>,
    apps: Option<Vec<String>>,
    /// Settings with their keys, in the order in which they were given.
    runtime_config: Vec<(String, Digest)>,
    /// Documents by their kinds.
    #[serde(default)]
    runtime_documents: Vec<(String, Digest)>,
    /// What is special about hosts.
    #[serde(default)]
    hosts: BTreeMap<String, Digest>,
    /// What else a Clusterfile says, by what it is.
    #[serde(default)]
    others: BTreeMap<String, Digest>,
}

impl Inputs {
    /// What is asked for by these options. Where it is installed is not part of it.
    #[must_use]
    pub fn new(image: Digest, options: &Options) -> Self {
        let secret = |value: &str| Digest::of(value.as_bytes());
        Self {
            format: FORMAT,
            image,
            registry_domain: options.registry_domain.clone(),
            registry_port: options.registry_port,
            host_ip: options.host_ip,
            masters: addresses(options, Role::Master),
            nodes: addresses(options, Role::Node),
            env: options
                .env
                .iter()
                .map(|(name, value)| (name.clone(), secret(value)))
                .collect(),
            cmds: options.cmds.clone(),
            apps: options.apps.clone(),
            runtime_config: options
                .runtime_config
                .iter()
                .map(|setting| {
                    let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
                    (key.to_owned(), secret(value))
                })
                .collect(),
            runtime_documents: options
                .runtime_documents
                .iter()
                .map(|document| {
                    let kind = document.get("kind").and_then(|kind| kind.as_str()).unwrap_or("?");
                    (kind.to_owned(), secret(&document.to_string()))
                })
                .collect(),
            hosts: special(&options.members),
            others: others(options),
        }
    }

    /// The image's manifest.
    #[must_use]
    pub fn image(&self) -> Digest {
        self.image
    }

    /// The same without what may change while the cluster runs: its hosts, and hooks.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.others.remove(HOOKS);
        Self {
            masters: Vec::new(),
            nodes: Vec::new(),
            hosts: BTreeMap::new(),
            ..self
        }
    }

    /// The options that are other ones than `before`, in words: old and new, or that it is another value.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let shown = [
            difference("--registry-domain", &before.registry_domain, &self.registry_domain),
            difference("--registry-port", &before.registry_port, &self.registry_port),
            difference("--host-ip", &given(before.host_ip), &given(self.host_ip)),
            difference("--masters", &hosts(&before.masters), &hosts(&self.masters)),
            difference("--nodes", &hosts(&before.nodes), &hosts(&self.nodes)),
            difference("--cmds", &list(before.cmds.as_deref()), &list(self.cmds.as_deref())),
            difference("--apps", &list(before.apps.as_deref()), &list(self.apps.as_deref())),
        ];
        let mut found: Vec<String> = shown.into_iter().flatten().collect();
        found.extend(hidden("-e", &before.env, &self.env));
        let settings = by_key(&before.runtime_config);
        found.extend(hidden("--runtime-config", &settings, &by_key(&self.runtime_config)));
        found.extend(hidden(
            "the document",
            &by_key(&before.runtime_documents),
            &by_key(&self.runtime_documents),
        ));
        found.extend(hidden("the host", &before.hosts, &self.hosts));
        found.extend(hidden("what the Clusterfile says of", &before.others, &self.others));
        if found.is_empty() && before.runtime_config != self.runtime_config {
            found.push("--runtime-config: another order".to_owned());
        }
        if before.format != self.format {
            found.push("another version of sealrs, which plans otherwise".to_owned());
        }
        found
    }
}

/// Digests of what is special about each host that has such.
fn special(members: &[Member]) -> BTreeMap<String, Digest> {
    let plain = |member: &Member| {
        let Member {
            roles,
            env,
            labels,
            taints,
            ..
        } = member;
        roles.is_empty() && env.is_empty() && labels.is_empty() && taints.is_empty()
    };
    let special = members.iter().filter(|member| !plain(member));
    let digest = |member: &Member| digest(&(&member.roles, &member.env, &member.labels, &member.taints));
    special
        .map(|member| (member.address.to_string(), digest(member)))
        .collect()
}

/// Digests of the options that have no flag of their own, where something was given.
fn others(options: &Options) -> BTreeMap<String, Digest> {
    let mut others = BTreeMap::new();
    if let Some(kind) = &options.container_runtime {
        others.insert("containerRuntime".to_owned(), digest(kind));
    }
    if !options.host_aliases.is_empty() {
        others.insert("hostAliases".to_owned(), digest(&options.host_aliases));
    }
    if !options.configurations.is_empty() {
        others.insert("Configs".to_owned(), digest(&options.configurations));
    }
    if !options.app_settings.is_empty() {
        others.insert("apps".to_owned(), digest(&options.app_settings));
    }
    if !options.hooks.is_empty() {
        others.insert(HOOKS.to_owned(), digest(&options.hooks));
    }
    others
}

fn digest(value: &impl Serialize) -> Digest {
    Digest::of(&serde_json::to_vec(value).unwrap_or_default())
}

fn addresses(options: &Options, role: Role) -> Vec<IpAddr> {
    let of_role = options.members.iter().filter(|member| member.role == role);
    of_role.map(|member| member.address).collect()
}

fn hosts(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    given((!addresses.is_empty()).then(|| addresses.join(",")))
}

fn difference<T: Display + PartialEq>(flag: &str, before: &T, now: &T) -> Option<String> {
    (before != now).then(|| format!("{flag} was {before} and is now {now}"))
}

fn given(value: Option<impl Display>) -> String {
    value.map_or_else(|| "not given".to_owned(), |value| value.to_string())
}

fn list(values: Option<&[String]>) -> String {
    let quoted = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        quoted.join(", ")
    };
    match values {
        Some([]) => "none".to_owned(),
        values => given(values.map(quoted)),
    }
}

/// The digests of all values of each key.
fn by_key(settings: &[(String, Digest)]) -> BTreeMap<String, Vec<Digest>> {
    let mut keys: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for (key, value) in settings {
        keys.entry(key.clone()).or_default().push(*value);
    }
    keys
}

/// As [`difference`], of values that are not shown.
fn hidden<T: PartialEq>(flag: &str, before: &BTreeMap<String, T>, now: &BTreeMap<String, T>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let word = |name: &String| match (before.get(name), now.get(name)) {
        (Some(before), Some(now)) if before == now => None,
        (Some(_), Some(_)) => Some("has another value now"),
        (Some(_), None) => Some("is not given any more"),
        (None, _) => Some("was not given before"),
    };
    let differ = names.into_iter().filter_map(|name| Some((name, word(name)?)));
    differ.map(|(name, word)| format!("{flag} {name} {word}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn options(env: &[(&str, &str)], runtime_config: &[&str]) -> Options {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Options {
            env: env.collect(),
            runtime_config: runtime_config.iter().map(|&setting| setting.to_owned()).collect(),
            ..Options::default()
        }
    }

    #[test]
    fn depend_on_what_is_installed_and_not_on_where_it_lies() {
        let image = Digest::of(b"image");
        let inputs = Inputs::new(image, &Options::default());
        let moved = Options {
            root: PathBuf::from("/elsewhere"),
            ..Options::default()
        };
        assert_eq!(Inputs::new(image, &moved), inputs);
        assert_ne!(Inputs::new(Digest::of(b"other"), &moved), inputs);
        let secret = options(&[("PASSWORD", "hunter2")], &["token=hunter2"]);
        let secret = Inputs::new(image, &secret);
        assert_ne!(secret, inputs);
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
    }

    #[test]
    fn say_what_differs_and_no_secret() {
        let image = Digest::of(b"image");
        let before = options(
            &[("GONE", "s3cret"), ("SAME", "s3cret"), ("WORD", "s3cret")],
            &["a=s3cret", "b=1"],
        );
        let mut now = options(
            &[("NEW", "hunter2"), ("SAME", "s3cret"), ("WORD", "hunter2")],
            &["a=hunter2", "b=1"],
        );
        now.registry_port = 5001;
        now.host_ip = Some("10.0.0.1".parse().unwrap());
        now.cmds = Some(vec!["one".into(), "two".into()]);
        now.apps = Some(Vec::new());
        let differences =
            |now: &Options, before: &Options| Inputs::new(image, now).differences(&Inputs::new(image, before));
        assert_eq!(
            differences(&now, &before),
            [
                "--registry-port was 5000 and is now 5001",
                "--host-ip was not given and is now 10.0.0.1",
                "--cmds was not given and is now `one`, `two`",
                "--apps was not given and is now none",
                "-e GONE is not given any more",
                "-e NEW was not given before",
                "-e WORD has another value now",
                "--runtime-config a has another value now",
            ]
        );
        assert_eq!(differences(&now, &now), Vec::<String>::new());
        let order = (options(&[], &["a=1", "b=2"]), options(&[], &["b=2", "a=1"]));
        assert_eq!(differences(&order.0, &order.1), ["--runtime-config: another order"]);
    }
}
