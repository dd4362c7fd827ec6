//! What pod networks leave on a host: namespaces, interfaces and firewall chains. Rules of others are never touched:
//! chains are taken out one by one, not by writing the whole table anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use sealrs_image::error::Result;

use crate::execute::NAMESPACES;
use crate::{command, files};

const LIMIT: Duration = Duration::from_secs(60);

/// Removes the named network namespaces that came since. Virtual cables into them go with them. Where nobody had any
/// before (`alone`), their folder, which is mounted onto itself, is unmounted when it is empty.
pub(super) fn remove_namespaces(prefix: &str, kept: &[String], alone: bool) -> Result<Option<String>> {
    let mut count = 0;
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(prefix) || kept.contains(&name) {
            continue;
        }
        // One that is no mount any more is a plain file.
        let _ = unmount(entry.path(), UnmountFlags::DETACH);
        files::remove_file(&entry.path())?;
        count += 1;
    }
    let is_empty = std::fs::read_dir(NAMESPACES).is_ok_and(|mut names| names.next().is_none());
    if alone && is_empty {
        let folder = Path::new(NAMESPACES);
        let mounts = files::mounts()?.into_iter().filter(|mount| mount == folder).count();
        for _ in 0..mounts {
            let _ = unmount(folder, UnmountFlags::DETACH);
        }
    }
    Ok((count > 0).then(|| format!("removed {count} network namespaces")))
}

/// Removes interfaces.
pub(super) fn remove_interfaces(names: &[String]) -> Result<Option<String>> {
    let mut removed = Vec::new();
    for name in names {
        if !Path::new("/sys/class/net").join(name).exists() {
            continue;
        }
        command::run(&["ip", "link", "delete", name], LIMIT)?
            .checked(|| format!("cannot remove the network interface {name}"))?;
        removed.push(name.as_str());
    }
    Ok((!removed.is_empty()).then(|| format!("removed the interfaces {}", removed.join(", "))))
}

const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

fn run(program: String, arguments: &[&str], input: Option<&[u8]>, programs: &[PathBuf]) -> Result<command::Finished> {
    let mut argv = vec![program];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    // The host's own programs come first: they know in which form the rules lie.
    let mut prepared = command::prepare(&argv, &BTreeMap::new(), &[])?;
    let mut path = command::search_path(&[]);
    for folder in programs {
        path.push(":");
        path.push(folder);
    }
    prepared.env("PATH", path);
    command::output(prepared, input, LIMIT)
}

/// What [`remove_rules`] would remove now: chains by their names, and rules as `iptables-save` prints them.
pub(crate) fn rules_and_chains(prefixes: &[String], programs: &[PathBuf]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in FAMILIES {
        let Ok(saved) = run(format!("{family}-save"), &[], None, programs) else {
            continue;
        };
        found.extend(to_remove(&saved.stdout, prefixes));
    }
    found
}

fn to_remove(saved: &str, prefixes: &[String]) -> BTreeSet<String> {
    let (script, _) = removal_script(saved, prefixes, &BTreeSet::new());
    let names = |line: &str| {
        ["-D ", "-X "]
            .iter()
            .find_map(|command| line.strip_prefix(command))
            .map(str::to_owned)
    };
    script.lines().filter_map(names).collect()
}

/// Removes chains whose name starts so, with the rules that use them, but for what was there before.
pub(super) fn remove_rules(
    prefixes: &[String],
    programs: &[PathBuf],
    kept: &BTreeSet<String>,
) -> Result<Option<String>> {
    let mut count = 0;
    for family in FAMILIES {
        // A host without the program has no such rules, or no way to see them.
        let Ok(saved) = run(format!("{family}-save"), &[], None, programs) else {
            continue;
        };
        let (script, rules) = removal_script(&saved.stdout, prefixes, kept);
        if rules == 0 {
            continue;
        }
        run(
            format!("{family}-restore"),
            &["--noflush"],
            Some(script.as_bytes()),
            programs,
        )?
        .checked(|| format!("cannot remove {rules} rules from {family}"))?;
        count += rules;
    }
    Ok((count > 0).then(|| format!("removed {count} firewall rules and chains")))
}

