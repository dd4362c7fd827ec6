//! What types can't say: rules between the fields of a Clusterfile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sealrs_image::suggest::nearest;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use super::Clusterfile;
use super::addresses::Addresses;
use super::application::ApplicationSpec;
use super::cluster::{ClusterSpec, Host, Ssh};
use super::config::{ConfigSpec, PluginSpec, Strategy};
use super::hidden::is_secret;
use super::label;
use super::mistakes::{Mistakes, suggestion};
use super::secret::Secret;
use super::taint::Taint;
use crate::options::{check_cluster_name, is_host_name, is_variable_name};

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

/// The name of a cluster, whose document is at `place`.
pub(super) fn name(name: Option<&str>, place: Location, mistakes: &mut Mistakes<'_>) {
    if let Some(Err(error)) = name.map(check_cluster_name) {
        mistakes.at(place, error.to_string(), error.remedy().unwrap_or_default());
    }
}

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
        mistakes.absent(
            place,
            "the cluster has no master",
            "give a host of `spec.hosts` the role `master`",
        );
    }
    odd_masters(spec, mistakes);
    if let Some(runtime) = &spec.container_runtime
        && !CONTAINER_RUNTIMES.contains(&runtime.name.value.as_str())
    {
        let message = format!("`{}` is no container runtime", runtime.name.value);
        let hint = suggestion(&runtime.name.value, &CONTAINER_RUNTIMES);
        mistakes.at(runtime.name.referenced, message, hint);
    }
    if let Some(root) = spec.data_root.as_ref().filter(|root| !is_root(root)) {
        let message = format!("`{}` is no folder for the cluster's data", root.escape_debug());
        mistakes.at(place, message, "write for instance `dataRoot: /var/lib/sealer/data`");
    }
    for alias in &spec.host_aliases {
        address(&alias.ip, mistakes);
        if let Some(name) = alias.hostnames.iter().find(|name| !is_host_name(name)) {
            host_name(name, alias.ip.referenced, mistakes);
        }
    }
    if let Some(local) = &spec.registry.local_registry {
        if let Some(domain) = local.domain.as_ref().filter(|domain| !is_host_name(domain)) {
            host_name(domain, place, mistakes);
        }
        port(local.port.as_ref(), mistakes);
        for ip in &local.cert.subject_alt_name.ips {
            address(ip, mistakes);
        }
        let others = [&local.password_file, &local.password_env];
        one_source("password", local.password.as_ref(), others, mistakes);
    }
    if let Some(external) = &spec.registry.external_registry {
        let domain = &external.domain;
        if !is_host_name(&domain.value) && domain.value.parse::<IpAddr>().is_err() {
            host_name(&domain.value, domain.referenced, mistakes);
        }
        port(external.port.as_ref(), mistakes);
        let others = [&external.password_file, &external.password_env];
        one_source("password", external.password.as_ref(), others, mistakes);
    }
}

/// A Config.
pub(super) fn config(spec: &ConfigSpec, mistakes: &mut Mistakes<'_>) {
    path(&spec.path, mistakes);
    if let Some(name) = &spec.app_name {
        app(name, spec.path.referenced, mistakes);
    }
    filled(&spec.data, "the data", mistakes);
    if let Some(process) = &spec.process {
        words(process, &PROCESSORS, "processor", mistakes);
    } else if spec.strategy == Strategy::Merge && !spec.data.value.contains("{{") {
        let read = serde_saphyr::from_str::<BTreeMap<String, IgnoredAny>>(&spec.data.value);
        if read.is_err() {
            let hint = "write `field: value` to be merged, or `strategy: overwrite`";
            mistakes.at(
                spec.data.referenced,
                "the data to be merged is no YAML with fields",
                hint,
            );
        }
    }
}

/// A Plugin, whose document is at `place`.
pub(super) fn plugin(spec: &PluginSpec, place: Location, mistakes: &mut Mistakes<'_>) {
    if spec.language.value != "SHELL" {
        let message = format!("there is no plugin type `{}`", spec.language.value);
        mistakes.at(spec.language.referenced, message, "write `SHELL` and a script");
    }
    words(&spec.action, &PHASES, "phase", mistakes);
    if let Some(scope) = &spec.scope {
        let told = scope.value.split('|').map(str::trim).filter(|role| !role.is_empty());
        let told = told.map(label::key).find(std::result::Result::is_err).unwrap_or(Ok(()));
        report(scope, told, "write roles with `|` between them", mistakes);
    }
    let scope = spec.scope.as_ref().map_or("", |scope| scope.value.trim());
    if runs_on_hosts(spec) && scope.is_empty() {
        mistakes.absent(
            place,
            "the plugin has no scope and would run nowhere",
            "add for instance `scope: master|node`",
        );
    }
}

/// Plugins that would run on no host of the cluster. It may grow later: so it is no error.
pub(super) fn scopes(clusterfile: &Clusterfile, mistakes: &mut Mistakes<'_>) {
    let Some(cluster) = &clusterfile.cluster else {
        return;
    };
    let roles: BTreeSet<&str> = cluster
        .spec
        .hosts
        .iter()
        .flat_map(|host| &host.roles)
        .map(|role| role.value.as_str())
        .collect();
    for plugin in &clusterfile.plugins {
        let Some(scope) = plugin.spec.scope.as_ref().filter(|_| runs_on_hosts(&plugin.spec)) else {
            continue;
        };
        let mut named = scope.value.split('|').map(str::trim);
        if !scope.value.trim().is_empty() && !named.any(|role| roles.contains(role)) {
            let message = format!(
                "no host has a role of the scope `{}`: the plugin runs nowhere",
                scope.value
            );
            let known: Vec<&str> = roles.iter().copied().collect();
            mistakes.warn(scope.referenced, message, suggestion(&scope.value, &known));
        }
    }
}

