//! From a Clusterfile to what is installed and where.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, Result};
use serde_saphyr::Spanned;

use super::addresses::Addresses;
use super::cluster::{ClusterSpec, Host, Registry, Ssh};
use super::config::{ConfigSpec, PluginSpec, Strategy};
use super::document::{Named, RuntimeDocument};
use super::secrets::{SecretSource, Secrets};
use super::{Clusterfile, application::ApplicationSpec};
use crate::apps::AppSettings;
use crate::configuration::{Configuration, Process};
use crate::hook::{Hook, Phase};
use crate::member::{Access, Member, Role};
use crate::options::Options;

/// What a Clusterfile wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The ClusterImage.
    pub image: Option<String>,
    /// How and where it is installed.
    pub options: Options,
}

impl Clusterfile {
    /// What it wants, with all secrets read. `base` has what it does not say; `access` is how hosts are reached of which
    /// it says nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it has no cluster, or wants what is not possible; as [`Secrets::get`].
    pub fn wanted(&self, base: Options, access: &Access, secrets: &Secrets<'_>) -> Result<Wanted> {
        let Some(cluster) = &self.cluster else {
            return Err(Error::new(ErrorKind::Input, "the Clusterfile has no cluster")
                .hint("add a document of `kind: Cluster`; `sealrs gen clusterfile` writes one"));
        };
        let spec = &cluster.spec;
        let mut options = Options {
            members: members(spec, access, secrets)?,
            container_runtime: spec
                .container_runtime
                .as_ref()
                .map(|runtime| runtime.name.value.clone()),
            host_aliases: host_aliases(spec)?,
            configurations: self.configurations()?,
            hooks: self.hooks()?,
            runtime_documents: self.runtime.iter().map(document).collect::<Result<_>>()?,
            ..base
        };
        if let Some(name) = &cluster.metadata.name {
            options.cluster.clone_from(name);
        }
        let mut env = variables(&spec.env);
        env.append(&mut options.env);
        options.env = env;
        if !spec.cmd.is_empty() {
            options.cmds = Some(spec.cmd.clone());
        }
        if let Some(names) = &spec.app_names {
            options.apps = Some(names.iter().filter(|name| !name.is_empty()).cloned().collect());
        }
        if let Some(application) = &self.application {
            launch(&application.spec, &mut options);
        }
        registry(&spec.registry, &mut options)?;
        if let Some(folder) = &spec.data_root {
            options.root = root_of(folder)?;
        }
        Ok(Wanted {
            image: spec.image.clone(),
            options,
        })
    }

    fn configurations(&self) -> Result<Vec<Configuration>> {
        let of_configs = self.configs.iter().map(|config| configuration(&config.spec));
        let of_apps = self.application.iter().flat_map(|application| {
            let configs = application.spec.configs.iter();
            configs.flat_map(|app| {
                app.files.iter().map(|file| Configuration {
                    path: in_app(&app.name.value, &file.path.value),
                    data: file.data.clone(),
                    merge: file.strategy == Strategy::Merge,
                    process: Vec::new(),
                })
            })
        });
        of_configs.chain(of_apps.map(Ok)).collect()
    }

    /// Its hooks.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when one has a phase that is none.
    pub(crate) fn hooks(&self) -> Result<Vec<Hook>> {
        self.plugins.iter().map(hook).collect()
    }
}

fn configuration(spec: &ConfigSpec) -> Result<Configuration> {
    let path = spec.path.value.trim_start_matches('/');
    let process = spec.process.as_ref().map_or("", |process| process.value.as_str());
    Ok(Configuration {
        path: match &spec.app_name {
            Some(app) => in_app(app, path),
            None => path.to_owned(),
        },
        data: spec.data.value.clone(),
        merge: spec.strategy == Strategy::Merge,
        process: words(process).map(process_of).collect::<Result<_>>()?,
    })
}

fn in_app(app: &str, path: &str) -> String {
    format!("application/apps/{app}/{}", path.trim_start_matches('/'))
}

fn process_of(word: &str) -> Result<Process> {
    serde_json::from_value(word.into())
        .map_err(|_| Error::new(ErrorKind::Input, format!("`{}` is no processor", word.escape_debug())))
}

fn hook(plugin: &Named<PluginSpec>) -> Result<Hook> {
    let spec = &plugin.spec;
    let scope = spec.scope.as_ref().map_or("", |scope| scope.value.as_str());
    Ok(Hook {
        name: plugin.metadata.name.clone().unwrap_or_default(),
        phases: words(&spec.action.value)
            .map(str::parse::<Phase>)
            .collect::<Result<_>>()?,
        scope: words(scope).map(str::to_owned).collect(),
        script: spec.data.clone(),
    })
}

/// Words with `|` between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('|').map(str::trim).filter(|word| !word.is_empty())
}

fn document(document: &RuntimeDocument) -> Result<serde_json::Value> {
    serde_saphyr::from_str(&document.text).map_err(|_| {
        Error::new(
            ErrorKind::Input,
            format!("the document of kind `{}` can't be read", document.kind),
        )
    })
}

