//! The typed pass over one object: only what is an image for sure.

use crate::discovery::kinds::{self, POD};
use crate::discovery::node::{Node, Places, Value};

/// The text of a container whose image Istio puts in when the pod starts.
const INJECTED: &str = "auto";

/// What the typed fields of an object hold.
#[derive(Debug, Default)]
pub(super) struct Typed<'n> {
    /// Texts that are images: each with its place in the object, and its line.
    pub(super) images: Vec<(String, usize, &'n str)>,
    /// Places and lines where an image has to be and something else is.
    pub(super) odd: Vec<(String, usize)>,
}

impl<'n> Typed<'n> {
    /// Reads an object, and the objects of a list.
    pub(super) fn read(&mut self, object: &'n Node, before: &str) {
        let kind = object.text_of("kind").unwrap_or_default();
        let api_version = object.text_of("apiVersion").unwrap_or_default();
        if kind.ends_with("List") {
            for (place, item) in self.at(object, "items.*", before) {
                self.read(item, &place);
            }
        }
        let Some(known) = kinds::of(api_version, kind) else {
            return;
        };
        for path in known.images {
            for (place, node) in self.at(object, path, before) {
                // An operator that is given none takes its own.
                if node.text() != Some("") {
                    self.take(place, node);
                }
            }
        }
        for path in known.pods {
            for (place, spec) in self.at(object, path, before) {
                self.pod(spec, &place);
            }
        }
    }

    fn pod(&mut self, spec: &'n Node, before: &str) {
        for (place, node) in self.at(spec, POD.volumes, before) {
            self.take(place, node);
        }
        for containers in POD.containers {
            for (place, container) in self.at(spec, containers, before) {
                let is_injected = container.text_of("image") == Some(INJECTED);
                if !(is_injected && container.text_of("name") == Some("istio-proxy")) {
                    for (place, node) in self.at(container, "image", &place) {
                        self.take(place, node);
                    }
                }
                self.words(container, &place);
            }
        }
    }

    /// The images in a container's arguments and environment that are known to be some.
    fn words(&mut self, container: &'n Node, before: &str) {
        let mut arguments = self.at(container, "args.*", before);
        arguments.extend(self.at(container, "command.*", before));
        for (place, node) in arguments {
            let Some(text) = node.text() else { continue };
            for argument in kinds::ARGUMENTS {
                if let Some(image) = text.strip_prefix(argument) {
                    self.images.push((place.clone(), node.line, image));
                }
            }
        }
        for (place, variable) in self.at(container, "env.*", before) {
            let name = variable.text_of("name").unwrap_or_default();
            if name.starts_with(kinds::VARIABLES) {
                for (place, node) in self.at(variable, "value", &place) {
                    self.take(place, node);
                }
            }
        }
    }

    fn take(&mut self, place: String, node: &'n Node) {
        match &node.value {
            Value::Null => {}
            Value::Text(text) => self.images.push((place, node.line, text)),
            _ => self.odd.push((place, node.line)),
        }
    }

    fn at(&mut self, node: &'n Node, path: &str, before: &str) -> Vec<(String, &'n Node)> {
        let mut places = Places::default();
        node.at(path, before, &mut places);
        let odd = places.odd.into_iter().map(|(place, node)| (place, node.line));
        self.odd.extend(odd);
        places.found
    }
}
