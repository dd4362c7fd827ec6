//! `config.yaml` of a server or an agent: what the image brings, what a Clusterfile's `K3sConfig` and `--runtime-config` add, and
//! what sealrs sets, merged by structure and checked against the settings that k3s has. k3s itself skips what it does not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sealrs_image::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use super::super::marks;
use super::{AGENT_TOKEN, IMAGE_CONFIG, TOKEN};
use crate::member::Role;
use crate::options::Options;
use crate::plan::Context;

/// The kind of the document that a Clusterfile has it in.
pub(crate) const KIND: &str = "K3sConfig";

/// The command of a role, and its settings with their types.
fn command(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Master => ("server", include_str!("server-flags.txt")),
        Role::Node => ("agent", include_str!("agent-flags.txt")),
    }
}

pub(super) type Settings = Map<String, Value>;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    List,
    Text,
}

/// Settings by each of their names: the setting's own name and its type.
fn flags(role: Role) -> BTreeMap<&'static str, (&'static str, Kind)> {
    let mut flags = BTreeMap::new();
    for line in command(role).1.lines().filter(|line| !line.starts_with('#')) {
        let Some((names, kind)) = line.split_once(' ') else {
            continue;
        };
        let kind = match kind {
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "list" => Kind::List,
            _ => Kind::Text,
        };
        let main = names.split(',').next().unwrap_or(names);
        flags.extend(names.split(',').map(|name| (name, (main, kind))));
    }
    flags
}

/// Why a setting can't be given, if it can't.
fn refused(setting: &str) -> Option<&'static str> {
    Some(match setting {
        "token" | "token-file" | "agent-token" | "agent-token-file" => "sealrs makes the cluster's token itself",
        "server" => "sealrs knows from the masters which one the others join",
        "cluster-reset" | "cluster-reset-restore-path" => "it is for a cluster that is there",
        "config"
        | "data-dir"
        | "private-registry"
        | "write-kubeconfig"
        | "write-kubeconfig-mode"
        | "write-kubeconfig-group" => "sealrs relies on k3s's own places and modes",
        "rootless" | "disable-agent" => "this host has to run pods as k3s's one node",
        _ => return None,
    })
}

/// Settings that are secret. They come from a Clusterfile alone, and are no part of the plan: their places are.
const SECRET: [&str; 4] = [DATASTORE, "etcd-s3-access-key", "etcd-s3-secret-key", "vpn-auth"];

/// The setting by which k3s keeps the cluster's data elsewhere.
const DATASTORE: &str = "datastore-endpoint";

/// Where a setting is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Image,
    CommandLine,
    Clusterfile,
}

/// What stands in the settings of a server.
///
/// # Errors
/// [`ErrorKind::Input`] when the image's or the user's settings are wrong.
pub(super) fn server(context: &Context<'_>, notes: &mut Vec<String>) -> Result<Settings> {
    let mut settings = given(context, notes)?;
    let many = context.masters().count() > 1;
    let elsewhere = settings.contains_key(DATASTORE);
    if elsewhere && settings.get("cluster-init") == Some(&true.into()) {
        return Err(Error::new(
            ErrorKind::Input,
            format!("k3s's settings `cluster-init` and `{DATASTORE}` are each a place for the cluster's data"),
        )
        .hint("leave one of them out"));
    }
    if !elsewhere && many && settings.get("cluster-init") == Some(&false.into()) {
        return Err(Error::new(
            ErrorKind::Input,
            "k3s's setting `cluster-init` is false, and the cluster has several masters, which keep its data in etcd",
        )
        .hint("leave `cluster-init` out of image and Clusterfile: sealrs sets it where it belongs"));
    }
    settings.insert("token-file".to_owned(), TOKEN.into());
    settings.insert("agent-token-file".to_owned(), AGENT_TOKEN.into());
    if elsewhere {
        // All servers are alike: they meet in the datastore.
    } else if !context.is_founder() {
        settings.insert("server".to_owned(), join_url(context).into());
    } else if many {
        settings.insert("cluster-init".to_owned(), true.into());
    }
    let names = settings.entry("tls-san").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(names) = names {
        for name in context
            .masters()
            .flat_map(|master| [master.address.to_string(), master.hostname.clone()])
        {
            if !names.iter().any(|known| known.as_str() == Some(&name)) {
                names.push(name.into());
            }
        }
    }
    Ok(settings)
}