/// An Application.
pub(super) fn application(spec: &ApplicationSpec, mistakes: &mut Mistakes<'_>) {
    for config in &spec.configs {
        app(&config.name.value, config.name.referenced, mistakes);
        if !spec.launch_apps.is_empty() && !spec.launch_apps.contains(&config.name.value) {
            let known: Vec<&str> = spec.launch_apps.iter().map(String::as_str).collect();
            let message = format!("the app `{}` is not launched: nothing comes of this", config.name.value);
            mistakes.warn(config.name.referenced, message, suggestion(&config.name.value, &known));
        }
        variables(&config.env, mistakes);
        for file in &config.files {
            path(&file.path, mistakes);
        }
    }
}

fn runs_on_hosts(plugin: &PluginSpec) -> bool {
    let mut phases = plugin.action.value.split('|').map(str::trim);
    phases.any(|phase| HOST_PHASES.contains(&phase))
}

/// Of an even number of masters no more can fail than of one less.
fn odd_masters(spec: &ClusterSpec, mistakes: &mut Mistakes<'_>) {
    let masters = spec
        .hosts
        .iter()
        .filter(|host| host.roles.iter().any(|role| role.value == "master"));
    let ips: Vec<_> = masters.flat_map(|host| &host.ips).collect();
    let parsed = ips.iter().filter_map(|ips| ips.value.parse::<Addresses>().ok());
    let count: usize = parsed.map(|addresses| addresses.as_slice().len()).sum();
    if let Some(first) = ips.first().filter(|_| count > 0 && count.is_multiple_of(2)) {
        let message = format!(
            "there are {count} masters: no more of them may fail than of {}",
            count - 1
        );
        let hint = "take an odd number, unless the cluster's data is in a database outside of it";
        mistakes.warn(first.referenced, message, hint);
    }
}

fn addresses(host: &Host, place: Location, seen: &mut BTreeMap<IpAddr, Location>, mistakes: &mut Mistakes<'_>) {
    if host.ips.is_empty() {
        let place = host.roles.first().map_or(place, |role| role.referenced);
        mistakes.absent(place, "a host has no address", "add `ips`");
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
        mistakes.absent(place, "a host has no role", "add `roles: [master]` or `roles: [node]`");
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
        one_source(name, clear.as_ref(), [file, env], mistakes);
    }
}

/// A secret has one source, and better not this file.
fn one_source(
    name: &str,
    clear: Option<&Spanned<Secret>>,
    others: [&Option<Spanned<String>>; 2],
    mistakes: &mut Mistakes<'_>,
) {
    if let Some(secret) = clear {
        let message = format!("`{name}` stands here in clear, for everybody who reads the file");
        mistakes.warn(secret.referenced, message, format!("write `{name}Env` or `{name}File`"));
    }
    for source in others.iter().copied().flatten() {
        filled(source, &format!("the place of `{name}`"), mistakes);
    }
    let clear = clear.map(|secret| secret.referenced);
    let rest = others.map(|source| source.as_ref().map(|source| source.referenced));
    if let Some(place) = std::iter::once(clear).chain(rest).flatten().nth(1) {
        let message = format!("`{name}` is given twice");
        let hint = format!("keep one of `{name}`, `{name}File` and `{name}Env`");
        mistakes.at(place, message, hint);
    }
}

fn variables(env: &[Spanned<String>], mistakes: &mut Mistakes<'_>) {
    for variable in env {
        let name = variable.value.split_once('=').map_or("", |(name, _)| name);
        if name.is_empty() {
            mistakes.at(variable.referenced, "this is no variable", "write `NAME=VALUE`");
        } else if !is_variable_name(name) {
            let message = format!("`{}` is not a variable's name", name.escape_debug());
            let hint = "a name has letters, digits and `_` and does not start with a digit";
            mistakes.at(variable.referenced, message, hint);
        } else if is_secret(name) && !variable.value.ends_with('=') {
            let message = format!("`{name}` stands here in clear, for everybody who reads the file");
            let hint = format!("leave it out, and give `-e {name}` with the value in the environment");
            mistakes.warn(variable.referenced, message, hint);
        }
    }
}

/// The data of clusters have a folder of their own.
fn is_root(text: &str) -> bool {
    let mut parts = text.split('/').filter(|part| !part.is_empty()).peekable();
    text.starts_with('/') && parts.peek().is_some() && parts.all(|part| part != "." && part != "..")
}

fn host_name(name: &str, place: Location, mistakes: &mut Mistakes<'_>) {
    let message = format!("`{}` is no host name", name.escape_debug());
    mistakes.at(place, message, "write a DNS name, for instance `sea.hub`");
}

/// The name of an app, which is that of a folder.
fn app(name: &str, place: Location, mistakes: &mut Mistakes<'_>) {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        let message = format!("`{}` is no name of an app", name.escape_debug());
        mistakes.at(place, message, "write the name that the image has for it");
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
