//! Images in texts: documents inside a document (ConfigMaps), arguments, lines of settings.

use crate::discovery::candidates::{Around, Candidates, is_flag, is_image, names_image};
use crate::discovery::manifest::{Image, Typed};
use crate::discovery::node::{Node, Value};

/// How many documents may lie in one another.
const MAX_DEPTH: usize = 4;

/// All candidates in the text of a node.
pub(super) fn read(found: &mut Candidates, text: &str, node: &Node, place: &str, around: Around<'_>) {
    let has_lines = text.trim_end().contains('\n');
    if (has_lines || text.starts_with(['{', '[']))
        && let Some(documents) = documents(text, node, around)
    {
        return of_documents(found, &documents, place, around);
    }
    for (number, line) in text.lines().enumerate() {
        let mut at = node.clone_empty();
        at.line += number;
        if has_lines {
            of_line(found, line, &at, place);
        }
        of_words(found, line, &at, place, has_lines);
    }
}

/// The documents that a text is, if it is some.
fn documents(text: &str, node: &Node, around: Around<'_>) -> Option<Vec<Node>> {
    if around.depth >= MAX_DEPTH {
        return None;
    }
    let mut documents = Node::read(text).ok()?;
    let is_structure = |document: &Node| matches!(document.value, Value::Map(_) | Value::List(_) | Value::Null);
    let is_some = |document: &Node| !matches!(document.value, Value::Null);
    if !documents.iter().all(is_structure) || !documents.iter().any(is_some) {
        return None;
    }
    for document in &mut documents {
        document.place(node.source, node.line.saturating_sub(1));
    }
    Some(documents)
}

fn of_documents(found: &mut Candidates, documents: &[Node], place: &str, around: Around<'_>) {
    for document in documents {
        let mut typed = Typed::default();
        typed.read(document, place);
        let mut inner = Candidates::default();
        let around = around.inside();
        inner.read(document, "", place, around);
        for Image { place, line, text, .. } in typed.images {
            let is_known = |known: &&super::candidates::Candidate| known.place == place && known.text == text;
            if inner.images.iter().find(is_known).is_none() && is_image(text) {
                let mut at = document.clone_empty();
                at.line = line;
                inner.add(place, &at, text);
            }
        }
        found.images.append(&mut inner.images);
        // What is inside a text may be a template of somebody else's: only its whole images count.
    }
}

/// `image: y`, `"image": "y",` and `x_image = "y"`.
fn of_line(found: &mut Candidates, line: &str, at: &Node, place: &str) {
    let line = line.trim().trim_start_matches("- ");
    if line.starts_with(['#', '-']) {
        return;
    }
    let Some((key, value)) = line.split_once(": ").or_else(|| line.split_once('=')) else {
        return;
    };
    let value = value.split(" #").next().unwrap_or(value);
    let key = bare(key.trim().rsplit(' ').next().unwrap_or_default());
    let value = bare(value);
    if names_image(key) && is_image(value) {
        found.add(place.to_owned(), at, value);
    }
}

/// `--x-image=y` and `--x-image y`, and where it is clear `x.image=y`.
fn of_words(found: &mut Candidates, line: &str, at: &Node, place: &str, has_lines: bool) {
    let mut is_next = false;
    for word in line.split_whitespace() {
        let word = bare(word);
        let is_option = word.starts_with('-');
        let image = match word.split_once('=') {
            Some((name, image)) if names_image(name) => Some(bare(image)),
            _ if is_next => Some(word),
            _ => None,
        };
        let is_clear = |image: &str| is_option || is_next || (!has_lines && image.contains(['/', ':']));
        if let Some(image) = image
            && is_clear(image)
            && is_image(image)
        {
            found.add(place.to_owned(), at, image);
        }
        is_next = is_flag(word);
    }
}

/// A word without quotes and commas around it.
fn bare(word: &str) -> &str {
    word.trim().trim_matches([',', ';', '"', '\'', '`'])
}

impl Node {
    /// A node of the same place with nothing in it.
    fn clone_empty(&self) -> Self {
        Self {
            line: self.line,
            source: self.source,
            value: Value::Null,
        }
    }
}