/// What stands in the settings of an agent: of what is given, what agents know, and how it joins.
///
/// # Errors
/// As [`server`].
pub(super) fn agent(context: &Context<'_>, notes: &mut Vec<String>) -> Result<Settings> {
    let mut settings = given(context, notes)?;
    let known = flags(Role::Node);
    settings.retain(|name, _| known.contains_key(name.as_str()));
    settings.insert("token-file".to_owned(), TOKEN.into());
    settings.insert("server".to_owned(), join_url(context).into());
    Ok(settings)
}

/// The server that others join. Afterwards they know all of them.
fn join_url(context: &Context<'_>) -> String {
    let founder = SocketAddr::new(context.founder(), 6443);
    format!("https://{founder}")
}

/// What image, user and host say, for servers and agents.
fn given(context: &Context<'_>, notes: &mut Vec<String>) -> Result<Settings> {
    let mut settings = match context.rootfs.texts.get(IMAGE_CONFIG) {
        Some(text) => from_image(text, IMAGE_CONFIG, notes)?,
        None => Settings::new(),
    };
    let documents = &context.options.runtime_documents;
    lay_over(&mut settings, of_documents(documents, context.role)?);
    settings.extend(from_user(&context.options.runtime_config)?);
    let of_one_host = OF_ONE_HOST.iter().find(|name| settings.contains_key(**name));
    if let Some(name) = of_one_host.filter(|_| context.peers.len() > 1) {
        return Err(Error::new(
            ErrorKind::Input,
            format!("k3s's setting `{name}` can't be given for several hosts: it would be the same on all of them"),
        )
        .hint(format!(
            "leave `{name}` out: nodes are called as their hosts are, and have the addresses that they are named by"
        )));
    }
    // Without a default route k3s can't find its address, nor flannel its interface.
    let told = context.options.host_ip.is_some() || context.peers.len() > 1;
    let lost = !context.facts.default_route;
    if (told || lost) && !settings.contains_key("node-ip") {
        settings.insert("node-ip".to_owned(), vec![context.host.to_string()].into());
    }
    let interface = context.facts.interface_of(context.host);
    if let Some(interface) = interface.filter(|_| lost && !settings.contains_key("flannel-iface")) {
        settings.insert("flannel-iface".to_owned(), interface.into());
    }
    Ok(settings)
}

/// What is another one on each host.
const OF_ONE_HOST: [&str; 5] = [
    "node-name",
    "node-ip",
    "node-external-ip",
    "advertise-address",
    "bind-address",
];

/// A setting, and whether its values come besides those that are there.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    value: Value,
    adds: bool,
}

fn lay_over(settings: &mut Settings, more: BTreeMap<&'static str, Setting>) {
    for (name, Setting { value, adds }) in more {
        match (settings.get_mut(name), value) {
            (Some(Value::Array(known)), Value::Array(more)) if adds => known.extend(more),
            (_, value) => drop(settings.insert(name.to_owned(), value)),
        }
    }
}

