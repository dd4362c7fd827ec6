//! Which lines of a Clusterfile are not shown, because a secret stands in them.

use std::collections::BTreeSet;

use super::tree::{Content, Node, entries, lines_of, written};

const WORDS: [&str; 5] = ["passw", "passphrase", "secret", "token", "credential"];
/// What follows a word where the secret itself is elsewhere.
const ELSEWHERE: [&str; 5] = ["file", "env", "path", "dir", "name"];

/// Whether a field or variable of this name holds a secret.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let key = name == "key"
        || ["_key", "-key", "apikey", "accesskey"]
            .iter()
            .any(|end| name.ends_with(end));
    let word = WORDS.iter().any(|word| name.contains(word));
    (key || word) && !ELSEWHERE.iter().any(|end| name.ends_with(end))
}

/// Whether a line may hold a secret. It may be of a file that is no YAML.
pub(super) fn may_hold(line: &str) -> bool {
    let line = line.to_lowercase();
    let words = line.split(|letter: char| !(letter.is_alphanumeric() || "-_".contains(letter)));
    words.into_iter().any(is_secret)
}

/// Adds the lines of all values whose names are those of secrets.
pub(super) fn collect(node: &Node, text: &str, lines: &mut BTreeSet<u64>) {
    match &node.value {
        Content::List(items) => items.iter().for_each(|item| collect(item, text, lines)),
        Content::Map(_) => {
            for (key, value) in entries(node) {
                if is_secret(&key.value) {
                    all(value, text, lines);
                } else {
                    collect(value, text, lines);
                }
            }
        }
        _ => {
            let scalar = written(node, text).unwrap_or_default();
            if scalar.split_once('=').is_some_and(|(name, _)| is_secret(name)) {
                all(node, text, lines);
            }
        }
    }
}

fn all(node: &Node, text: &str, lines: &mut BTreeSet<u64>) {
    match &node.value {
        Content::List(items) => items.iter().for_each(|item| all(item, text, lines)),
        Content::Map(fields) => fields.iter().for_each(|(_, value)| all(value, text, lines)),
        _ => {
            let count = lines_of(node, text).map_or(1, |written| written.lines().count().max(1));
            let first = node.defined.line();
            // The marker of a block (`|`) is a line of its own.
            lines.extend(first..=first.saturating_add(count as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "passwd",
            "DB_PASSWORD",
            "pkPasswd",
            "TOKEN",
            "agent-token",
            "S3_SECRET",
            "KEY",
            "ACCESS_KEY",
            "etcd-s3-access-key",
            "apiKey",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "passwdFile",
            "passwdEnv",
            "TOKEN_FILE",
            "pk",
            "keyboard",
            "monkey",
            "secretName",
            "env",
        ] {
            assert!(!is_secret(name), "{name}");
        }
        assert!(may_hold("  - TOKEN=abc") && may_hold("ssh: {user: root, passwd: x}"));
        assert!(!may_hold("  passwdFile: x") && !may_hold("  image: a"));
    }
}
