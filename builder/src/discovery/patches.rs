//! Patches of kustomizations: which images of the patched objects they take the place of.
//!
//! An image too many costs room, one that is missing the installation. So an image is taken from the list only where it
//! is certain that kustomize replaces it: by a container's name (strategic merge), or by its place (JSON 6902) as long as
//! no patch has moved containers.

use crate::discovery::Kind;
use crate::discovery::manifest::{Container, ObjectId};
use crate::discovery::node::{Node, Value};
use crate::discovery::scan::{Scan, Seen};

/// The patches of a kustomization, in their order.
#[derive(Debug, Default)]
pub(super) struct Patches {
    /// Whether containers may no longer be where they were.
    moved: bool,
}

/// Which objects a patch is for, as far as it can be told without running kustomize.
enum Target {
    /// The one that the patch itself names.
    Itself,
    Selected {
        group: Option<String>,
        version: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        name: Option<String>,
    },
    Unknown,
}

impl Patches {
    /// Applies the documents of a patch, of which `scan` is what they name, to the objects of `scans`.
    pub(super) fn apply(
        &mut self,
        target: Option<&Node>,
        documents: &[Node],
        scan: &mut Scan,
        scans: &mut [(Scan, String)],
    ) {
        let target = Target::of(target);
        let operations = documents.iter().flat_map(Node::items);
        let operations: Vec<Operation<'_>> = operations.filter_map(Operation::of).collect();
        if !operations.is_empty() {
            return self.apply_operations(&target, &operations, scan, scans);
        }
        if documents.iter().any(has_directive) {
            self.moved = true;
            return;
        }
        for new in &mut scan.seen {
            let Some(container) = &mut new.container else { continue };
            let patched = |old: &Container| {
                target.selects(&container.object, &old.object)
                    && old.name == container.name
                    && list(&old.place) == list(&container.place)
            };
            match take(scans, patched).as_slice() {
                // A container more, before or after the others.
                [] => self.moved = true,
                [one] => {
                    container.object = one.object.clone();
                    // Where it is, and not where the patch has it.
                    container.place.clone_from(&one.place);
                }
                // It stands for several objects, and the next patch may be for one of them.
                _ => container.object = ObjectId::default(),
            }
        }
    }

    fn apply_operations(
        &mut self,
        target: &Target,
        operations: &[Operation<'_>],
        scan: &mut Scan,
        scans: &mut [(Scan, String)],
    ) {
        let moves = |operation: &Operation<'_>| operation.path.contains("ontainers") && operation.container().is_none();
        self.moved |= operations.iter().any(moves);
        if self.moved {
            return;
        }
        for operation in operations {
            let Some((place, image)) = operation.container() else {
                continue;
            };
            let patched = |old: &Container| target.selects(&ObjectId::default(), &old.object) && old.place == place;
            take(scans, patched);
            // What looks like an image there is one now.
            scan.seen
                .retain(|seen| seen.line != image.line || Some(seen.text.as_str()) != image.text());
            scan.seen.push(Seen {
                text: image.text().unwrap_or_default().to_owned(),
                kind: Kind::Typed,
                line: image.line,
                path: operation.path.to_owned(),
                container: Some(Container {
                    object: ObjectId::default(),
                    place,
                    name: String::new(),
                }),
            });
        }
    }
}

/// Takes the images of these containers away, and gives the containers.
fn take(scans: &mut [(Scan, String)], patched: impl Fn(&Container) -> bool) -> Vec<Container> {
    let mut taken = Vec::new();
    for (scan, _) in scans {
        scan.seen.retain(|seen| match &seen.container {
            Some(container) if patched(container) => {
                taken.push(container.clone());
                false
            }
            _ => true,
        });
    }
    taken
}

/// The list that a container is in.
fn list(place: &str) -> &str {
    place.rsplit_once('[').map_or(place, |(list, _)| list)
}

/// Whether a strategic merge does more than to merge: `$patch: delete` and the like.
fn has_directive(node: &Node) -> bool {
    node.items().iter().any(has_directive)
        || node
            .entries()
            .iter()
            .any(|(key, value)| key.starts_with('$') || has_directive(value))
}

/// An operation of a JSON patch (RFC 6902).
struct Operation<'n> {
    is_set: bool,
    path: &'n str,
    value: Option<&'n Node>,
}

impl<'n> Operation<'n> {
    fn of(node: &'n Node) -> Option<Self> {
        let operation = node.text_of("op")?;
        Some(Self {
            is_set: matches!(operation, "replace" | "add"),
            path: node.text_of("path")?,
            value: node.get("value"),
        })
    }

    /// The place of the container whose image it sets, and the image.
    fn container(&self) -> Option<(String, &'n Node)> {
        let path = self.path.strip_suffix("/image").filter(|_| self.is_set)?;
        let mut place = String::new();
        for part in path.trim_start_matches('/').split('/') {
            match part.parse::<usize>() {
                Ok(number) => place.push_str(&format!("[{number}]")),
                Err(_) if place.is_empty() => place.push_str(part),
                Err(_) => place.push_str(&format!(".{part}")),
            }
        }
        let value = self.value.filter(|value| matches!(value.value, Value::Text(_)))?;
        (place.ends_with(']')).then_some((place, value))
    }
}

impl Target {
    fn of(node: Option<&Node>) -> Self {
        let Some(node) = node else { return Self::Itself };
        let text = |key: &str| node.text_of(key).filter(|text| !text.is_empty()).map(str::to_owned);
        let known = ["group", "version", "kind", "namespace", "name"];
        let is_known = node.entries().iter().all(|(key, _)| known.contains(&key.as_str()));
        // They are regular expressions; what has none of their signs means itself.
        let is_literal = |text: &Option<String>| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
            text.as_ref().is_none_or(|text| text.chars().all(plain))
        };
        let (kind, namespace, name) = (text("kind"), text("namespace"), text("name"));
        if !is_known || kind.is_none() || ![&kind, &namespace, &name].into_iter().all(is_literal) {
            return Self::Unknown;
        }
        Self::Selected {
            group: text("group"),
            version: text("version"),
            kind,
            namespace,
            name,
        }
    }

    /// Whether the patch is for `object`; `own` is what it names itself.
    fn selects(&self, own: &ObjectId, object: &ObjectId) -> bool {
        let place = |object: &ObjectId| object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        match self {
            Self::Unknown => false,
            Self::Itself => {
                !own.name.is_empty()
                    && (&own.api_version, &own.kind, &own.name) == (&object.api_version, &object.kind, &object.name)
                    && place(own) == place(object)
            }
            Self::Selected {
                group,
                version,
                kind,
                namespace,
                name,
            } => {
                let (its_group, its_version) = object.api_version.split_once('/').unwrap_or(("", &object.api_version));
                let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
                is(group, its_group)
                    && is(version, its_version)
                    && is(kind, &object.kind)
                    && is(namespace, &place(object))
                    && is(name, &object.name)
            }
        }
    }
}

/// Whether an image is that of a container, which `images` of a kustomization change.
pub(super) fn is_of_container(seen: &Seen) -> bool {
    let of_list = |path: &str| {
        let list = path.strip_suffix("].image").and_then(|path| path.rsplit_once('['));
        list.is_some_and(|(list, _)| list.ends_with("ontainers") && !list.ends_with("ephemeralContainers"))
    };
    match &seen.container {
        Some(container) => of_list(&format!("{}.image", container.place)),
        None => of_list(&seen.path) && !seen.path.starts_with("data."),
    }
}