/// From what `iptables-save` printed, what `iptables-restore --noflush` has to read to remove the chains and the rules
/// that use or name them; and how many lines that is.
fn removal_script(saved: &str, prefixes: &[String], kept: &BTreeSet<String>) -> (String, usize) {
    let is_ours =
        |chain: &str| prefixes.iter().any(|prefix| chain.starts_with(prefix.as_str())) && !kept.contains(chain);
    let mut script = String::new();
    let mut count = 0;
    for table in saved.split("COMMIT").filter(|table| table.contains('*')) {
        let name = table.lines().find_map(|line| line.strip_prefix('*'));
        let Some(name) = name else { continue };
        let mut chains = BTreeSet::new();
        let mut rules = Vec::new();
        for line in table.lines() {
            if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
                if is_ours(chain) {
                    chains.insert(chain);
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let chain = rule.split(' ').next().unwrap_or_default();
                if !is_ours(chain) && names_ours(rule, &is_ours) && !kept.contains(rule) {
                    rules.push(rule);
                }
            }
        }
        if chains.is_empty() && rules.is_empty() {
            continue;
        }
        count += chains.len() + rules.len();
        script.push_str(&format!("*{name}\n"));
        for rule in rules {
            script.push_str(&format!("-D {rule}\n"));
        }
        // All are emptied before one goes, as they use one another.
        for command in ["-F", "-X"] {
            for chain in &chains {
                script.push_str(&format!("{command} {chain}\n"));
            }
        }
        script.push_str("COMMIT\n");
    }
    (script, count)
}

/// Whether a rule jumps to one of our chains, or was made by flannel, which says so in a comment.
fn names_ours(rule: &str, is_ours: &dyn Fn(&str) -> bool) -> bool {
    let words: Vec<&str> = rule.split(' ').collect();
    let jumps = words.windows(2).any(|pair| match pair {
        ["-j" | "-g", chain] => is_ours(chain),
        _ => false,
    });
    jumps || rule.contains("flanneld")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_its_own_chains_only() {
        let saved = "# Generated by iptables-save\n\
            *nat\n\
            :PREROUTING ACCEPT [0:0]\n\
            :DOCKER - [0:0]\n\
            :KUBE-SERVICES - [0:0]\n\
            :KUBE-SVC-X - [0:0]\n\
            :CNI-abc - [0:0]\n\
            -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            -A POSTROUTING -s 10.42.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN\n\
            -A KUBE-SERVICES -d 10.43.0.1/32 -j KUBE-SVC-X\n\
            COMMIT\n\
            # Completed\n\
            *filter\n\
            :INPUT ACCEPT [0:0]\n\
            -A INPUT -p tcp --dport 22 -j ACCEPT\n\
            COMMIT\n";
        let prefixes = ["KUBE-".to_owned(), "CNI-".to_owned()];
        let (script, count) = removal_script(saved, &prefixes, &BTreeSet::new());
        assert_eq!(
            script,
            "*nat\n\
             -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -D POSTROUTING -s 10.42.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN\n\
             -F CNI-abc\n-F KUBE-SERVICES\n-F KUBE-SVC-X\n\
             -X CNI-abc\n-X KUBE-SERVICES\n-X KUBE-SVC-X\n\
             COMMIT\n"
        );
        assert_eq!(count, 5);
        assert_eq!(removal_script("", &prefixes, &BTreeSet::new()), (String::new(), 0));
        // What was there before all of this stays.
        let kept = to_remove(saved, &prefixes);
        assert_eq!(removal_script(saved, &prefixes, &kept), (String::new(), 0));
        let kept = to_remove(&saved.replace("KUBE-", "OTHER-"), &prefixes);
        let (script, _) = removal_script(saved, &prefixes, &kept);
        assert!(script.contains("-X KUBE-SERVICES") && !script.contains("CNI-abc") && !script.contains("flanneld"));
    }
}
