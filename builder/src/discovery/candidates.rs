//! The generic pass: what may be an image, in kinds that nobody knows and in values that are free text.

use sealrs_image::reference::Reference;

use crate::discovery::node::{Node, Value, below};

/// A text that may be an image: its place in the document, its line, and the image.
pub(super) type Candidate = (String, usize, String);

/// All candidates below a node.
pub(super) fn candidates(node: &Node, place: &str, found: &mut Vec<Candidate>) {
    match &node.value {
        Value::Other => {}
        Value::Text(text) => of_text(text, node.line, place, found),
        Value::List(items) => {
            for (number, item) in items.iter().enumerate() {
                candidates(item, &format!("{place}[{number}]"), found);
            }
        }
        Value::Map(entries) => {
            if let Some(image) = split(node) {
                let first = ["repository", "newName", "name"].iter().find_map(|key| node.get(key));
                let line = first.map_or(node.line, |first| first.line);
                found.push((place.to_owned(), line, image));
            }
            let variable = node.text_of("name").is_some_and(names_image);
            for (key, value) in entries {
                let place = below(place, key);
                match value.text() {
                    Some(text) if (names_image(key) || (variable && key == "value")) && looks_like_image(text) => {
                        found.push((place, value.line, text.to_owned()));
                    }
                    _ => candidates(value, &place, found),
                }
            }
        }
    }
}

/// The image that `registry`, `repository`, `tag` and `digest` make, or an entry of a kustomization's `images`.
fn split(node: &Node) -> Option<String> {
    let part = |key| node.text_of(key).filter(|text| !text.is_empty());
    let digest = part("digest");
    // A kustomization has `newName` and `newTag`, and `name` where the name stays.
    let renamed = part("newName").or_else(|| part("newTag").or(digest).and_then(|_| part("name")));
    let repository = part("repository").or(renamed)?;
    let (registry, tag) = (part("registry"), part("tag").or_else(|| part("newTag")));
    if registry.is_none() && tag.is_none() && digest.is_none() && part("newName").is_none() {
        return None;
    }
    let mut image = registry.map_or_else(String::new, |registry| format!("{registry}/"));
    image.push_str(repository);
    if let Some(tag) = tag {
        image.push_str(&format!(":{tag}"));
    }
    if let Some(digest) = digest {
        image.push_str(&format!("@{digest}"));
    }
    image.parse::<Reference>().is_ok().then_some(image)
}

/// Arguments `--x-image=y`, and the lines `image: y` of a text of several lines.
fn of_text(text: &str, first: usize, place: &str, found: &mut Vec<Candidate>) {
    let several = text.contains('\n');
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches("- ");
        let parts = if line.starts_with("--") {
            line.split_once('=')
        } else if several {
            line.split_once(": ")
        } else {
            None
        };
        let Some((key, value)) = parts else { continue };
        let value = value
            .split(" #")
            .next()
            .unwrap_or(value)
            .trim()
            .trim_matches(['"', '\'']);
        if names_image(key.trim().trim_matches('"')) && looks_like_image(value) {
            found.push((place.to_owned(), first + number, value.to_owned()));
        }
    }
}

/// Whether a name says that its value is an image.
fn names_image(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("image")
}

/// Whether a text is a reference that says more than a word.
fn looks_like_image(text: &str) -> bool {
    (text.contains('/') || text.contains(':')) && text.parse::<Reference>().is_ok()
}
