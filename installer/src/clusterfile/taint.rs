//! A taint of a node: `key=value:Effect`, `key:Effect`; with `-` behind it is taken away.

use std::str::FromStr;

use sealrs_image::suggest::nearest;

use super::label;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A taint that a node gets or loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, may be empty.
    pub value: String,
    /// What it does; none takes all taints of the key away.
    pub effect: Option<String>,
    /// Whether it is taken away.
    pub removed: bool,
}

impl FromStr for Taint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // No key, value or effect ends with `-`.
        let (rest, removed) = match text.strip_suffix('-') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (pair, effect) = match rest.split_once(':') {
            Some((pair, effect)) => (pair, Some(effect)),
            None => (rest, None),
        };
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        label::key(key)?;
        label::value(value)?;
        match effect {
            None if !removed => {
                return Err(format!(
                    "`{text}` has no effect: write for instance `{text}:NoSchedule`"
                ));
            }
            Some(effect) if !EFFECTS.contains(&effect) => {
                let meant = nearest(effect, EFFECTS).map_or_else(
                    || format!("known are {}", EFFECTS.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(format!("`{effect}` is no effect: {meant}"));
            }
            _ => {}
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: effect.map(str::to_owned),
            removed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        for (text, key, value, effect, removed) in [
            ("k=v:NoSchedule", "k", "v", Some("NoSchedule"), false),
            ("a-b:NoExecute", "a-b", "", Some("NoExecute"), false),
            ("k=:PreferNoSchedule", "k", "", Some("PreferNoSchedule"), false),
            ("a-b-", "a-b", "", None, true),
            ("x.io/a-b:NoSchedule-", "x.io/a-b", "", Some("NoSchedule"), true),
        ] {
            let taint: Taint = text.parse().unwrap();
            let parts = (&*taint.key, &*taint.value, taint.effect.as_deref(), taint.removed);
            assert_eq!(parts, (key, value, effect, removed), "{text}");
        }
        let told = |text: &str| text.parse::<Taint>().unwrap_err();
        assert!(told("k=v").contains("`k=v:NoSchedule`"));
        assert!(told("k:NoShedule").contains("did you mean `NoSchedule`?"));
        assert!(told(":NoSchedule").contains("is no name"));
    }
}
