//! kubeadm's documents: those of the image's `etc/kubeadm.yml`, those of the Clusterfile over them, and over both what sealrs
//! knows better, merged by structure and written as the image's kubeadm reads them.

use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use super::super::marks::{self, mark};
use super::images::Images;
use super::services::{BALANCER_PORT, ENDPOINT};
use super::version::Version;
use super::{API_PORT, IMAGE_CONFIG, containerd, has_nodes, node_name, sealers, secret};
use crate::action::Content;
use crate::configuration::overlay;
use crate::member::Role;
use crate::plan::Context;
use crate::service::Manager;
use crate::yaml;

const KUBEADM: &str = "kubeadm.k8s.io/";
const KUBELET: (&str, &str) = ("kubelet.config.k8s.io/", "KubeletConfiguration");
const PROXY: (&str, &str) = ("kubeproxy.config.k8s.io/", "KubeProxyConfiguration");
/// How long a host that joins looks for the cluster: a token is known to all API servers within seconds.
const DISCOVERY: &str = "2m0s";

type Fields = Map<String, Value>;

/// Who makes the control groups of containers: the kubelet and containerd have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupDriver {
    Systemd,
    Cgroupfs,
}

/// The settings of a cluster.
#[derive(Debug)]
pub(super) struct Config {
    version: Version,
    repository: String,
    cluster: Fields,
    init: Fields,
    join: Fields,
    kubelet: Fields,
    proxy: Fields,
}

/// Whether a document lets the kubelet run with cgroups of version 1.
pub(super) fn allows_old_cgroups(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(KUBELET.1)
        && document.get("failCgroupV1") == Some(&Value::Bool(false))
}

impl Config {
    /// # Errors
    /// [`ErrorKind::Input`] when the documents of the image or of the Clusterfile are wrong.
    pub(super) fn of(context: &Context<'_>, version: &Version, images: &Images) -> Result<Self> {
        let mut config = Self {
            version: version.clone(),
            repository: String::new(),
            cluster: Fields::new(),
            init: Fields::new(),
            join: Fields::new(),
            kubelet: Fields::new(),
            proxy: Fields::new(),
        };
        if let Some(text) = context.rootfs.texts.get(IMAGE_CONFIG) {
            let source = format!("`{IMAGE_CONFIG}` of the image");
            let options = serde_saphyr::options! { strict_booleans: true };
            let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
                .map_err(|error| wrong(&source, error.to_string()).hint("correct it and build the image again"))?;
            for mut document in documents.into_iter().filter(|document| !document.is_null()) {
                if sealers::made(context.rootfs) {
                    sealers::take_out(&mut document);
                }
                config.add(&document, &source)?;
            }
        }
        for document in &context.options.runtime_documents {
            config.add(document, "a document of the Clusterfile")?;
        }
        config.check_version()?;
        config.adapt();
        let given = config.cluster.get("imageRepository").and_then(Value::as_str);
        config.repository = images.repository(version, given)?;
        config.compute(context, images)?;
        Ok(config)
    }

    /// Lays a document over those of its kind.
    fn add(&mut self, document: &Value, source: &str) -> Result<()> {
        let word = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        let (api, kind) = (word("apiVersion"), word("kind"));
        let fields = match kind {
            "ClusterConfiguration" if api.starts_with(KUBEADM) => &mut self.cluster,
            "InitConfiguration" if api.starts_with(KUBEADM) => &mut self.init,
            "JoinConfiguration" if api.starts_with(KUBEADM) => &mut self.join,
            _ if api.starts_with(KUBELET.0) && kind == KUBELET.1 => &mut self.kubelet,
            _ if api.starts_with(PROXY.0) && kind == PROXY.1 => &mut self.proxy,
            _ => {
                return Err(wrong(source, format!("it is `{kind}` of `{api}`")).hint(format!(
                    "runtime kubernetes reads ClusterConfiguration, InitConfiguration and JoinConfiguration of {KUBEADM}…, \
                     {} and {}",
                    KUBELET.1, PROXY.1
                )));
            }
        };
        if let Value::Object(document) = document {
            overlay(fields, document);
        }
        Ok(())
    }

    fn check_version(&self) -> Result<()> {
        match self.cluster.get("kubernetesVersion").and_then(Value::as_str) {
            Some(other) if other.trim_start_matches('v') != self.version.text.trim_start_matches('v') => {
                Err(Error::new(
                    ErrorKind::Input,
                    format!(
                        "`kubernetesVersion` is {other}, and the image has Kubernetes {}",
                        self.version.text
                    ),
                )
                .hint("leave `kubernetesVersion` out: the image's label says it"))
            }
            _ => Ok(()),
        }
    }

