//! A Clusterfile to begin with: what the user gave, and all else as comments.

use std::fmt::Write as _;
use std::net::IpAddr;

use sealrs_image::error::{Error, ErrorKind, Result};
use serde_json::Value;

use super::Clusterfile;
use super::addresses::Addresses;
use super::hidden::is_secret;

/// What the user gave.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// The cluster's name.
    pub cluster: String,
    /// The ClusterImage.
    pub image: Option<String>,
    /// Addresses and ranges of the masters.
    pub masters: String,
    /// Addresses and ranges of the nodes.
    pub nodes: Option<String>,
    /// The user on the hosts.
    pub user: Option<String>,
    /// The port of SSH.
    pub port: Option<u16>,
    /// The file of the private key.
    pub pk: Option<String>,
    /// Where secrets are: `passwdEnv`, `passwdFile`, `pkPasswdEnv` and `pkPasswdFile` with their values.
    pub secrets: Vec<(&'static str, String)>,
    /// Variables.
    pub env: Vec<(String, String)>,
}

impl Draft {
    /// The Clusterfile, and what may be wrong with it. In it, a `#` right before a word hides a field, and one with a space
    /// begins a comment.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when what was given makes no cluster, or would put a secret into the file.
    pub fn text(&self) -> Result<(String, Clusterfile)> {
        let masters = addresses("--masters", &self.masters)?;
        if let Some(nodes) = &self.nodes {
            let nodes = addresses("--nodes", nodes)?;
            if let Some(both) = nodes.iter().find(|node| masters.contains(node)) {
                let what = format!("{both} is in `--masters` and in `--nodes`");
                return Err(Error::new(ErrorKind::Input, what).hint("name each host once"));
            }
        }
        if let Some((name, _)) = self
            .env
            .iter()
            .find(|(name, value)| is_secret(name) && !value.is_empty())
        {
            let what = format!("`{name}` looks like a secret, and a Clusterfile is no place for one");
            let hint =
                format!("leave it out here, and give `-e {name}` to `sealrs run`, with the value in the environment");
            return Err(Error::new(ErrorKind::Input, what).hint(hint));
        }
        let text = self.written();
        let clusterfile = Clusterfile::parse("the Clusterfile", &text)?;
        Ok((text, clusterfile))
    }

    fn written(&self) -> String {
        let mut text = format!("{}  name: {}\nspec:\n", HEAD, quoted(&self.cluster));
        text.push_str("  # The ClusterImage: a name in the store or in a registry, or an archive file.\n");
        match &self.image {
            Some(image) => field(&mut text, 2, "image", image),
            None => text.push_str("  #image: registry.example.com/edge/k3s:v1\n"),
        }
        text.push_str(
            "  # Variables for scripts, templates and commands. Secrets are given to the command: `-e NAME`.\n",
        );
        match self.env.is_empty() {
            true => text.push_str("  #env: [NAME=VALUE]\n"),
            false => {
                text.push_str("  env:\n");
                for (name, value) in &self.env {
                    item(&mut text, 4, &format!("{name}={value}"));
                }
            }
        }
        text.push_str("  # Each host once. Addresses are single ones or ranges: `10.0.0.4-10.0.0.40`.\n  hosts:\n");
        self.hosts(&mut text, "master", &self.masters, MASTER);
        if let Some(nodes) = &self.nodes {
            self.hosts(&mut text, "node", nodes, NODE);
        }
        self.ssh(&mut text);
        text.push_str(REST);
        text
    }

    fn hosts(&self, text: &mut String, role: &str, ips: &str, more: &str) {
        let _ = writeln!(text, "    - roles: [{role}]\n      ips:");
        for ip in ips.split(',').map(str::trim) {
            item(text, 8, ip);
        }
        text.push_str(more);
    }

    fn ssh(&self, text: &mut String) {
        text.push_str(
            "  # How all hosts are reached. Passwords stay in files or variables: `passwdFile`, `passwdEnv`.\n  ssh:\n",
        );
        field(text, 4, "user", self.user.as_deref().unwrap_or("root"));
        field(text, 4, "port", &self.port.unwrap_or(22).to_string());
        match &self.pk {
            Some(pk) => field(text, 4, "pk", pk),
            None => text.push_str("    #pk: ~/.ssh/id_ed25519\n"),
        }
        for (name, value) in &self.secrets {
            field(text, 4, name, value);
        }
        for (sort, examples) in [("passwd", PASSWORD), ("pkPasswd", PASSPHRASE)] {
            if !self.secrets.iter().any(|(name, _)| name.starts_with(sort)) {
                text.push_str(examples);
            }
        }
    }
}

