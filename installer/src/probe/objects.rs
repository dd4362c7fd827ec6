//! Whether objects of Kubernetes are ready, by what kubectl prints of them.

use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use serde_json::Value;

/// Whether all workloads of an object, or of a list of them, are ready. Others are, as soon as they are there.
///
/// # Errors
/// The first one that is not, and why.
pub(super) fn ready(printed: &str) -> Result<()> {
    // kubectl prints nothing where there is nothing.
    if printed.trim().is_empty() {
        return Ok(());
    }
    let printed: Value =
        serde_json::from_str(printed).or_fail(ErrorKind::Step, || "what kubectl prints can't be read")?;
    match printed.get("items").and_then(Value::as_array) {
        Some(items) => items.iter().try_for_each(object),
        None => object(&printed),
    }
}

fn object(object: &Value) -> Result<()> {
    let text = |place: &str| object.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let number = |place: &str| object.pointer(place).and_then(Value::as_i64);
    let count = |place: &str| number(place).unwrap_or(0);
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let not_yet = |why: String| Err(Error::new(ErrorKind::Step, format!("{kind} {name}: {why}")));
    // What is told is of an older one.
    let is_seen = count("/status/observedGeneration") >= count("/metadata/generation");
    let wanted = number("/spec/replicas").unwrap_or(1);
    let (updated, ready, wanted) = match kind {
        "Deployment" => (
            count("/status/updatedReplicas"),
            count("/status/availableReplicas"),
            wanted,
        ),
        "StatefulSet" => {
            // With another strategy, old ones stay until somebody removes them.
            let updated = match text("/spec/updateStrategy/type") {
                "OnDelete" => wanted,
                _ => count("/status/updatedReplicas"),
            };
            (updated, count("/status/readyReplicas"), wanted)
        }
        "DaemonSet" => {
            let wanted = count("/status/desiredNumberScheduled");
            let updated = match text("/spec/updateStrategy/type") {
                "OnDelete" => wanted,
                _ => count("/status/updatedNumberScheduled"),
            };
            (updated, count("/status/numberReady"), wanted)
        }
        "Job" => {
            return match (holds(object, "Complete"), holds(object, "Failed")) {
                (true, _) => Ok(()),
                (_, true) => not_yet("it has failed".to_owned()),
                _ => not_yet("it has not ended".to_owned()),
            };
        }
        "Pod" if text("/status/phase") != "Succeeded" && !holds(object, "Ready") => {
            return not_yet(format!("it is {}", text("/status/phase")));
        }
        "CustomResourceDefinition" if !holds(object, "Established") => {
            return not_yet("it is not established".to_owned());
        }
        "APIService" if !holds(object, "Available") => return not_yet("it is not available".to_owned()),
        _ => return Ok(()),
    };
    if !is_seen {
        return not_yet("nobody has looked at it".to_owned());
    }
    if updated < wanted {
        return not_yet(format!("{updated} of {wanted} are of the new version"));
    }
    if ready < wanted {
        return not_yet(format!("{ready} of {wanted} are ready"));
    }
    Ok(())
}

fn holds(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_meant = |found: &&Value| found.get("type").and_then(Value::as_str) == Some(condition);
    let found = conditions.into_iter().flatten().find(is_meant);
    found.and_then(|found| found.get("status")?.as_str()) == Some("True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn workloads_are_waited_for_and_others_are_there() {
        let why = |object: Value| ready(&object.to_string()).err().map(|error| error.to_string());
        let deployment = |status: Value| json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 2}, "status": status});
        let status = |seen: u8, updated: u8, available: u8| json!({"observedGeneration": seen, "updatedReplicas": updated, "availableReplicas": available});
        assert_eq!(why(json!({"kind": "ConfigMap"})), None);
        assert_eq!(ready("\n").ok(), Some(()));
        assert_eq!(why(deployment(status(2, 2, 2))), None);
        for (status, says) in [
            (json!({}), "Deployment web: nobody has looked at it"),
            (status(1, 2, 2), "Deployment web: nobody has looked at it"),
            (status(2, 1, 2), "Deployment web: 1 of 2 are of the new version"),
            (status(2, 2, 1), "Deployment web: 1 of 2 are ready"),
        ] {
            let list = json!({"kind": "List", "items": [{"kind": "Service"}, deployment(status)]});
            assert_eq!(why(list).as_deref(), Some(says));
        }
        let with = |kind: &str, condition: &str, status: &str| json!({"kind": kind, "metadata": {"name": "x"}, "status": {"conditions": [{"type": condition, "status": status}]}});
        for (kind, condition) in [
            ("Job", "Complete"),
            ("Pod", "Ready"),
            ("CustomResourceDefinition", "Established"),
        ] {
            assert_eq!(why(with(kind, condition, "True")), None, "{kind}");
            assert!(why(with(kind, condition, "False")).is_some(), "{kind}");
        }
        assert_eq!(
            why(with("Job", "Failed", "True")).as_deref(),
            Some("Job x: it has failed")
        );
        let set = json!({"kind": "DaemonSet", "metadata": {"name": "d"}, "status": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 2}});
        assert_eq!(why(set).as_deref(), Some("DaemonSet d: 2 of 3 are ready"));
        let set = json!({"kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"readyReplicas": 1}});
        assert_eq!(why(set), None);
    }
}
