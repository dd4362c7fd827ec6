//! The typed pass over one object: only what is an image for sure.

use crate::discovery::kinds::{self, POD};
use crate::discovery::node::Node;

/// A text that is an image: its place in the object, its line, and itself.
pub(super) type Text<'n> = (String, usize, &'n str);

/// The images of an object, and of the objects of a list.
pub(super) fn images<'n>(object: &'n Node, before: &str, found: &mut Vec<Text<'n>>) {
    let kind = object.text_of("kind").unwrap_or_default();
    let api_version = object.text_of("apiVersion").unwrap_or_default();
    if kind.ends_with("List") {
        let mut items = Vec::new();
        object.at("items.*", before, &mut items);
        for (place, item) in items {
            images(item, &place, found);
        }
    }
    if kind == "Kustomization" {
        return;
    }
    let Some(known) = kinds::of(api_version, kind) else {
        return;
    };
    let mut nodes = Vec::new();
    for path in known.images {
        object.at(path, before, &mut nodes);
    }
    for path in known.pods {
        let mut specs = Vec::new();
        object.at(path, before, &mut specs);
        for (place, spec) in specs {
            for image in POD {
                spec.at(image, &place, &mut nodes);
            }
            for containers in ["containers.*", "initContainers.*"] {
                let mut all = Vec::new();
                spec.at(containers, &place, &mut all);
                for (place, container) in all {
                    of_container(container, &place, found);
                }
            }
        }
    }
    for (place, node) in nodes {
        if let Some(text) = node.text() {
            found.push((place, node.line, text));
        }
    }
}

/// The images in a container's arguments and environment that are known to be some.
fn of_container<'n>(container: &'n Node, before: &str, found: &mut Vec<Text<'n>>) {
    let mut arguments = Vec::new();
    container.at("args.*", before, &mut arguments);
    container.at("command.*", before, &mut arguments);
    for (place, node) in arguments {
        let Some(text) = node.text() else { continue };
        for argument in kinds::ARGUMENTS {
            if let Some(image) = text.strip_prefix(argument) {
                found.push((place.clone(), node.line, image));
            }
        }
    }
    let mut variables = Vec::new();
    container.at("env.*", before, &mut variables);
    for (place, variable) in variables {
        let name = variable.text_of("name").unwrap_or_default();
        if name.starts_with(kinds::VARIABLES)
            && let Some(node) = variable.get("value")
            && let Some(text) = node.text()
        {
            found.push((format!("{place}.value"), node.line, text));
        }
    }
}
