//! How hosts are reached: flags that all commands with hosts share.

use std::path::PathBuf;

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_installer::host::HostKeyPolicy;
use sealrs_installer::member::{self, Jump};

/// How hosts are reached over SSH. Passwords are read from files, from the environment or from the terminal: what is on a
/// command line is seen by all.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub(crate) struct Access {
    /// User on the hosts. One who is not root needs sudo.
    #[arg(short, long, value_name = "NAME", default_value = "root")]
    user: String,

    /// Port of the hosts' SSH servers.
    #[arg(long, alias = "port", value_name = "PORT", default_value_t = 22)]
    ssh_port: u16,

    /// Private key for the hosts, besides the keys of the SSH agent. May be given several times.
    #[arg(short = 'i', long = "pk", alias = "identity", value_name = "FILE")]
    pk: Vec<PathBuf>,

    #[command(flatten)]
    secrets: Secrets,

    /// Host on the way to the hosts. May be given several times, the nearest first.
    #[arg(long = "jump", value_name = "[USER@]HOST[:PORT]", value_parser = jump)]
    jumps: Vec<Jump>,

    /// What is done with the key that a host shows: `strict` takes known keys alone, `accept-new` also those of hosts that
    /// are not known, `off` any.
    #[arg(long, value_name = "POLICY", default_value = "accept-new", value_parser = policy)]
    host_key_policy: HostKeyPolicy,

    /// File with the keys of known hosts [default: ~/.ssh/known_hosts].
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
}

impl Access {
    /// With the secrets read.
    pub(crate) fn read(self) -> Result<member::Access> {
        Ok(member::Access {
            user: self.user,
            port: self.ssh_port,
            identities: self.pk,
            jumps: self.jumps,
            host_keys: self.host_key_policy,
            known_hosts: self.known_hosts,
            ..self.secrets.read()?
        })
    }
}

/// The secrets with which hosts are reached. Where a cluster's hosts are known, they are all that is missing.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub(crate) struct Secrets {
    /// File with the key's passphrase.
    #[arg(long, value_name = "FILE")]
    pk_passwd_file: Option<PathBuf>,

    /// File with the user's password.
    #[arg(long, value_name = "FILE")]
    passwd_file: Option<PathBuf>,

    /// File with the password for sudo, where it is not the user's.
    #[arg(long, value_name = "FILE")]
    sudo_passwd_file: Option<PathBuf>,

    /// Ask for the user's password.
    #[arg(long, conflicts_with = "passwd_file")]
    ask_passwd: bool,
}

impl Secrets {
    /// Reads them.
    pub(crate) fn read(self) -> Result<member::Access> {
        let password = if self.ask_passwd {
            let asked = rpassword::prompt_password("Password of the user on the hosts: ");
            Some(asked.or_io(|| "cannot ask for a password")?)
        } else {
            secret(self.passwd_file, "SEALRS_PASSWD")?
        };
        Ok(member::Access {
            password,
            passphrase: secret(self.pk_passwd_file, "SEALRS_PK_PASSWD")?,
            sudo_password: secret(self.sudo_passwd_file, "SEALRS_SUDO_PASSWD")?,
            ..member::Access::default()
        })
    }
}

/// A secret from a file, or else from the environment.
fn secret(file: Option<PathBuf>, variable: &str) -> Result<Option<String>> {
    let Some(file) = file else {
        return Ok(std::env::var(variable).ok().filter(|value| !value.is_empty()));
    };
    let text = std::fs::read_to_string(&file).or_read(|| format!("cannot read {}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Error::new(ErrorKind::Input, format!("{} is empty", file.display()))
            .hint("put the password into its first line"));
    }
    Ok(Some(text.to_owned()))
}

fn policy(text: &str) -> Result<HostKeyPolicy, String> {
    text.parse().map_err(|_| "use strict, accept-new or off".to_owned())
}

/// `[USER@]HOST[:PORT]`, with an IPv6 address in brackets.
fn jump(text: &str) -> Result<Jump, String> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, text),
    };
    let bad = || format!("`{text}` is not [USER@]HOST[:PORT]");
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() || user.as_ref().is_some_and(String::is_empty) {
        return Err(bad());
    }
    let port = port.map_or(Ok(22), str::parse).map_err(|_| bad())?;
    Ok(Jump {
        user,
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_jump_hosts() {
        let read = |text: &str| jump(text).map(|jump| (jump.user, jump.host, jump.port));
        assert_eq!(read("gate"), Ok((None, "gate".into(), 22)));
        assert_eq!(read("me@gate:2222"), Ok((Some("me".into()), "gate".into(), 2222)));
        assert_eq!(read("[fd00::1]:23"), Ok((None, "fd00::1".into(), 23)));
        for bad in ["", "@gate", "gate:x", "[fd00::1", "gate:99999"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
