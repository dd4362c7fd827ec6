//! What types can't say: rules between the fields of a Clusterfile.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sealrs_image::suggest::nearest;
use serde_saphyr::{Location, Spanned};

use super::addresses::Addresses;
use super::application::ApplicationSpec;
use super::cluster::{ClusterSpec, Host, Ssh};
use super::config::{ConfigSpec, PluginSpec};
use super::label;
use super::mistakes::{Mistakes, suggestion};
use super::taint::Taint;

const PHASES: [&str; 13] = [
    "pre-install",
    "post-install",
    "pre-init-host",
    "post-init-host",
    "pre-scaleup",
    "post-scaleup",
    "pre-clean-host",
    "post-clean-host",
    "pre-uninstall",
    "post-uninstall",
    "upgrade-host",
    "upgrade",
    "rollback",
];
/// Phases that run on hosts of a scope.
const HOST_PHASES: [&str; 5] = [
    "pre-init-host",
    "post-init-host",
    "pre-clean-host",
    "post-clean-host",
    "upgrade-host",
];
const PROCESSORS: [&str; 4] = ["value", "toJson", "toBase64", "toSecret"];
const CONTAINER_RUNTIMES: [&str; 2] = ["containerd", "docker"];

/// A cluster, whose document is at `place`.
pub(super) fn cluster(spec: &ClusterSpec, place: Location, mistakes: &mut Mistakes<'_>) {
    variables(&spec.env, mistakes);
    ssh(&spec.ssh, mistakes);
    let mut seen: BTreeMap<IpAddr, Location> = BTreeMap::new();
    for host in &spec.hosts {
        addresses(host, place, &mut seen, mistakes);
        roles(host, place, mistakes);
        variables(&host.env, mistakes);
        ssh(&host.ssh, mistakes);
        for (key, value) in &host.labels {
            let told = label::key(key).and_then(|()| label::value(&value.value));
            report(value, told, "Kubernetes takes no other labels", mistakes);
        }
        for taint in &host.taints {
            let told = taint.value.parse::<Taint>().map(drop);
            report(
                taint,
                told,
                "write `key=value:Effect`, or `key-` to take it away",
                mistakes,
            );
        }
    }
    let master = |host: &Host| host.roles.iter().any(|role| role.value == "master") && !host.ips.is_empty();
    if !spec.hosts.iter().any(master) {
        mistakes.at(
            place,
            "the cluster has no master",
            "give a host of `spec.hosts` the role `master`",
        );
    }
    if let Some(runtime) = &spec.container_runtime
        && !CONTAINER_RUNTIMES.contains(&runtime.name.value.as_str())
    {
        let message = format!("`{}` is no container runtime", runtime.name.value);
        let hint = suggestion(&runtime.name.value, &CONTAINER_RUNTIMES);
        mistakes.at(runtime.name.referenced, message, hint);
    }
    for alias in &spec.host_aliases {
        address(&alias.ip, mistakes);
    }
    if let Some(local) = &spec.registry.local_registry {
        port(local.port.as_ref(), mistakes);
        for ip in &local.cert.subject_alt_name.ips {
            address(ip, mistakes);
        }
    }
    if let Some(external) = &spec.registry.external_registry {
        filled(&external.domain, "the registry's domain", mistakes);
        port(external.port.as_ref(), mistakes);
    }
}

/// A Config.
pub(super) fn config(spec: &ConfigSpec, mistakes: &mut Mistakes<'_>) {
    path(&spec.path, mistakes);
    filled(&spec.data, "the data", mistakes);
    if let Some(process) = &spec.process {
        words(process, &PROCESSORS, "processor", mistakes);
    }
}

/// A Plugin, whose document is at `place`.
pub(super) fn plugin(spec: &PluginSpec, place: Location, mistakes: &mut Mistakes<'_>) {
    if spec.language.value != "SHELL" {
        let message = format!("there is no plugin type `{}`", spec.language.value);
        mistakes.at(spec.language.referenced, message, "write `SHELL` and a script");
    }
    words(&spec.action, &PHASES, "phase", mistakes);
    let on_hosts = spec
        .action
        .value
        .split('|')
        .any(|phase| HOST_PHASES.contains(&phase.trim()));
    let scope = spec.scope.as_ref().map_or("", |scope| scope.value.trim());
    if on_hosts && scope.is_empty() {
        mistakes.at(
            place,
            "the plugin has no scope and would run nowhere",
            "add for instance `scope: master|node`",
        );
    }
}

/// An Application.
pub(super) fn application(spec: &ApplicationSpec, mistakes: &mut Mistakes<'_>) {
    for config in &spec.configs {
        filled(&config.name, "the name of the app", mistakes);
        variables(&config.env, mistakes);
        for file in &config.files {
            path(&file.path, mistakes);
        }
    }
}

