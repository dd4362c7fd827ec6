//! Looks for lines that are known in the log of a runtime's service.

use super::Diagnosis;

/// A line that is known.
pub(super) struct Known {
    /// Parts that are all in the line.
    parts: &'static [&'static str],
    cause: &'static str,
    remedy: &'static str,
    /// The service tries again for ever, or ends: waiting can't help.
    hopeless: bool,
}

pub(super) const fn hopeless(parts: &'static [&'static str], cause: &'static str, remedy: &'static str) -> Known {
    Known {
        parts,
        cause,
        remedy,
        hopeless: true,
    }
}

pub(super) const fn perhaps(parts: &'static [&'static str], cause: &'static str, remedy: &'static str) -> Known {
    Known {
        parts,
        cause,
        remedy,
        hopeless: false,
    }
}

/// What a log means, by these lines: the first one that is found counts, hopeless ones before others.
pub(super) fn diagnose(log: &str, known: &[Known]) -> Option<Diagnosis> {
    let find = |wanted: bool| {
        known
            .iter()
            .filter(move |known| known.hopeless == wanted)
            .find_map(|known| {
                let has_all = |line: &&str| known.parts.iter().all(|part| line.contains(part));
                let line = log.lines().rfind(has_all)?;
                Some(Diagnosis {
                    cause: format!("{}: {}", known.cause, shorten(line.trim())),
                    remedy: known.remedy.to_owned(),
                    hopeless: known.hopeless,
                })
            })
    };
    find(true).or_else(|| find(false))
}

/// A line without its time and level, cut where nobody would read on.
pub(super) fn shorten(line: &str) -> String {
    let message = line
        .split_once(" msg=")
        .map_or(line, |(_, message)| message)
        .trim_matches('"')
        .replace("\\\"", "\"");
    let mut short: String = message.chars().take(300).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}