/// What the documents `K3sConfig` of a Clusterfile say for a role. Each setting is said once.
///
/// # Errors
/// [`ErrorKind::Input`], naming the place, when a setting is wrong, or said in two ways.
fn of_documents(documents: &[Value], role: Role) -> Result<BTreeMap<&'static str, Setting>> {
    let section = section(role);
    let mut found: BTreeMap<&'static str, (Setting, String)> = BTreeMap::new();
    let mut marks = BTreeMap::new();
    for (number, document) in ours(documents) {
        let given = document.get("spec").and_then(|spec| spec.get(section));
        for (name, value) in given.and_then(Value::as_object).into_iter().flatten() {
            let place = format!("`spec.{section}.{name}` of {KIND} of the Clusterfile");
            let wrong = |error: Error| {
                let hint = error.remedy().unwrap_or("correct it").to_owned();
                Error::new(ErrorKind::Input, format!("{place} is wrong"))
                    .because(error)
                    .hint(hint)
            };
            check(role, name, value).map_err(wrong)?;
            let plain = name.trim_end_matches('+');
            let Some((main, kind)) = check_name(role, plain, Source::Clusterfile).map_err(wrong)? else {
                continue;
            };
            if SECRET.contains(&main) {
                let mark = marks::mark_given(number, &format!("/spec/{section}/{name}"), value);
                let mark = mark.ok_or_else(|| {
                    Error::new(ErrorKind::Input, format!("{place} can't be written into config.yaml"))
                        .hint("give a text without quotation marks and backslashes")
                })?;
                marks.insert(main, mark);
            }
            let setting = Setting {
                value: check_value(main, kind, value).map_err(wrong)?,
                adds: plain != name,
            };
            match found.get(main) {
                Some((known, other)) if *known != setting => {
                    return Err(Error::new(
                        ErrorKind::Input,
                        format!("{place} and {other} say two things of `{main}`"),
                    )
                    .hint("leave one of them out"));
                }
                _ => drop(found.insert(main, (setting, place))),
            }
        }
    }
    let marked = |(name, (mut setting, _)): (&'static str, (Setting, String))| {
        if let Some(mark) = marks.remove(name) {
            setting.value = mark;
        }
        (name, setting)
    };
    Ok(found.into_iter().map(marked).collect())
}

/// The part of a document that is for a role.
fn section(role: Role) -> &'static str {
    match role {
        Role::Master => "server",
        Role::Node => "agent",
    }
}

/// The documents that are for k3s, and their numbers.
fn ours(documents: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    let is_ours = |document: &Value| document.get("kind").and_then(Value::as_str) == Some(KIND);
    documents
        .iter()
        .enumerate()
        .filter(move |(_, document)| is_ours(document))
}

/// Whether the cluster's data is not kept by its servers.
pub(super) fn is_elsewhere(options: &Options) -> bool {
    let place = format!("/spec/{}/{DATASTORE}", section(Role::Master));
    ours(&options.runtime_documents).any(|(_, document)| document.pointer(&place).is_some())
}

/// Whether all that the documents say is right.
///
/// # Errors
/// [`ErrorKind::Input`], naming the place, when something is not.
pub(super) fn check_documents(documents: &[Value]) -> Result<()> {
    of_documents(documents, Role::Master)?;
    of_documents(documents, Role::Node).map(drop)
}

/// The node's name that the user gives, which is for one host.
pub(super) fn given_name(options: &Options) -> Option<String> {
    let of_documents = of_documents(&options.runtime_documents, Role::Master).ok();
    let of_documents = of_documents.and_then(|mut settings| settings.remove("node-name"));
    let of_flags = from_user(&options.runtime_config).ok();
    let of_flags = of_flags.and_then(|mut settings| settings.remove("node-name"));
    let name = of_flags.or(of_documents.map(|setting| setting.value))?;
    name.as_str().map(str::to_owned)
}

/// The image's `config.yaml`. What no list of settings has may be new in k3s; what looks like a typing error is not.
fn from_image(text: &str, path: &str, notes: &mut Vec<String>) -> Result<Settings> {
    let place = || format!("`{path}` of the image");
    let broken = |why: String| {
        Error::new(ErrorKind::Input, format!("{} is not a configuration of k3s", place()))
            .because(Error::new(ErrorKind::Input, why))
            .hint("correct it and build the image again")
    };
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Settings::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| broken(error.to_string()))?;
    let Value::Object(read) = value else {
        return Err(broken("it is not a list of `setting: value`".to_owned()));
    };
    let mut settings = Settings::new();
    for (name, value) in read {
        // `name+` adds to what other files set; there are none.
        let name = name.trim_end_matches('+');
        match check_name(Role::Master, name, Source::Image)? {
            Some((main, kind)) => {
                let value = check_value(main, kind, &value)
                    .map_err(|error| error.hint(format!("correct {} and build it again", place())))?;
                settings.insert(main.to_owned(), value);
            }
            None => {
                notes.push(format!(
                    "{} has the setting `{name}`, which is not known here; k3s may skip it",
                    place()
                ));
                settings.insert(name.to_owned(), value);
            }
        }
    }
    Ok(settings)
}

