//! `k0s.yaml` of a controller: what the image brings, what the Clusterfile's `ClusterConfig` adds, and what sealrs computes,
//! merged by structure and checked against all fields that k0s has.
//!
//! Passwords come from a Clusterfile alone, and are no part of the plan: their places are, in what the user gave.

use sealrs_image::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use super::super::marks;
use super::IMAGE_CONFIG;
use super::fields::{self, NEWEST};
use super::flags::Flags;
use crate::action::Content;
use crate::plan::Context;
use crate::yaml;

const GROUP: &str = "k0s.k0sproject.io/";
const VERSION: &str = "k0s.k0sproject.io/v1beta1";
const KIND: &str = "ClusterConfig";

/// Where a cluster keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datastore {
    /// In an etcd whose members are the controllers.
    Etcd,
    /// In something that all controllers reach.
    Elsewhere,
    /// In a file of the one controller.
    File,
}

/// The settings of a controller.
#[derive(Debug)]
pub(super) struct Config {
    settings: Value,
    pub(super) datastore: Datastore,
}

impl Config {
    /// The settings for a host.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when those of the image or of the Clusterfile are wrong.
    pub(super) fn of(context: &Context<'_>, minor: (u32, u32), flags: &Flags, notes: &mut Vec<String>) -> Result<Self> {
        let mut settings = json!({"apiVersion": VERSION, "kind": KIND, "metadata": {"name": "k0s"}});
        if let Some(text) = context.rootfs.texts.get(IMAGE_CONFIG) {
            let source = format!("`{IMAGE_CONFIG}` of the image");
            let document = parse(text, &source)?;
            check(&document, &source, minor, notes)?;
            let mut secrets = Vec::new();
            secret_places(&document, "", &mut secrets);
            if let Some(place) = secrets.first() {
                return Err(wrong(
                    &source,
                    format!("it has a password at `{place}`, which must not be in images"),
                )
                .hint("give it in a Clusterfile, in a document of kind ClusterConfig"));
            }
            merge(&mut settings, &document);
        }
        let documents = context.options.runtime_documents.iter().enumerate();
        for (number, document) in documents.filter(|(_, document)| is_config(document)) {
            let source = "ClusterConfig of the Clusterfile";
            check(document, source, minor, notes)?;
            let mut document = document.clone();
            hide(&mut document, source, number)?;
            merge(&mut settings, &document);
        }
        let single = flags.is_on("single");
        if single && context.peers.len() > 1 {
            return Err(
                Error::new(ErrorKind::Input, "`--runtime-config single=true` is for one host")
                    .hint("leave it out: with more hosts k0s keeps its data in etcd"),
            );
        }
        compute(&mut settings, context, single)?;
        let config = Self {
            datastore: datastore(&settings, single),
            settings,
        };
        config.check_whole(context)?;
        Ok(config)
    }

    /// The text of `k0s.yaml`.
    pub(super) fn content(&self) -> Content {
        marks::content(&yaml::document(&self.settings))
    }

    /// Whether k0s gives the data source, with what is secret in it, to kine as an argument.
    pub(super) fn shows_source(&self) -> bool {
        self.datastore == Datastore::Elsewhere && self.text("/storage/kine/dataSource").is_some()
    }

    /// A text at a place below `spec` (RFC 6901).
    pub(super) fn text(&self, place: &str) -> Option<&str> {
        self.settings.pointer(&format!("/spec{place}"))?.as_str()
    }

    /// A port at a place below `spec`.
    pub(super) fn port(&self, place: &str, default: u16) -> u16 {
        let given = self.settings.pointer(&format!("/spec{place}")).and_then(Value::as_u64);
        given.and_then(|port| u16::try_from(port).ok()).unwrap_or(default)
    }

    /// What fields alone can't say.
    fn check_whole(&self, context: &Context<'_>) -> Result<()> {
        let refuse =
            |what: &str, hint: &str| Err(Error::new(ErrorKind::Input, format!("k0s's settings: {what}")).hint(hint));
        let pods = self.text("/network/podCIDR").unwrap_or("10.244.0.0/16");
        let services = self.text("/network/serviceCIDR").unwrap_or("10.96.0.0/12");
        if fields::overlap(pods, services) {
            return refuse(
                &format!("pods ({pods}) and services ({services}) would have the same addresses"),
                "give `spec.network.podCIDR` and `spec.network.serviceCIDR` ranges that have nothing in common",
            );
        }
        if self.port("/api/port", 6443) == self.port("/api/k0sApiPort", 9443) {
            return refuse(
                "`spec.api.port` and `spec.api.k0sApiPort` are the same",
                "leave one of them out",
            );
        }
        if self.is_on("/network/nodeLocalLoadBalancing/enabled") && self.text("/api/externalAddress").is_some() {
            return refuse(
                "`spec.network.nodeLocalLoadBalancing` can't be used together with `spec.api.externalAddress`",
                "leave one of them out: each is a way for workers to reach all controllers",
            );
        }
        let file = self.datastore == Datastore::File;
        if file && context.peers.len() > 1 {
            return refuse(
                "kine without a data source is a file of one controller, which no other host can join",
                "give `spec.storage.kine.dataSource` in a Clusterfile, or leave `spec.storage` out: then it is etcd",
            );
        }
        Ok(())
    }

    fn is_on(&self, place: &str) -> bool {
        self.settings.pointer(&format!("/spec{place}")) == Some(&Value::Bool(true))
    }
}

fn is_config(document: &Value) -> bool {
    let word = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    word("apiVersion").starts_with(GROUP) && word("kind") == KIND
}

fn wrong(source: &str, why: String) -> Error {
    Error::new(ErrorKind::Input, format!("{source} is not a configuration of k0s"))
        .because(Error::new(ErrorKind::Input, why))
}

