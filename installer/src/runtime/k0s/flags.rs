//! The flags of `k0s controller` and `k0s worker`: what the user adds by `--runtime-config`, and what sealrs sets.

use std::collections::BTreeMap;

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::suggest;

use super::{CONFIG, TOKEN};
use crate::member::Role;
use crate::plan::Context;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    List,
    Text,
}

#[derive(Debug, Clone, Copy)]
struct Flag {
    kind: Kind,
    /// Workers have it as well.
    worker: bool,
}

fn known() -> BTreeMap<&'static str, Flag> {
    let mut known = BTreeMap::new();
    for line in include_str!("flags.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (Some(name), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let kind = match kind {
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "list" => Kind::List,
            _ => Kind::Text,
        };
        let worker = words.next().is_some();
        known.insert(name, Flag { kind, worker });
    }
    known
}

/// Why a flag can't be given, if it can't.
fn refused(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "token-file" => "sealrs makes the cluster's tokens itself",
        "config" => "sealrs writes k0s.yaml: put settings into the image's etc/k0s/k0s.yaml, or into a Clusterfile",
        "data-dir" | "kubelet-root-dir" | "status-socket" => "sealrs relies on k0s's own places",
        "cri-socket" => "sealrs relies on k0s's own containerd, which alone imports the bundled images",
        "init-only" => "the controller has to go on",
        _ => return None,
    })
}

/// Flags by name, each with its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags(BTreeMap<&'static str, Vec<String>>);

impl Flags {
    /// `NAME=VALUE` each. A flag that is a list can be given several times, or with commas.
    ///
    /// # Errors
    /// [`ErrorKind::Input`], naming the flag.
    pub(super) fn from_user(given: &[String]) -> Result<Self> {
        let mut flags = Self::default();
        for setting in given {
            let Some((name, value)) = setting.split_once('=') else {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("`--runtime-config {}` is not NAME=VALUE", setting.escape_debug()),
                )
                .hint("write it like `--runtime-config disable-components=metrics-server`"));
            };
            flags.add(name.trim().trim_start_matches('-'), value)?;
        }
        Ok(flags)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<()> {
        let known = known();
        let Some((&name, flag)) = known.get_key_value(name) else {
            let nearest = suggest::nearest(name, known.keys().copied());
            return Err(
                Error::new(ErrorKind::Input, format!("k0s has no flag `{}`", name.escape_debug())).hint(
                    nearest.map_or_else(
                        || {
                            "settings are the flags of `k0s controller` without their hyphens; what stands in k0s.yaml \
                     belongs into the image's etc/k0s/k0s.yaml or into a Clusterfile"
                                .to_owned()
                        },
                        |nearest| format!("did you mean `{nearest}`?"),
                    ),
                ),
            );
        };
        if let Some(why) = refused(name) {
            return Err(
                Error::new(ErrorKind::Input, format!("k0s's flag `{name}` can't be given"))
                    .hint(format!("leave `{name}` out: {why}")),
            );
        }
        let bad = |wanted: &str| {
            Err(Error::new(
                ErrorKind::Input,
                format!("k0s's flag `{name}` takes {wanted}, not `{}`", value.escape_debug()),
            ))
        };
        match flag.kind {
            Kind::Bool if !matches!(value, "true" | "false") => return bad("true or false"),
            Kind::Int if value.parse::<i64>().is_err() => return bad("a number"),
            _ if value.contains(char::is_control) => return bad("one line"),
            _ => {}
        }
        let values = self.0.entry(name).or_default();
        if flag.kind == Kind::List {
            values.extend(value.split(',').map(str::to_owned));
        } else {
            *values = vec![value.to_owned()];
        }
        Ok(())
    }

    /// Whether it is given and true.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| values == &["true"])
    }

    /// The arguments with which a host's k0s is started.
    pub(super) fn arguments(&self, context: &Context<'_>, roles: Roles, has_token: bool) -> Vec<String> {
        let known = known();
        let mut all = self.0.clone();
        match context.role {
            Role::Node => all.retain(|name, _| known.get(name).is_some_and(|flag| flag.worker)),
            Role::Master => {
                all.insert("config", vec![CONFIG.to_owned()]);
                // It asks a server on the internet for new versions.
                let disabled = all.entry("disable-components").or_default();
                if !disabled.iter().any(|name| name == "update-prober") {
                    disabled.push("update-prober".to_owned());
                }
                all.remove("enable-worker");
                all.remove("no-taints");
                if roles.workloads && !self.is_on("single") {
                    all.insert("enable-worker", vec!["true".to_owned()]);
                    if roles.untainted {
                        all.insert("no-taints", vec!["true".to_owned()]);
                    }
                }
            }
        }
        if has_token {
            all.insert("token-file", vec![TOKEN.to_owned()]);
        }
        all.iter()
            .map(|(name, values)| format!("--{name}={}", values.join(",")))
            .collect()
    }
}

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roles {
    /// It runs pods.
    pub(super) workloads: bool,
    /// Pods may run there that tolerate nothing.
    pub(super) untainted: bool,
}

impl Roles {
    /// Controllers run pods when the user says so, or when nobody else could.
    pub(super) fn of(context: &Context<'_>, flags: &Flags) -> Self {
        let alone = context.peers.iter().all(|peer| peer.role == Role::Master);
        let said = flags.0.contains_key("enable-worker");
        let workloads = if said { flags.is_on("enable-worker") } else { alone };
        let untainted = flags.0.contains_key("no-taints");
        Self {
            workloads: context.role == Role::Node || workloads || flags.is_on("single"),
            untainted: if untainted { flags.is_on("no-taints") } else { alone },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(given: &[&str]) -> Result<Flags> {
        let given: Vec<String> = given.iter().map(|&setting| setting.to_owned()).collect();
        Flags::from_user(&given)
    }

    #[test]
    fn flags_are_checked() {
        let flags = user(&[
            "disable-components=coredns,helm",
            "--disable-components=metrics-server",
            "single=true",
            "kubelet-extra-args=--a=1,2 --b",
        ])
        .unwrap();
        assert_eq!(flags.0["disable-components"], ["coredns", "helm", "metrics-server"]);
        assert_eq!(flags.0["kubelet-extra-args"], ["--a=1,2 --b"]);
        assert!(flags.is_on("single"));
        for (bad, says) in [
            ("single", "is not NAME=VALUE"),
            ("single=yes", "takes true or false"),
            ("k0s-cloud-provider-port=x", "takes a number"),
            ("profile=a\nb", "takes one line"),
            ("enable-workr=true", "did you mean `enable-worker`"),
            ("spec.api.port=1", "etc/k0s/k0s.yaml"),
            ("token-file=/x", "makes the cluster's tokens"),
            ("data-dir=/x", "own places"),
            ("cri-socket=x", "own containerd"),
        ] {
            let error = format!("{:?}", user(&[bad]).unwrap_err());
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