fn variables(env: &[Spanned<String>]) -> BTreeMap<String, String> {
    let pairs = env.iter().filter_map(|pair| pair.value.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn launch(application: &ApplicationSpec, options: &mut Options) {
    if !application.cmds.is_empty() {
        options.cmds = Some(application.cmds.clone());
    }
    if !application.launch_apps.is_empty() {
        options.apps = Some(application.launch_apps.clone());
    }
    for config in &application.configs {
        let settings = AppSettings {
            env: variables(&config.env),
            launch: config.launch.cmds.clone(),
            delete: config.delete.cmds.clone(),
        };
        if settings != AppSettings::default() {
            options.app_settings.insert(config.name.value.clone(), settings);
        }
    }
}

fn registry(registry: &Registry, options: &mut Options) -> Result<()> {
    if registry.external_registry.is_some() {
        return Err(not_yet("`registry.externalRegistry`"));
    }
    let Some(local) = &registry.local_registry else {
        return Ok(());
    };
    let names = &local.cert.subject_alt_name;
    let wanted = [
        ("username", local.username.is_some() || local.password().is_some()),
        ("insecure", local.insecure == Some(true)),
        (
            "ha",
            local.ha == Some(true)
                && options
                    .members
                    .iter()
                    .filter(|member| member.role == Role::Master)
                    .count()
                    > 1,
        ),
        ("cert", !names.dns_names.is_empty() || !names.ips.is_empty()),
    ];
    if let Some((field, _)) = wanted.into_iter().find(|(_, wanted)| *wanted) {
        return Err(not_yet(&format!("`registry.localRegistry.{field}`")));
    }
    if let Some(domain) = &local.domain {
        options.registry_domain.clone_from(domain);
    }
    if let Some(port) = &local.port {
        options.registry_port = number(&port.value)?;
    }
    Ok(())
}

fn not_yet(what: &str) -> Error {
    Error::new(ErrorKind::Input, format!("{what} is not available yet")).hint("leave it out")
}

fn number(text: &str) -> Result<u16> {
    text.parse()
        .map_err(|_| Error::new(ErrorKind::Input, format!("`{}` is no port", text.escape_debug())))
}

/// What sealrs calls the root has the clusters' data below it.
fn root_of(data: &str) -> Result<PathBuf> {
    let path = Path::new(data);
    match (path.file_name(), path.parent()) {
        (Some(name), Some(root)) if name == "data" && root.parent().is_some() => Ok(root.to_owned()),
        _ => Err(Error::new(
            ErrorKind::Input,
            format!("`dataRoot: {data}` does not end with `/data`"),
        )
        .hint("sealrs keeps its store beside the clusters: write for instance `dataRoot: /srv/sealer/data`")),
    }
}

fn host_aliases(spec: &ClusterSpec) -> Result<Vec<(IpAddr, Vec<String>)>> {
    // An address that is there several times has all the names.
    let mut all: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for alias in &spec.host_aliases {
        all.entry(address(&alias.ip.value)?)
            .or_default()
            .extend(alias.hostnames.clone());
    }
    Ok(all.into_iter().collect())
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| Error::new(ErrorKind::Input, format!("`{}` is no address", text.escape_debug())))
}

/// The hosts, masters first.
fn members(spec: &ClusterSpec, given: &Access, secrets: &Secrets<'_>) -> Result<Vec<Member>> {
    let all = with(given, &spec.ssh, "all hosts", secrets)?;
    let mut members = Vec::new();
    for host in &spec.hosts {
        members.extend(of_host(host, &all, secrets)?);
    }
    members.sort_by_key(|member| member.role);
    Ok(members)
}

fn of_host(host: &Host, all: &Access, secrets: &Secrets<'_>) -> Result<Vec<Member>> {
    let roles: Vec<String> = host.roles.iter().map(|role| role.value.clone()).collect();
    let has = |role: &str| roles.iter().any(|given| given == role);
    let names: Vec<&str> = host.ips.iter().map(|ips| ips.value.as_str()).collect();
    let names = names.join(",");
    let role = match (has("master"), has("node")) {
        (true, _) => Role::Master,
        (false, true) => Role::Node,
        (false, false) => {
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "{names} would be no member of the cluster: its roles are {}",
                    roles.join(", ")
                ),
            )
            .hint("add the role `node` or `master`"));
        }
    };
    let addresses: Addresses = names
        .parse()
        .map_err(|message: String| Error::new(ErrorKind::Input, message))?;
    let access = with(all, &host.ssh, &names, secrets)?;
    let member = |&address| Member {
        roles: roles.clone(),
        env: variables(&host.env),
        labels: host
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.value.clone()))
            .collect(),
        taints: host.taints.iter().map(|taint| taint.value.clone()).collect(),
        ..Member::new(address, role, access.clone())
    };
    Ok(addresses.as_slice().iter().map(member).collect())
}

