//! The typed pass over one object: only what is an image for sure.

use crate::discovery::kinds::{self, POD};
use crate::discovery::node::{Node, Places, Value};

/// The text of a container whose image Istio puts in when the pod starts.
const INJECTED: &str = "auto";

/// What the typed fields of an object hold.
#[derive(Debug, Default)]
pub(super) struct Typed<'n> {
    /// Texts that are images.
    pub(super) images: Vec<Image<'n>>,
    /// Places and lines where an image has to be and something else is.
    pub(super) odd: Vec<(String, usize)>,
    /// The object that is being read, and its place in the document.
    object: (ObjectId, String),
}

/// A text that is an image.
#[derive(Debug)]
pub(super) struct Image<'n> {
    /// Its place in the document.
    pub(super) place: String,
    pub(super) line: usize,
    pub(super) text: &'n str,
    /// Whose `image` it is.
    pub(super) container: Option<Container>,
}

/// What patches find an object by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ObjectId {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// A container of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) object: ObjectId,
    /// Its place in the object: `spec.containers[0]`.
    pub(super) place: String,
    pub(super) name: String,
}

impl ObjectId {
    fn of(object: &Node) -> Self {
        let metadata = object.get("metadata");
        let text = |key| metadata.and_then(|metadata| metadata.text_of(key)).map(str::to_owned);
        Self {
            api_version: object.text_of("apiVersion").unwrap_or_default().to_owned(),
            kind: object.text_of("kind").unwrap_or_default().to_owned(),
            namespace: text("namespace"),
            name: text("name").unwrap_or_default(),
        }
    }
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
        self.object = (ObjectId::of(object), before.to_owned());
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
                    let id = self.container(container, &place);
                    for (place, node) in self.at(container, "image", &place) {
                        let before = self.images.len();
                        self.take(place, node);
                        for image in self.images.iter_mut().skip(before) {
                            image.container = Some(id.clone());
                        }
                    }
                }
                self.words(container, &place);
            }
        }
    }

    fn container(&self, container: &Node, place: &str) -> Container {
        let (object, before) = &self.object;
        let below = place.strip_prefix(before.as_str()).unwrap_or(place);
        Container {
            object: object.clone(),
            place: below.trim_start_matches('.').to_owned(),
            name: container.text_of("name").unwrap_or_default().to_owned(),
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
                    self.push(place.clone(), node.line, image);
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
            Value::Text(text) => self.push(place, node.line, text),
            _ => self.odd.push((place, node.line)),
        }
    }

    fn push(&mut self, place: String, line: usize, text: &'n str) {
        self.images.push(Image {
            place,
            line,
            text,
            container: None,
        });
    }

    fn at(&mut self, node: &'n Node, path: &str, before: &str) -> Vec<(String, &'n Node)> {
        let mut places = Places::default();
        node.at(path, before, &mut places);
        let odd = places.odd.into_iter().map(|(place, node)| (place, node.line));
        self.odd.extend(odd);
        places.found
    }
}