const HEAD: &str = "\
# What a cluster shall be, as sealrs reads it. Check it with `sealrs lint`.
# A `#` right before a word hides a field that may be set.
apiVersion: sealer.io/v2
kind: Cluster
metadata:
";
const MASTER: &str = "      #taints: [node-role.kubernetes.io/control-plane:NoSchedule]\n";
const NODE: &str = "      # Over the cluster's variables and access, for these hosts only.
      #env: [DISK=/dev/sdb]
      #labels: {zone: a}
      #ssh: {port: 2222}
";
const PASSWORD: &str = "    # A file, or as `passwdEnv` a variable.\n    #passwdFile: ~/.sealrs-password\n";
const PASSPHRASE: &str = "    # That of the key, also as `pkPasswdFile`.\n    #pkPasswdEnv: KEY_PASSPHRASE\n";
const REST: &str = "  # What to start at the end instead of what the image says: apps, or commands.
  #appNames: [app]
  #cmd: [kubectl get nodes]
  # What runs containers, where the cluster runtime brings none: containerd or docker.
  #containerRuntime: {type: containerd}
  # Lines for /etc/hosts of all hosts.
  #hostAliases:
    #- {ip: 10.0.0.100, hostnames: [storage.example.com]}
  # Where the container images come from: a registry on the masters, or one that is there.
  #registry:
    #localRegistry:
      #domain: sea.hub
      #port: 5000
      # On all masters, not only on the first.
      #ha: true
      #insecure: false
      # Who may use it; `passwordEnv` is the variable with the password.
      #username: admin
      #passwordFile: ~/.sealrs-registry-password
      #cert: {subjectAltName: {dnsNames: [registry.example.com], ips: [10.0.0.100]}}
    #externalRegistry:
      #domain: registry.example.com
      #port: 443
      #username: admin
      #passwordEnv: REGISTRY_PASSWORD
  # The folder of the cluster's data on hosts.
  #dataRoot: /var/lib/sealer/data

# Settings of k3s, over the image's.
#---
#apiVersion: sealer.io/v2
#kind: K3sConfig
#spec:
  #server: {disable: [traefik], tls-san: [cluster.example.com]}
  #agent: {kubelet-arg: [max-pods=200]}

# A file that is written into the rootfs.
#---
#apiVersion: sealer.io/v1
#kind: Config
#metadata: {name: app}
#spec:
  #path: etc/app.yaml
  # Into the file (`merge`) or instead of it (`overwrite`).
  #strategy: merge
  #data: |
    #replicas: 3

# A script that runs at a point of the installation.
#---
#apiVersion: sealer.io/v1
#kind: Plugin
#metadata: {name: disks}
#spec:
  #type: SHELL
  #action: pre-init-host
  #scope: master
  #data: lsblk

# Which apps are launched, and how.
#---
#apiVersion: sealer.io/v2
#kind: Application
#metadata: {name: apps}
#spec:
  #launchApps: [app]
  #configs:
    #- {name: app, env: [REPLICAS=3]}
";

fn addresses(flag: &str, text: &str) -> Result<Vec<IpAddr>> {
    let parsed = text.parse::<Addresses>().map_err(|why| {
        Error::new(
            ErrorKind::Input,
            format!("`{flag} {}` names no hosts", text.escape_debug()),
        )
        .because(Error::new(ErrorKind::Input, why))
        .hint("write addresses and ranges of them: `10.0.0.1,10.0.0.4-10.0.0.40`")
    })?;
    Ok(parsed.as_slice().to_vec())
}

fn field(text: &mut String, indent: usize, name: &str, value: &str) {
    let _ = writeln!(text, "{:indent$}{name}: {}", "", quoted(value));
}

fn item(text: &mut String, indent: usize, value: &str) {
    let _ = writeln!(text, "{:indent$}- {}", "", quoted(value));
}

