//! The generic pass: what may be an image, in kinds that nobody knows and in values that are free text.

use sealrs_image::reference::Reference;

use crate::discovery::node::{Node, Value, below};
use crate::discovery::{split, text};

/// Fields whose text only tells about others.
const TOLD: [&str; 4] = [
    "description",
    "example",
    "examples",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// Words that stand where an image may be and mean none.
const NO_IMAGES: [&str; 7] = ["auto", "true", "false", "none", "null", "default", "latest"];
/// Files that other programs call images.
const PICTURES: [&str; 11] = [
    ".png", ".jpg", ".jpeg", ".svg", ".gif", ".ico", ".webp", ".img", ".iso", ".qcow2", ".raw",
];

/// Texts that may be images.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) images: Vec<Candidate>,
    /// Texts that stand where an image is and are no reference.
    pub(super) doubtful: Vec<Candidate>,
}

/// A text, its place in the document, its line and which file it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) place: String,
    pub(super) line: usize,
    pub(super) source: usize,
    pub(super) text: String,
}

/// What a part of a document gets from what is around it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Around<'n> {
    /// How many documents inside texts of documents this is.
    pub(super) depth: usize,
    /// Registry, and tag, of images that have neither (Istio).
    pub(super) hub: Option<(&'n str, &'n str)>,
    /// The tag of repositories that have none: the version of a chart's app.
    pub(super) version: Option<&'n str>,
    /// What takes the place of registries: `global.imageRegistry` of a chart.
    pub(super) registry: Option<&'n str>,
}

impl Around<'_> {
    /// What a document in a text of this one gets.
    pub(super) fn inside(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..Self::default()
        }
    }
}

impl Candidates {
    /// All candidates below a node, which lies at `key`.
    pub(super) fn read<'n>(&mut self, node: &'n Node, key: &str, place: &str, around: Around<'n>) {
        match &node.value {
            Value::Null | Value::Other | Value::True | Value::Number(_) => {}
            Value::Text(content) => text::read(self, content, node, place, around),
            Value::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    let place = format!("{place}[{number}]");
                    let before = number.checked_sub(1).and_then(|before| items.get(before));
                    match (before.and_then(Node::text), item.text()) {
                        (_, Some(image)) if names_images(key) && is_whole_image(image) => self.add(place, item, image),
                        (Some(flag), Some(image)) if is_flag(flag) && is_image(image) => self.add(place, item, image),
                        _ => self.read(item, key, &place, around),
                    }
                }
            }
            Value::Map(entries) => self.map(node, entries, key, place, around),
        }
    }

    fn map<'n>(&mut self, node: &'n Node, entries: &'n [(String, Node)], above: &str, place: &str, around: Around<'n>) {
        let around = Around {
            hub: hub(node).or_else(|| node.get("global").and_then(hub)).or(around.hub),
            ..around
        };
        let split = split::image(node, above, around);
        let parts = split.as_ref().map_or(&[][..], |split| split.parts);
        if let Some(split) = &split {
            if split.image.parse::<Reference>().is_ok() {
                self.add(place.to_owned(), split.first, &split.image);
            } else if !is_elsewhere(&split.image) {
                self.doubt(place.to_owned(), split.first, &split.image);
            }
        }
        // A variable, or a JSON patch.
        let names = ["name", "path"].map(|key| node.text_of(key));
        let variable = names.into_iter().flatten().any(names_image);
        for (key, value) in entries {
            // A piece of the image; what is none of it is looked at like anything else.
            let is_first = split.as_ref().is_some_and(|split| std::ptr::eq(split.first, value));
            let is_piece = parts.contains(&key.as_str()) && value.word().is_some() && (key != "image" || is_first);
            if is_piece || TOLD.contains(&key.as_str()) {
                continue;
            }
            let place = below(place, key);
            let of_images = names_images(above) && value.text().is_some_and(is_whole_image);
            let is_named = names_image(key) || (variable && key == "value") || of_images;
            match value.text() {
                Some(text) if is_named && is_image(text) => match around.hub {
                    Some((hub, tag)) if !text.contains(['/', ':']) => {
                        self.add(place, value, &format!("{hub}/{text}:{tag}"));
                    }
                    _ => self.add(place, value, text),
                },
                Some(text) if is_named && is_doubtful(text) => self.doubt(place, value, text),
                // The schema of a field.
                None if is_named && value.text_of("type") == Some("string") => {
                    if let (Some(node), Some(text)) = (value.get("default"), value.text_of("default"))
                        && is_image(text)
                    {
                        self.add(below(&place, "default"), node, text);
                    }
                }
                _ => self.read(value, key, &place, around),
            }
        }
    }

    pub(super) fn add(&mut self, place: String, node: &Node, text: &str) {
        self.images.push(candidate(place, node, text));
    }

    fn doubt(&mut self, place: String, node: &Node, text: &str) {
        self.doubtful.push(candidate(place, node, text));
    }
}

fn candidate(place: String, node: &Node, text: &str) -> Candidate {
    Candidate {
        place,
        line: node.line,
        source: node.source,
        text: text.to_owned(),
    }
}

/// Whether a name says that its value is an image.
pub(super) fn names_image(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("image") || name.ends_with("imagename")
}

/// Whether a name says that its values are images.
fn names_images(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("images")
}

/// Whether a text is an image that says more than a word.
fn is_whole_image(text: &str) -> bool {
    text.contains(['/', ':']) && is_image(text)
}

/// Whether a text says that an image comes after it: `--image`.
pub(super) fn is_flag(text: &str) -> bool {
    text.starts_with('-') && !text.contains('=') && names_image(text)
}

/// Whether a text, where one is expected, is an image.
pub(super) fn is_image(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.contains(|letter: char| letter.is_ascii_alphabetic())
        && !lower.starts_with("sha256:")
        && !NO_IMAGES.contains(&lower.as_str())
        && !PICTURES.iter().any(|end| lower.ends_with(end))
        && text.parse::<Reference>().is_ok()
}

/// Whether a text that is no image may well be meant as one: what a variable or a template stands in.
fn is_doubtful(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_file = text.starts_with(['/', '.']) || PICTURES.iter().any(|end| lower.ends_with(end));
    let is_whole = text.contains(['/', ':', '$']) || text.contains(crate::discovery::file::UNRENDERED);
    is_whole && !is_file && !is_elsewhere(text) && text.parse::<Reference>().is_err()
}

/// Whether a text is an address or a sentence.
fn is_elsewhere(text: &str) -> bool {
    text.contains("://") || text.starts_with("git@") || text.ends_with(".git") || text.contains(char::is_whitespace)
}

/// Istio's registry and tag.
fn hub(node: &Node) -> Option<(&str, &str)> {
    let hub = node.text_of("hub").filter(|text| !text.is_empty())?;
    let tag = node.get("tag").and_then(Node::word).filter(|text| !text.is_empty())?;
    Some((hub, tag))
}