/// How hosts are reached, with what is said of them in particular.
fn with(base: &Access, ssh: &Ssh, whom: &str, secrets: &Secrets<'_>) -> Result<Access> {
    let mut access = base.clone();
    if let Some(user) = &ssh.user {
        access.user.clone_from(user);
    }
    if let Some(port) = &ssh.port {
        access.port = number(&port.value)?;
    }
    if let Some(key) = &ssh.pk {
        access.identities = vec![secrets.path(key)];
    }
    if let Some(source) = ssh.password() {
        access.password = read(secrets, source, &format!("the password for {whom}"))?;
    }
    if let Some(source) = ssh.passphrase() {
        access.passphrase = read(secrets, source, &format!("the passphrase of the key for {whom}"))?;
    }
    Ok(access)
}

fn read(secrets: &Secrets<'_>, source: SecretSource<'_>, what: &str) -> Result<Option<String>> {
    let secret = secrets.get(Some(source), what)?;
    Ok(secret.map(|secret| secret.reveal().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealrs_image::progress::Silent;

    fn wanted(text: &str) -> Result<Wanted> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
        let secrets = Secrets {
            folder: folder.path(),
            progress: &Silent,
            ask: None,
        };
        Clusterfile::parse("Clusterfile", text)?.wanted(Options::default(), &Access::default(), &secrets)
    }

    const CLUSTER: &str = "\
apiVersion: sealer.io/v2
kind: Cluster
metadata: {name: edge}
spec:
  image: k3s.tar
  env: [A=1, B=2, A=3]
  ssh: {user: admin, passwdFile: password, port: 2222}
  hostAliases: [{ip: 10.9.0.1, hostnames: [db, db.local]}]
  registry: {localRegistry: {domain: hub.local, port: 5001}}
  dataRoot: /srv/sealer/data
  hosts:
    - {roles: [node, gpu], ips: [10.0.0.7-10.0.0.8], labels: {zone: a}, taints: ['gpu=1:NoSchedule'], env: [B=4], ssh: {user: root, port: 22}}
    - {roles: [master], ips: [10.0.0.1]}
";

    #[test]
    fn hosts_are_reached_as_they_and_then_as_all_say() {
        let Wanted { image, options } = wanted(CLUSTER).unwrap();
        assert_eq!(image.as_deref(), Some("k3s.tar"));
        let addresses: Vec<String> = options
            .members
            .iter()
            .map(|member| member.address.to_string())
            .collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.7", "10.0.0.8"]);
        let [master, node, _] = options.members.as_slice() else {
            panic!("three hosts")
        };
        assert_eq!((master.access.user.as_str(), master.access.port), ("admin", 2222));
        assert_eq!((node.access.user.as_str(), node.access.port), ("root", 22));
        assert_eq!(node.access.password.as_deref(), Some("hunter2"));
        assert_eq!(node.roles, ["node", "gpu"]);
        assert_eq!(node.labels["zone"], "a");
        assert_eq!(node.taints, ["gpu=1:NoSchedule"]);
        assert_eq!(options.env["A"], "3");
        assert_eq!(options.registry_url(), "hub.local:5001");
        assert_eq!(
            (options.cluster.as_str(), options.root.as_path()),
            ("edge", Path::new("/srv/sealer"))
        );
        assert_eq!(options.host_aliases[0].1, ["db", "db.local"]);
        options.validate().unwrap();
    }

    #[test]
    fn other_documents_come_along() {
        let text = format!(
            "{CLUSTER}---\napiVersion: sealer.io/v1\nkind: Config\nmetadata: {{name: c}}\nspec: {{path: values.yaml, appName: web, \
             strategy: merge, process: value|toBase64|toSecret, data: 'a: b'}}\n---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: \
             {{name: p}}\nspec: {{type: SHELL, action: pre-init-host|post-install, scope: gpu, data: nvidia-smi}}\n---\napiVersion: \
             sealer.io/v2\nkind: K3sConfig\nspec: {{server: {{disable: [traefik]}}}}\n"
        );
        let options = wanted(&text).unwrap().options;
        let [configuration] = options.configurations.as_slice() else {
            panic!("one")
        };
        assert_eq!(configuration.path, "application/apps/web/values.yaml");
        assert_eq!(
            configuration.process,
            [Process::Value, Process::ToBase64, Process::ToSecret]
        );
        assert_eq!(options.hooks[0].phases, [Phase::PreInitHost, Phase::PostInstall]);
        assert_eq!(options.runtime_documents[0]["kind"], "K3sConfig");
        options.validate().unwrap();
        let nowhere = text.replace("scope: gpu", "scope: storage");
        assert!(wanted(&nowhere).unwrap().options.validate().is_err());
    }

    #[test]
    fn what_can_t_be_is_refused() {
        for (from, to, says) in [
            (
                "dataRoot: /srv/sealer/data",
                "dataRoot: /srv/x",
                "does not end with `/data`",
            ),
            ("roles: [node, gpu]", "roles: [gpu]", "would be no member"),
            (
                "password, port",
                "nothing, port",
                "cannot read the password for all hosts",
            ),
        ] {
            let error = wanted(&CLUSTER.replace(from, to)).unwrap_err();
            assert!(format!("{error:?}").contains(says), "{error:?}");
        }
    }
}
