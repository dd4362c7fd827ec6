//! Apps: where APP's files go, and what kind of app they make (sealer's rules, with chart archives added).

use std::collections::BTreeSet;

/// Where the files of an app lie in the rootfs.
pub(crate) fn folder(name: &str) -> String {
    format!("application/apps/{name}")
}

/// The kind of an app and the files that its kind's command works on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Detected {
    /// `helm`, `kube`, `shell`, or empty when the files tell nothing.
    pub(crate) kind: String,
    pub(crate) files: Vec<String>,
}

/// Tells an app's kind by its files: paths below its folder, in the order of its sources.
pub(crate) fn detect(name: &str, files: &[String]) -> Detected {
    let set: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let has_templates = files.iter().any(|file| file.starts_with("templates/"));
    if set.contains("Chart.yaml") && set.contains("values.yaml") && has_templates {
        return Detected {
            kind: "helm".to_owned(),
            files: vec![name.to_owned()],
        };
    }
    let all = |extensions: &[&str]| {
        !files.is_empty()
            && files
                .iter()
                .all(|file| extensions.iter().any(|extension| file.ends_with(extension)))
    };
    let kind = if all(&[".sh"]) {
        "shell"
    } else if all(&[".yaml", ".yml"]) {
        "kube"
    } else if files.len() == 1 && all(&[".tgz", ".tar.gz"]) {
        "helm"
    } else {
        return Detected::default();
    };
    Detected {
        kind: kind.to_owned(),
        files: files.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kinds_by_files() {
        for (files, kind, listed) in [
            (
                vec!["Chart.yaml", "values.yaml", "templates/a.yaml"],
                "helm",
                vec!["app"],
            ),
            (vec!["a.yaml", "b.yml"], "kube", vec!["a.yaml", "b.yml"]),
            (vec!["i.sh"], "shell", vec!["i.sh"]),
            (vec!["chart-1.tgz"], "helm", vec!["chart-1.tgz"]),
            (vec!["a.yaml", "b.sh"], "", vec![]),
            (
                vec!["Chart.yaml", "values.yaml"],
                "kube",
                vec!["Chart.yaml", "values.yaml"],
            ),
            (vec![], "", vec![]),
        ] {
            let files: Vec<String> = files.into_iter().map(str::to_owned).collect();
            let detected = detect("app", &files);
            assert_eq!(
                (detected.kind.as_str(), detected.files),
                (kind, listed.into_iter().map(str::to_owned).collect())
            );
        }
    }
}
