//! Both passes over the documents of one text.

use std::collections::BTreeSet;

use sealrs_image::error::ErrorKind;
use sealrs_image::finding::Finding;

use crate::discovery::Kind;
use crate::discovery::candidates::{Around, Candidates};
use crate::discovery::file::UNRENDERED;
use crate::discovery::manifest::{Container, Image, Typed};
use crate::discovery::node::Node;

/// What a text names.
#[derive(Debug, Clone, Default)]
pub(super) struct Scan {
    pub(super) seen: Vec<Seen>,
    pub(super) wrong: Vec<Finding>,
}

/// A text that is an image, or may be one.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// From 1.
    pub(super) line: usize,
    pub(super) path: String,
    /// The container whose image it is, if it is one's.
    pub(super) container: Option<Container>,
}

impl Scan {
    /// Reads a text, which `shown` names in what is said of it.
    pub(super) fn of(text: &str, shown: &str) -> Self {
        Self::with_documents(text, shown).0
    }

    /// The same, and the documents.
    pub(super) fn with_documents(text: &str, shown: &str) -> (Self, Vec<Node>) {
        let mut scan = Self::default();
        let documents = Node::read(text).unwrap_or_else(|error| {
            scan.wrong.push(not_yaml(&error, shown));
            Vec::new()
        });
        documents.iter().for_each(|document| scan.document(document, shown));
        (scan, documents)
    }

    /// Reads a document.
    pub(super) fn document(&mut self, document: &Node, shown: &str) {
        let mut typed = Typed::default();
        typed.read(document, "");
        for (path, line) in typed.odd {
            let message = format!("`{path}` is not what it has to be, so an image may be missing");
            let hint = "write a text where an image is named, and lists of containers as lists";
            self.wrong.push(Finding {
                hint: Some(hint.to_owned()),
                ..Finding::new(ErrorKind::Input, shown, message).at(line)
            });
        }
        let mut known = BTreeSet::new();
        for image in typed.images {
            let Image {
                place,
                line,
                text,
                container,
            } = image;
            known.insert((place.clone(), text));
            self.seen.push(Seen {
                text: text.to_owned(),
                kind: Kind::Typed,
                line,
                path: place,
                container,
            });
        }
        let mut candidates = Candidates::default();
        candidates.read(document, "", "", Around::default());
        for found in candidates.doubtful {
            if !known.contains(&(found.place.clone(), found.text.as_str())) {
                self.wrong.push(doubtful(&found.text, shown).at(found.line));
            }
        }
        for found in candidates.images {
            if !known.contains(&(found.place.clone(), found.text.as_str())) {
                self.seen.push(Seen {
                    text: found.text,
                    kind: Kind::Candidate,
                    line: found.line,
                    path: found.place,
                    container: None,
                });
            }
        }
    }
}

/// A text that stands where an image is, and is no reference.
pub(super) fn doubtful(text: &str, shown: &str) -> Finding {
    let (message, hint) = if text.contains(UNRENDERED) {
        (
            "this image is known when the template is filled in, not before".to_owned(),
            "name the image that it will be in an image list",
        )
    } else {
        (
            format!(
                "`{}` stands where an image is, and is no reference",
                text.escape_debug()
            ),
            "write HOST/PATH:TAG, or name the image that it stands for in an image list",
        )
    };
    Finding {
        hint: Some(hint.to_owned()),
        ..Finding::new(ErrorKind::Input, shown, message)
    }
}

/// What is said of a text that can't be parsed.
pub(super) fn not_yaml(error: &serde_saphyr::Error, shown: &str) -> Finding {
    let mut finding = Finding::new(ErrorKind::Input, shown, "this is not YAML: its images are not known");
    finding.line = error
        .location()
        .and_then(|location| usize::try_from(location.line()).ok());
    let cause = error.to_string();
    finding.causes.push(cause.lines().next().unwrap_or_default().to_owned());
    finding
}
