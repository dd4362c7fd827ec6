//! What types can't say: rules between the fields of a Clusterfile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::de::IgnoredAny;
use serde_saphyr::Location;

use super::Clusterfile;
use super::application::ApplicationSpec;
use super::cluster::{ClusterSpec, Host};
use super::config::{ConfigSpec, PluginSpec, Strategy};
use super::hosts::{addresses, odd_masters, roles, ssh};
use super::label;
use super::mistakes::{Mistakes, suggestion};
use super::rules::{address, app, filled, host_name, is_root, one_source, path, port, report, variables, words};
use super::taint::Taint;
use crate::options::{check_cluster_name, is_host_name};

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