    /// Writes what documents of another version of kubeadm have as this one reads it.
    fn adapt(&mut self) {
        let lists = self.version.has_lists();
        for fields in [&mut self.cluster, &mut self.init, &mut self.join] {
            fields.values_mut().for_each(|value| arguments(value, lists));
        }
        if lists {
            let waits = remove(&mut self.cluster, "apiServer", "timeoutForControlPlane");
            insert(&mut self.init, "timeouts", "controlPlaneComponentHealthCheck", waits);
            let discovers = remove(&mut self.join, "discovery", "timeout");
            insert(&mut self.join, "timeouts", "discovery", discovers);
        } else {
            let waits = remove(&mut self.init, "timeouts", "controlPlaneComponentHealthCheck");
            insert(&mut self.cluster, "apiServer", "timeoutForControlPlane", waits);
            let discovers = remove(&mut self.join, "timeouts", "discovery");
            insert(&mut self.join, "discovery", "timeout", discovers);
            for fields in [&mut self.init, &mut self.join] {
                fields.remove("timeouts");
            }
        }
        if self.version.minor >= (1, 23) {
            remove(&mut self.cluster, "dns", "type");
            self.cluster.remove("useHyperKubeImage");
        }
    }

    /// What sealrs knows better than who wrote the documents, and what it adds where nothing is said.
    fn compute(&mut self, context: &Context<'_>, images: &Images) -> Result<()> {
        let api = self.version.api();
        for (fields, kind) in [
            (&mut self.cluster, "ClusterConfiguration"),
            (&mut self.init, "InitConfiguration"),
            (&mut self.join, "JoinConfiguration"),
        ] {
            fields.insert("apiVersion".to_owned(), api.into());
            fields.insert("kind".to_owned(), kind.into());
        }
        let endpoint = self.cluster.get("controlPlaneEndpoint").and_then(Value::as_str);
        let ours = endpoint.is_none_or(|endpoint| {
            endpoint
                .strip_prefix(ENDPOINT)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        if ours {
            let endpoint = format!("{ENDPOINT}:{BALANCER_PORT}");
            self.cluster.insert("controlPlaneEndpoint".to_owned(), endpoint.into());
        }
        self.cluster
            .insert("kubernetesVersion".to_owned(), self.version.text.clone().into());
        self.cluster
            .insert("imageRepository".to_owned(), self.repository.clone().into());
        if let Some(dns) = images.dns_repository(&self.version, &self.repository) {
            place(&mut self.cluster, "dns")?
                .entry("imageRepository")
                .or_insert_with(|| dns.into());
        }
        self.add_names(context)?;

        let driver = match context.facts.services {
            Manager::Systemd => "systemd",
            Manager::Supervised => "cgroupfs",
        };
        self.kubelet
            .entry("apiVersion")
            .or_insert_with(|| "kubelet.config.k8s.io/v1beta1".into());
        self.kubelet.entry("kind").or_insert_with(|| KUBELET.1.into());
        self.kubelet.entry("cgroupDriver").or_insert_with(|| driver.into());
        let driver = self.kubelet.get("cgroupDriver").and_then(Value::as_str);
        if !matches!(driver, Some("systemd" | "cgroupfs")) {
            return Err(wrong(
                "KubeletConfiguration",
                "its `cgroupDriver` is neither systemd nor cgroupfs".to_owned(),
            ));
        }

        let masters_alone = !has_nodes(context.peers);
        for fields in [&mut self.init, &mut self.join] {
            let registration = place(fields, "nodeRegistration")?;
            registration.insert("name".to_owned(), node_name(context).into());
            registration.insert("criSocket".to_owned(), containerd::endpoint().into());
            if masters_alone && context.role == Role::Master {
                // Else there would be no place for any pod.
                let taints = registration.entry("taints").or_insert(Value::Null);
                if taints.is_null() {
                    *taints = json!([]);
                }
            }
            let ip = context.host.to_string();
            let arguments = registration.entry("kubeletExtraArgs").or_insert(Value::Null);
            set_argument(arguments, "node-ip", &ip, self.version.has_lists());
        }
        let local = json!({"advertiseAddress": context.host.to_string(), "bindPort": API_PORT});
        self.init.insert("localAPIEndpoint".to_owned(), local.clone());
        // Nobody is told of it: hosts that join have tokens of their own.
        let token = mark(&secret("founder.token"));
        self.init
            .insert("bootstrapTokens".to_owned(), json!([{"token": token, "ttl": "1m0s"}]));
        if context.role == Role::Master {
            place(&mut self.join, "controlPlane")?.insert("localAPIEndpoint".to_owned(), local);
        } else {
            self.join.remove("controlPlane");
        }
        Ok(())
    }

    /// Names and addresses that the API servers' certificates are for, besides those that kubeadm adds.
    fn add_names(&mut self, context: &Context<'_>) -> Result<()> {
        let server = place(&mut self.cluster, "apiServer")?;
        let names = server.entry("certSANs").or_insert(Value::Null);
        if names.is_null() {
            *names = json!([]);
        }
        let Value::Array(names) = names else {
            return Err(wrong(
                "ClusterConfiguration",
                "its `apiServer.certSANs` is no list".to_owned(),
            ));
        };
        let own = ["127.0.0.1", "localhost"].map(str::to_owned).into_iter();
        let peers = context
            .masters()
            .flat_map(|peer| [peer.address.to_string(), peer.hostname.to_ascii_lowercase()]);
        for name in own.chain(peers).map(Value::from) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(())
    }

    /// Whether hosts reach the API servers through their own balancer, and not by something of the user's.
    pub(super) fn has_balancer(&self) -> bool {
        self.endpoint() == format!("{ENDPOINT}:{BALANCER_PORT}")
    }

    fn endpoint(&self) -> String {
        let text = self.cluster.get("controlPlaneEndpoint").and_then(Value::as_str);
        let text = text.unwrap_or_default();
        // A port is needed to join, and kubeadm adds the usual one elsewhere.
        if text
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            text.to_owned()
        } else {
            format!("{text}:{API_PORT}")
        }
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn cgroup_driver(&self) -> CgroupDriver {
        match self.kubelet.get("cgroupDriver").and_then(Value::as_str) {
            Some("cgroupfs") => CgroupDriver::Cgroupfs,
            _ => CgroupDriver::Systemd,
        }
    }

    /// What `kubeadm init` reads.
    pub(super) fn init(&self) -> Content {
        let documents = [&self.init, &self.cluster, &self.kubelet, &self.proxy];
        content(documents.into_iter().filter(|fields| !fields.is_empty()))
    }

    /// What `kubeadm join` reads, with the token of this name.
    pub(super) fn join(&self, token: &str) -> Result<Content> {
        let mut join = self.join.clone();
        let discovery = place(&mut join, "discovery")?;
        discovery.remove("file");
        discovery.insert(
            "bootstrapToken".to_owned(),
            json!({
                "apiServerEndpoint": self.endpoint(),
                "token": mark(token),
                "caCertHashes": [format!("sha256:{}", mark(&secret("ca.hash")))],
            }),
        );
        if self.version.has_lists() {
            place(&mut join, "timeouts")?
                .entry("discovery")
                .or_insert_with(|| DISCOVERY.into());
        } else {
            discovery.entry("timeout").or_insert_with(|| DISCOVERY.into());
        }
        Ok(content([&join].into_iter()))
    }
}

fn wrong(source: &str, why: String) -> Error {
    Error::new(ErrorKind::Input, format!("{source} is nothing that kubeadm reads"))
        .because(Error::new(ErrorKind::Input, why))
}

/// The fields below one, made if need be.
fn place<'f>(fields: &'f mut Fields, name: &str) -> Result<&'f mut Fields> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Fields::new());
    }
    value
        .as_object_mut()
        .ok_or_else(|| Error::new(ErrorKind::Input, format!("`{name}` has no fields")))
        .context(|| "a document for kubeadm is wrong")
}

