//! What has to be known of a host before anything is put on it.

use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind, Result};

use super::{Command, Output};

/// What a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// As `uname -m` says: `x86_64`, `aarch64`.
    pub machine: String,
    /// The user programs run as.
    pub uid: u32,
    /// A folder that a program can be put into and started from, if there is one.
    pub folder: Option<String>,
}

/// /tmp comes late: it is `noexec` on many hosts. /usr/local may be read-only. Whether a folder does is tried, with a
/// file that is removed.
const LOOK: &str = r#"uname -m; id -u
for folder in /var/lib /opt /usr/local/bin "$HOME" /var/tmp /tmp /run; do
  try=$(mktemp -d "$folder/.sealrs.XXXXXX" 2>/dev/null) || continue
  printf '#!/bin/sh\nexit 0\n' >"$try/run" 2>/dev/null && chmod 700 "$try/run" && "$try/run" 2>/dev/null; works=$?
  rm -rf "$try"
  [ $works = 0 ] && { printf '%s\n' "$folder"; break; }
done
exit 0"#;

pub(super) fn command() -> Command {
    Command::new("sh").args(["-c", LOOK]).limit(Duration::from_secs(30))
}

pub(super) fn parse(output: &Output) -> Result<HostFacts> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let facts = lines.next().zip(lines.next().and_then(|uid| uid.parse().ok()));
    let (machine, uid) = facts.ok_or_else(|| {
        Error::new(ErrorKind::Step, format!("the host answers {text:?} to uname and id"))
            .hint("see that the user's shell prints nothing by itself when it is not interactive")
    })?;
    Ok(HostFacts {
        machine: machine.to_owned(),
        uid,
        folder: lines.next().map(str::to_owned),
    })
}