fn parse(text: &str, source: &str) -> Result<Value> {
    let empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(empty) {
        return Ok(json!({"apiVersion": VERSION, "kind": KIND}));
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| wrong(source, error.to_string()).hint("correct it and build the image again"))
}

/// Whether a document is right by itself.
fn check(document: &Value, source: &str, minor: (u32, u32), notes: &mut Vec<String>) -> Result<()> {
    let Value::Object(parts) = document else {
        return Err(wrong(source, "it is not a list of `field: value`".to_owned()));
    };
    for (name, wanted) in [("apiVersion", VERSION), ("kind", KIND)] {
        if parts.get(name).and_then(Value::as_str) != Some(wanted) {
            return Err(wrong(source, format!("its `{name}` is not `{wanted}`"))
                .hint("k0s itself does not look at it, so what it is for could be something else"));
        }
    }
    let (mut faults, mut unknown) = (Vec::new(), Vec::new());
    for (name, part) in parts {
        match name.as_str() {
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" => (faults, unknown) = fields::check(part),
            other => faults.push(format!("there is no `{}`", other.escape_debug())),
        }
    }
    if minor > NEWEST {
        // A newer k0s may have more.
        notes.extend(unknown.drain(..).map(|unknown| format!("{source}: {unknown}")));
    }
    faults.extend(unknown);
    let mut faults = faults.into_iter().map(|fault| wrong(source, fault));
    match faults.next() {
        None => Ok(()),
        Some(first) => Err(faults.fold(first, Error::because).hint("correct these fields")),
    }
}

/// Fields whose values are secrets.
fn is_secret(name: &str, value: &str) -> bool {
    match name {
        "password" | "authPass" => true,
        // USER:PASSWORD@
        "dataSource" => value.contains('@'),
        _ => false,
    }
}

/// The places (RFC 6901) of secrets in a document.
fn secret_places(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
                match value.as_str() {
                    Some(text) if is_secret(name, text) => found.push(place),
                    _ => secret_places(value, &place, found),
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                secret_places(item, &format!("{place}/{number}"), found);
            }
        }
        _ => {}
    }
}

/// Puts marks in the places of secrets.
fn hide(document: &mut Value, source: &str, number: usize) -> Result<()> {
    let mut places = Vec::new();
    secret_places(document, "", &mut places);
    for place in places {
        let Some(value) = document.pointer_mut(&place) else {
            continue;
        };
        *value = marks::mark_given(number, &place, value).ok_or_else(|| {
            wrong(
                source,
                format!("what stands at `{place}` can't be written into k0s.yaml"),
            )
            .hint("choose a password without quotation marks and backslashes")
        })?;
    }
    Ok(())
}

/// Lays `more` over `base`: fields one by one, all else as a whole.
fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (name, value) in more {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, more) => *base = more.clone(),
    }
}

/// The fields at a place below the settings, made if need be.
fn place<'s>(settings: &'s mut Value, path: &[&str]) -> Result<&'s mut Map<String, Value>> {
    let mut at = settings;
    for name in path {
        let Value::Object(fields) = at else { break };
        at = fields.entry(*name).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut().ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            format!("k0s's setting {} has no fields", path.join(".")),
        )
    })
}

/// What sealrs knows better than who wrote the settings, and what it adds where nothing is said.
fn compute(settings: &mut Value, context: &Context<'_>, single: bool) -> Result<()> {
    let host = context.host.to_string();
    let api = place(settings, &["spec", "api"])?;
    if let Some(other) = api.get("address").filter(|address| address.as_str() != Some(&host)) {
        return Err(Error::new(
            ErrorKind::Input,
            format!("k0s's setting `spec.api.address` is {other} and this host is {host}"),
        )
        .hint("leave it out: each host has the address by which it is named, or that of `--host-ip`"));
    }
    api.insert("address".to_owned(), host.clone().into());
    let external = api.get("externalAddress").is_some_and(|address| !address.is_null());
    let storage = place(settings, &["spec", "storage"])?;
    if !single {
        storage.entry("type").or_insert_with(|| "etcd".into());
    }
    if datastore(settings, single) == Datastore::Etcd {
        place(settings, &["spec", "storage", "etcd"])?.insert("peerAddress".to_owned(), host.into());
    } else if place(settings, &["spec", "storage"])?.is_empty() {
        place(settings, &["spec"])?.remove("storage");
    }
    if !external && !single {
        let balancing = place(settings, &["spec", "network", "nodeLocalLoadBalancing"])?;
        balancing.entry("enabled").or_insert_with(|| true.into());
    }
    place(settings, &["spec", "telemetry"])?.insert("enabled".to_owned(), false.into());
    Ok(())
}

/// Whether the Clusterfile says that controllers keep the cluster's data elsewhere.
pub(super) fn is_elsewhere(documents: &[Value]) -> bool {
    let mut settings = Value::Object(Map::new());
    for document in documents.iter().filter(|document| is_config(document)) {
        merge(&mut settings, document);
    }
    datastore(&settings, false) == Datastore::Elsewhere
}

fn datastore(settings: &Value, single: bool) -> Datastore {
    let storage = settings.pointer("/spec/storage");
    let at = |place: &str| storage.and_then(|storage| storage.pointer(place));
    let source = at("/kine/dataSource").and_then(Value::as_str);
    match at("/type").and_then(Value::as_str) {
        Some("kine") if source.is_some_and(|source| !source.starts_with("sqlite://")) => Datastore::Elsewhere,
        Some("kine") => Datastore::File,
        None if single => Datastore::File,
        _ if at("/etcd/externalCluster").is_some_and(Value::is_object) => Datastore::Elsewhere,
        _ => Datastore::Etcd,
    }
}