fn remove(fields: &mut Fields, outer: &str, inner: &str) -> Option<Value> {
    fields.get_mut(outer)?.as_object_mut()?.remove(inner)
}

fn insert(fields: &mut Fields, outer: &str, inner: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let outer = fields.entry(outer).or_insert_with(|| Value::Object(Fields::new()));
    if let Value::Object(outer) = outer {
        outer.entry(inner).or_insert(value);
    }
}

/// Arguments of programs, at any depth: newer documents have lists of names and values, older ones fields.
fn arguments(value: &mut Value, lists: bool) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if matches!(name.as_str(), "extraArgs" | "kubeletExtraArgs") {
                    *value = written(value, lists);
                } else {
                    arguments(value, lists);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| arguments(item, lists)),
        _ => {}
    }
}

fn written(value: &Value, lists: bool) -> Value {
    match value {
        Value::Object(fields) if lists => fields
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect(),
        Value::Array(items) if !lists => {
            let pair = |item: &Value| {
                let name = item.get("name")?.as_str()?.to_owned();
                Some((name, item.get("value")?.clone()))
            };
            Value::Object(items.iter().filter_map(pair).collect())
        }
        other => other.clone(),
    }
}

/// Sets an argument where none of that name is given.
fn set_argument(arguments: &mut Value, name: &str, value: &str, lists: bool) {
    if arguments.is_null() {
        *arguments = if lists { json!([]) } else { json!({}) };
    }
    match arguments {
        Value::Object(fields) => drop(fields.entry(name).or_insert_with(|| value.into())),
        Value::Array(items)
            if !items
                .iter()
                .any(|item| item.get("name").and_then(Value::as_str) == Some(name)) =>
        {
            items.push(json!({"name": name, "value": value}));
        }
        _ => {}
    }
}

/// The text of documents, with secrets in the place of their marks.
fn content<'f>(documents: impl Iterator<Item = &'f Fields>) -> Content {
    let texts: Vec<String> = documents
        .map(|fields| yaml::document(&Value::Object(fields.clone())))
        .collect();
    marks::content(&texts.join("---\n"))
}
