//! The label that chooses the cluster runtime: a mistyped one would be noticed on the hosts only.

use sealrs_image::cluster_image::{RUNTIMES, name};
use sealrs_image::suggest::nearest;

use super::diagnostic::quoted;

/// Why a label may not be meant as it is written, and what would be right. No error: the image may be for a tool that
/// knows more.
pub(crate) fn doubt(label: &str, value: &str) -> Option<(String, String)> {
    if label != name::RUNTIME_TYPE || RUNTIMES.contains(&value) {
        return None;
    }
    let message = format!(
        "no host will install the cluster runtime {}: nobody knows it",
        quoted(value)
    );
    let known = RUNTIMES.join(", ");
    Some(match nearest(value, RUNTIMES) {
        Some(near) => (message, format!("did you mean `{near}`? Known are {known}")),
        None => (message, format!("known are {known}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_runtimes() {
        for (value, hint) in [
            ("k3", Some("did you mean `k3s`?")),
            ("kubernets", Some("did you mean `kubernetes`?")),
            ("K3S", Some("did you mean `k3s`?")),
            ("odd", Some("known are k3s, k0s")),
            ("k3s", None),
            ("k0s", None),
            ("kubernetes", None),
            ("script", None),
        ] {
            let said = doubt(name::RUNTIME_TYPE, value).map(|(_, hint)| hint);
            assert_eq!(said.is_some(), hint.is_some(), "{value}");
            assert!(said.unwrap_or_default().contains(hint.unwrap_or_default()), "{value}");
        }
        assert_eq!(doubt("other", "k3"), None);
    }
}