/// `NAME=VALUE` each. A setting that is a list can be given several times, or with commas.
///
/// # Errors
/// [`ErrorKind::Input`], naming the setting.
pub(super) fn from_user(given: &[String]) -> Result<Settings> {
    let mut settings = Settings::new();
    for setting in given {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`--runtime-config {}` is not NAME=VALUE", setting.escape_debug()),
            )
            .hint("write it like `--runtime-config disable=traefik`"));
        };
        let name = name.trim().trim_start_matches('-');
        let Some((main, kind)) = check_name(Role::Master, name, Source::CommandLine)? else {
            return Err(Error::new(
                ErrorKind::Input,
                format!("k3s has no setting `{}`", name.escape_debug()),
            )
            .hint("settings are the flags of `k3s server` without their hyphens"));
        };
        let value = check_value(main, kind, &Value::from(value))?;
        match (settings.get_mut(main), value) {
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (_, value) => drop(settings.insert(main.to_owned(), value)),
        }
    }
    Ok(settings)
}

/// Whether k3s takes this setting in this role.
///
/// # Errors
/// [`ErrorKind::Input`] when it has no such setting, the value is not of its type, or sealrs sets it.
pub(crate) fn check(role: Role, name: &str, value: &Value) -> Result<()> {
    let name = name.trim_end_matches('+');
    let command = command(role).0;
    let server_only =
        |name| role == Role::Node && !flags(role).contains_key(name) && flags(Role::Master).contains_key(name);
    if server_only(name) {
        let what = format!("`k3s {command}` has no setting `{name}`: it would not start");
        return Err(Error::new(ErrorKind::Input, what).hint("it is a setting of servers: write it below `server`"));
    }
    let Some((main, kind)) = check_name(role, name, Source::Clusterfile)? else {
        let what = format!("k3s has no setting `{}`", name.escape_debug());
        let hint = format!("settings are the flags of `k3s {command}` without their hyphens");
        return Err(Error::new(ErrorKind::Input, what).hint(hint));
    };
    check_value(main, kind, value).map(drop)
}

/// The settings of a role by their names, and what each takes: `bool`, `int`, `list` or `text`. Those that sealrs sets itself
/// are not among them.
pub(crate) fn settings(role: Role) -> BTreeMap<&'static str, &'static str> {
    let word = |kind| match kind {
        Kind::Bool => "bool",
        Kind::Int => "int",
        Kind::List => "list",
        Kind::Text => "text",
    };
    let flags = flags(role).into_values().filter(|(main, _)| refused(main).is_none());
    flags.map(|(main, kind)| (main, word(kind))).collect()
}

/// The setting that a name stands for; `None` when it is not known and not like any that is.
fn check_name(role: Role, name: &str, source: Source) -> Result<Option<(&'static str, Kind)>> {
    let flags = flags(role);
    if let Some(&(main, kind)) = flags.get(name) {
        let refuse = |why: &str, hint: String| {
            let what = format!("k3s's setting `{main}` can't be given");
            Err(Error::new(ErrorKind::Input, what)
                .because(Error::new(ErrorKind::Input, why))
                .hint(hint))
        };
        if let Some(why) = refused(main) {
            return refuse(why, format!("leave `{main}` out: {why}"));
        }
        if SECRET.contains(&main) && source != Source::Clusterfile {
            let why = "it holds a secret, which must not be in images and command lines";
            return refuse(
                why,
                format!("give it in a Clusterfile: `spec.server.{main}` of a document of kind {KIND}"),
            );
        }
        return Ok(Some((main, kind)));
    }
    let nearest = flags
        .keys()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, known)| *distance <= 2 && known.len() > 2)
        .min();
    match nearest {
        None => Ok(None),
        Some((_, known)) => Err(Error::new(
            ErrorKind::Input,
            format!("k3s has no setting `{}`", name.escape_debug()),
        )
        .hint(format!("did you mean `{known}`?"))),
    }
}