fn addresses(host: &Host, place: Location, seen: &mut BTreeMap<IpAddr, Location>, mistakes: &mut Mistakes<'_>) {
    if host.ips.is_empty() {
        let place = host.roles.first().map_or(place, |role| role.referenced);
        mistakes.at(place, "a host has no address", "add `ips`");
    }
    for ips in &host.ips {
        let parsed = match ips.value.parse::<Addresses>() {
            Ok(parsed) => parsed,
            Err(message) => {
                mistakes.at(
                    ips.referenced,
                    message,
                    "write an address, or a range as `10.0.0.4-10.0.0.40`",
                );
                continue;
            }
        };
        for &address in parsed.as_slice() {
            if seen
                .keys()
                .next()
                .is_some_and(|first| first.is_ipv4() != address.is_ipv4())
            {
                let message = format!("{address} is not of the same family as the hosts before it");
                mistakes.at(
                    ips.referenced,
                    message,
                    "give all hosts IPv4 addresses, or all of them IPv6",
                );
                break;
            }
            if let Some(other) = seen.insert(address, ips.referenced) {
                let message = format!("the host {address} is there already, in line {}", other.line());
                mistakes.at(ips.referenced, message, "name each host once, with all its roles");
            }
        }
    }
}

fn roles(host: &Host, place: Location, mistakes: &mut Mistakes<'_>) {
    const KNOWN: [&str; 2] = ["master", "node"];
    if host.roles.is_empty() {
        let place = host.ips.first().map_or(place, |ip| ip.referenced);
        mistakes.at(place, "a host has no role", "add `roles: [master]` or `roles: [node]`");
    }
    let joins = host.roles.iter().any(|role| KNOWN.contains(&role.value.as_str()));
    for role in &host.roles {
        // Roles of one's own are welcome: only where no other role is known may one of them be a slip.
        if let Some(near) = nearest(&role.value, KNOWN).filter(|_| !joins) {
            let message = format!("there is no role `{}`", role.value);
            mistakes.at(role.referenced, message, format!("did you mean `{near}`?"));
        } else {
            report(
                role,
                label::key(&role.value),
                "roles become labels of the node",
                mistakes,
            );
        }
    }
}

fn ssh(ssh: &Ssh, mistakes: &mut Mistakes<'_>) {
    if let Some(encrypted) = ssh.encrypted.as_ref().filter(|encrypted| encrypted.value) {
        let hint = "its key is public: use `passwdFile` or `passwdEnv`";
        mistakes.at(encrypted.referenced, "sealer's encryption is not supported", hint);
    }
    port(ssh.port.as_ref(), mistakes);
    let sources = [
        ("passwd", &ssh.passwd, &ssh.passwd_file, &ssh.passwd_env),
        ("pkPasswd", &ssh.pk_passwd, &ssh.pk_passwd_file, &ssh.pk_passwd_env),
    ];
    for (name, clear, file, env) in sources {
        let clear = clear.as_ref().map(|secret| secret.referenced);
        let rest = [file, env].map(|source| source.as_ref().map(|source| source.referenced));
        let mut places = std::iter::once(clear).chain(rest).flatten();
        places.next();
        if let Some(place) = places.next() {
            let message = format!("`{name}` is given twice");
            mistakes.at(
                place,
                message,
                format!("keep one of `{name}`, `{name}File` and `{name}Env`"),
            );
        }
    }
}

fn variables(env: &[Spanned<String>], mistakes: &mut Mistakes<'_>) {
    for variable in env {
        let name = variable.value.split_once('=').map_or("", |(name, _)| name);
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            mistakes.at(variable.referenced, "this is no variable", "write `NAME=VALUE`");
        }
    }
}

/// A path that stays below its root.
fn path(path: &Spanned<String>, mistakes: &mut Mistakes<'_>) {
    let text = path.value.as_str();
    if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        mistakes.at(
            path.referenced,
            format!("`{text}` is no path below the rootfs"),
            "write for instance `etc/app.yaml`",
        );
    }
}

fn words(text: &Spanned<String>, known: &[&str], what: &str, mistakes: &mut Mistakes<'_>) {
    for word in text.value.split('|').map(str::trim) {
        if !known.contains(&word) {
            let message = format!("there is no {what} `{word}`");
            mistakes.at(text.referenced, message, suggestion(word, known));
        }
    }
}

fn filled(text: &Spanned<String>, what: &str, mistakes: &mut Mistakes<'_>) {
    if text.value.is_empty() {
        mistakes.at(text.referenced, format!("{what} is empty"), "write it");
    }
}

fn address(text: &Spanned<String>, mistakes: &mut Mistakes<'_>) {
    if text.value.parse::<IpAddr>().is_err() {
        mistakes.at(
            text.referenced,
            format!("`{}` is no IP address", text.value),
            "write an address",
        );
    }
}

fn port(port: Option<&Spanned<String>>, mistakes: &mut Mistakes<'_>) {
    if let Some(port) = port
        && !port.value.parse::<u16>().is_ok_and(|number| number > 0)
    {
        mistakes.at(
            port.referenced,
            format!("`{}` is no port", port.value),
            "write a number from 1 to 65535",
        );
    }
}

fn report(place: &Spanned<String>, told: Result<(), String>, hint: &str, mistakes: &mut Mistakes<'_>) {
    if let Err(message) = told {
        mistakes.at(place.referenced, message, hint);
    }
}