/// In double quotes every parser reads it the same way.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::schema::schema;
    use super::*;

    fn draft() -> Draft {
        Draft {
            cluster: "my-cluster".to_owned(),
            masters: "10.0.0.1, 10.0.0.2-3".to_owned(),
            ..Draft::default()
        }
    }

    /// Without the `#` that hide fields.
    fn uncovered(text: &str) -> String {
        let line = |line: &str| match line.trim_start().strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => line.replacen('#', "", 1) + "\n",
            _ => line.to_owned() + "\n",
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn what_is_written_is_right_with_and_without_its_comments() {
        let full = Draft {
            image: Some("k3s: \"v1\" # x".to_owned()),
            nodes: Some("10.0.0.4-10.0.0.40".to_owned()),
            user: Some("yes".to_owned()),
            port: Some(2222),
            pk: Some("~/.ssh/id: x".to_owned()),
            secrets: vec![
                ("passwdEnv", "SSH_PASSWORD".to_owned()),
                ("pkPasswdFile", "p".to_owned()),
            ],
            env: vec![("A".to_owned(), "b: c\n#d".to_owned())],
            ..draft()
        };
        for draft in [draft(), full.clone()] {
            let (text, clusterfile) = draft.text().unwrap();
            assert_eq!(clusterfile.warnings, [], "{text}");
            assert!(text.contains("\n  # What to start"), "{text}");
            let open = uncovered(&text);
            // The values given by the user have no `#` at the start of a line.
            let clusterfile = Clusterfile::parse("open", &open).unwrap_or_else(|error| panic!("{error:?}\n{open}"));
            assert_eq!(
                clusterfile.plugins.len() + clusterfile.configs.len() + clusterfile.runtime.len(),
                3
            );
            assert_eq!(clusterfile.warnings, [], "{open}");
        }
        let (_, clusterfile) = full.text().unwrap();
        let spec = clusterfile.cluster.unwrap().spec;
        assert_eq!(spec.image, full.image);
        assert_eq!(spec.ssh.user.as_deref(), Some("yes"));
        assert_eq!(spec.env[0].value, "A=b: c\n#d");
        assert_eq!(spec.hosts[0].ips[1].value, "10.0.0.2-3");
    }

    #[test]
    fn every_field_is_shown() {
        let text = Draft {
            nodes: Some("10.0.0.9".to_owned()),
            ..draft()
        };
        let text = text.text().unwrap().0;
        let schema = schema();
        let skipped = ["cmd_args", "encrypted", "passwd", "pkPasswd", "password"];
        for kind in ["ClusterSpec", "Host", "Ssh", "LocalRegistry", "ExternalRegistry"] {
            for name in schema["definitions"][kind]["properties"].as_object().unwrap().keys() {
                let shown = [format!("{name}:"), format!("`{name}`")]
                    .iter()
                    .any(|form| text.contains(form));
                assert!(shown || skipped.contains(&name.as_str()), "{kind}: {name}");
            }
        }
    }

    #[test]
    fn nothing_wrong_and_nothing_secret_is_written() {
        let told = |draft: Draft| format!("{:?}", draft.text().unwrap_err());
        let masters = |masters: &str| Draft {
            masters: masters.to_owned(),
            ..draft()
        };
        let text = Draft {
            nodes: Some("10.0.0.9".to_owned()),
            ..draft()
        };
        let text = text.text().unwrap().0;
        assert!(text.contains("\n      # Over the cluster's"), "{text}");
        assert!(told(masters("10.0.0")).contains("`--masters 10.0.0` names no hosts"));
        assert!(told(masters("")).contains("an address is missing"));
        let nodes = Some("10.0.0.3-9".to_owned());
        assert!(told(Draft { nodes, ..draft() }).contains("10.0.0.3 is in `--masters` and in `--nodes`"));
        let nodes = Some("fd00::1".to_owned());
        assert!(told(Draft { nodes, ..draft() }).contains("not of the same family"));
        let env = vec![("DB_PASSWORD".to_owned(), "hunter2".to_owned())];
        let error = told(Draft { env, ..draft() });
        assert!(
            error.contains("-e DB_PASSWORD") && !error.contains("hunter2"),
            "{error}"
        );
        assert_eq!(masters("10.0.0.1,10.0.0.2").text().unwrap().1.warnings.len(), 1);
    }
}