fn check_value(name: &str, kind: Kind, value: &Value) -> Result<Value> {
    let bad = |wanted: &str| {
        Error::new(
            ErrorKind::Input,
            format!("k3s's setting `{name}` takes {wanted}, not `{value}`"),
        )
    };
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match kind {
        Kind::Bool => match scalar(value).as_deref() {
            Some("true") => Ok(true.into()),
            Some("false") => Ok(false.into()),
            _ => Err(bad("true or false")),
        },
        Kind::Int => scalar(value)
            .and_then(|text| text.parse::<i64>().ok())
            .map(Value::from)
            .ok_or_else(|| bad("a number")),
        Kind::Text => scalar(value).map(Value::from).ok_or_else(|| bad("one value")),
        Kind::List => {
            let items: Option<Vec<String>> = match value {
                Value::Array(items) => items.iter().map(scalar).collect(),
                // The values of arguments for other programs hold commas themselves.
                other if name.ends_with("-arg") => scalar(other).map(|item| vec![item]),
                other => scalar(other).map(|items| items.split(',').map(str::to_owned).collect()),
            };
            items.map(Value::from).ok_or_else(|| bad("a list"))
        }
    }
}

/// How many letters have to be changed, added or left out to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut next = vec![line + 1];
        let pairs = row.iter().zip(row.iter().skip(1)).zip(&other);
        for ((&diagonal, &above), &column) in pairs {
            let left = next.last().copied().unwrap_or_default();
            let changed = diagonal + usize::from(letter != column);
            next.push(changed.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(given: &[&str]) -> Result<Value> {
        let given: Vec<String> = given.iter().map(|&setting| setting.to_owned()).collect();
        from_user(&given).map(Value::Object)
    }

    #[test]
    fn knows_all_kinds_of_settings() {
        let flags = flags(Role::Master);
        assert!(flags.len() > 115, "{}", flags.len());
        assert_eq!(flags["disable"], ("disable", Kind::List));
        assert_eq!(flags["d"], ("data-dir", Kind::Text));
        assert_eq!(flags["debug"], ("debug", Kind::Bool));
        assert_eq!(flags["https-listen-port"], ("https-listen-port", Kind::Int));
    }

    #[test]
    fn agents_have_settings_of_their_own() {
        let server = flags(Role::Master);
        for (name, setting) in flags(Role::Node) {
            if name != "disable-apiserver-lb" {
                assert_eq!(server.get(name), Some(&setting), "{name}");
            }
        }
        let told = |role, name, value: Value| format!("{:?}", check(role, name, &value).unwrap_err());
        assert!(check(Role::Master, "tls-san", &json!(["a"])).is_ok());
        assert!(check(Role::Node, "kubelet-arg+", &json!(["a=b"])).is_ok());
        assert!(check(Role::Node, "disable-apiserver-lb", &json!(true)).is_ok());
        assert!(told(Role::Node, "tls-san", json!([])).contains("below `server`"));
        assert!(told(Role::Node, "kubelet-args", json!([])).contains("did you mean `kubelet-arg`"));
        assert!(told(Role::Master, "disable-apiserver-lb", json!(true)).contains("no setting"));
        assert!(told(Role::Node, "node-label", json!({"a": 1})).contains("a list"));
        assert!(told(Role::Node, "token", json!("x")).contains("token itself"));
    }

    #[test]
    fn takes_what_the_user_adds() {
        let given = [
            "disable=traefik,servicelb",
            "disable=metrics-server",
            "kubelet-arg=eviction-hard=a,b",
            "debug=true",
            "https-listen-port=7443",
            "i=10.0.0.9",
        ];
        assert_eq!(
            user(&given).unwrap(),
            json!({
                "disable": ["traefik", "servicelb", "metrics-server"],
                "kubelet-arg": ["eviction-hard=a,b"],
                "debug": true,
                "https-listen-port": 7443,
                "node-ip": ["10.0.0.9"],
            })
        );
        for (bad, says) in [
            ("disable", "NAME=VALUE"),
            ("disabel=x", "did you mean `disable`"),
            ("frobnicate-all=x", "no setting `frobnicate-all`"),
            ("debug=maybe", "true or false"),
            ("lb-server-port=x", "a number"),
            ("token=x", "makes the cluster's token itself"),
            ("t=x", "makes the cluster's token itself"),
            ("datastore-endpoint=postgres://u:p@h/d", "holds a secret"),
        ] {
            let error = user(&[bad]).unwrap_err();
            assert!(format!("{error:?}").contains(says), "{bad}: {error:?}");
            assert!(!format!("{error:?}").contains("u:p"), "{error:?}");
        }
    }

    #[test]
    fn documents_come_over_the_image_and_contradict_nothing() {
        let read = |documents: &[Value], role| {
            let mut settings = Settings::new();
            settings.insert("disable".to_owned(), json!(["a"]));
            settings.insert("tls-san".to_owned(), json!(["a"]));
            of_documents(documents, role).map(|more| {
                lay_over(&mut settings, more);
                Value::Object(settings)
            })
        };
        let document = |spec: Value| json!({"apiVersion": "sealer.io/v2", "kind": KIND, "spec": spec});
        let one = document(json!({"server": {"disable+": "b", "tls-san": ["b"], "debug": "true"}, "agent": {"v": 1}}));
        let other = document(json!({"server": {"debug": true}, "agent": null}));
        let foreign = json!({"kind": "ClusterConfig", "spec": {"server": {"x": 1}}});
        assert_eq!(
            read(&[one.clone(), foreign, other], Role::Master).unwrap(),
            json!({"debug": true, "disable": ["a", "b"], "tls-san": ["b"]})
        );
        assert_eq!(
            read(std::slice::from_ref(&one), Role::Node).unwrap(),
            json!({"disable": ["a"], "tls-san": ["a"], "v": 1})
        );
        for (spec, says) in [
            (
                json!({"server": {"debug": false}}),
                "`spec.server.debug` of K3sConfig of the Clusterfile and",
            ),
            (json!({"server": {"tls-san": ["x"]}}), "say two things of `tls-san`"),
            (json!({"server": {"disabel": "x"}}), "did you mean `disable`"),
            (json!({"server": {"token": "x"}}), "makes the cluster's token itself"),
            (
                json!({"agent": {"tls-san": "x"}}),
                "`spec.agent.tls-san` of K3sConfig of the Clusterfile is wrong",
            ),
        ] {
            let error = check_documents(&[one.clone(), document(spec)]).unwrap_err();
            assert!(format!("{error:?}").contains(says), "{error:?}");
        }
    }

    #[test]
    fn reads_the_images_settings() {
        let mut notes = Vec::new();
        let mut read = |text: &str| from_image(text, "etc/k3s/config.yaml", &mut notes).map(Value::Object);
        assert_eq!(read("# nothing\n\n").unwrap(), json!({}));
        assert_eq!(
            read("disable: traefik\nnode-label: [a=b, c=1]\ncluster-init: true\nbrand-new-thing: 1\n").unwrap(),
            json!({
                "disable": ["traefik"],
                "node-label": ["a=b", "c=1"],
                "cluster-init": true,
                "brand-new-thing": 1,
            })
        );
        for (bad, says) in [
            ("disable: [", "not a configuration"),
            ("- a\n", "not a configuration"),
            ("disabled: x\n", "did you mean `disable`"),
            ("debug: [a]\n", "true or false"),
            ("server: https://x\n", "which one the others join"),
            ("disable: a\ndisable: b\n", "not a configuration"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(format!("{error:?}").contains(says), "{bad}: {error:?}");
        }
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("`brand-new-thing`"));
    }

    #[test]
    fn counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("disabel", "disable"), 2);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
