//! Who listens on which TCP port, read from /proc: an error that names the process saves a search.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// A TCP port that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The name and number of the process, if it can be seen: `k3s (1234)`.
    pub process: Option<String>,
}

/// Those of `ports` that somebody listens on.
pub(super) fn listeners(ports: &[u16]) -> Vec<Listener> {
    let mut taken = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for (port, inode) in parse(&fs::read_to_string(table).unwrap_or_default()) {
            if ports.contains(&port) {
                taken.entry(port).or_insert(inode);
            }
        }
    }
    if taken.is_empty() {
        return Vec::new();
    }
    let owners = owners();
    taken
        .into_iter()
        .map(|(port, inode)| Listener {
            port,
            process: owners.get(&inode).cloned(),
        })
        .collect()
}

/// Ports and inodes of the sockets that listen (state 0A).
fn parse(table: &str) -> Vec<(u16, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if *fields.get(3)? != "0A" {
                return None;
            }
            let (_, port) = fields.get(1)?.rsplit_once(':')?;
            Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
        })
        .collect()
}

/// Processes by the inodes of their sockets.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name();
        let Some(id) = id.to_str().filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let inode = fs::read_link(descriptor.path()).ok().and_then(|target| {
                let target = target.to_str()?.to_owned();
                target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(inode) = inode {
                owners.entry(inode).or_insert_with(|| {
                    let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                    format!("{} ({id})", name.trim())
                });
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn names_who_listens() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listeners(&[port]);
        let id = std::process::id();
        assert_eq!(found.len(), 1);
        assert!(found[0].process.as_deref().unwrap().ends_with(&format!("({id})")));
        drop(socket);
        assert!(listeners(&[port]).is_empty());
    }
}
