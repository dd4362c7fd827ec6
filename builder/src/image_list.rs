//! Image lists: one container image a line, with comments.

use std::collections::BTreeMap;

use sealrs_image::error::{Error, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;

/// Where the lists lie in the rootfs.
pub(crate) const LIST_PATHS: [&str; 2] = ["imageList", "manifests/imageList"];

/// A container image that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The whole reference.
    pub(crate) reference: Reference,
    /// Every place that names it: `manifests/imageList:3`.
    pub(crate) asked_by: Vec<String>,
}

impl Wanted {
    /// A failure to have it, at the first place that names it.
    pub(crate) fn failure(&self, error: &Error) -> Finding {
        let (first, others) = match self.asked_by.split_first() {
            Some((first, others)) => (first.as_str(), others),
            None => ("", [].as_slice()),
        };
        let (file, line) = first.rsplit_once(':').unwrap_or((first, ""));
        let mut finding = error.in_file(file);
        finding.line = line.parse().ok();
        if !others.is_empty() {
            finding
                .message
                .push_str(&format!(", asked for by {} as well", others.join(", ")));
        }
        finding
    }
}

/// Reads a list. `origin` names it in errors and in the lock. Lines that are no reference go to `wrong`.
pub(crate) fn parse(text: &str, origin: &str, wrong: &mut Vec<Finding>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (number, whole) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = whole.split(" #").next().unwrap_or(whole).trim();
        let line = line.trim_matches(['"', '\'']).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.parse::<Reference>() {
            Ok(reference) => wanted.push(Wanted {
                reference,
                asked_by: vec![format!("{origin}:{}", number + 1)],
            }),
            Err(error) => wrong.push(Finding {
                source: Some(whole.to_owned()),
                hint: Some(
                    "write one image a line, for instance `docker.io/library/nginx:1.27`; comments start with `#`"
                        .to_owned(),
                ),
                ..error.in_file(origin).at(number + 1)
            }),
        }
    }
    wanted
}

/// Refuses lists in which something is wrong.
///
/// # Errors
/// All that is wrong.
pub(crate) fn refuse(wrong: Vec<Finding>) -> Result<()> {
    match wrong.len() {
        0 => Ok(()),
        1 => Err(Error::together(
            "an image list has a line that can't be understood",
            wrong,
        )),
        count => Err(Error::together(
            format!("{count} lines of image lists can't be understood"),
            wrong,
        )),
    }
}

/// Joins lists: each image once, with all who asked for it.
#[must_use]
pub(crate) fn join(lists: Vec<Wanted>) -> Vec<Wanted> {
    let mut joined: BTreeMap<Reference, Vec<String>> = BTreeMap::new();
    for wanted in lists {
        let asked_by = joined.entry(wanted.reference).or_default();
        for place in wanted.asked_by {
            if !asked_by.contains(&place) {
                asked_by.push(place);
            }
        }
    }
    joined
        .into_iter()
        .map(|(reference, asked_by)| Wanted { reference, asked_by })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_comments_quotes_and_names_every_wrong_line() {
        let mut wrong = Vec::new();
        let list = parse(
            "\u{feff}# base\nnginx\n\n \"docker.io/library/nginx:latest\" # again\r\nquay.io/a/b:1\n",
            "imageList",
            &mut wrong,
        );
        assert_eq!(wrong, []);
        let joined = join(list);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[0].asked_by, ["imageList:2", "imageList:4"]);

        let list = parse("nginx\nUPPER/x\n{{ .Values.image }}\n", "m/imageList", &mut wrong);
        assert_eq!(list.len(), 1);
        let places: Vec<String> = wrong.iter().map(Finding::place).collect();
        assert_eq!(places, ["m/imageList:2", "m/imageList:3"]);
        assert_eq!(wrong[1].source.as_deref(), Some("{{ .Values.image }}"));
        assert!(refuse(wrong).is_err() && refuse(Vec::new()).is_ok());
    }
}
