//! The rootfs as far as the build has come: which paths are folders, files and links. Destinations are resolved in
//! it, as in a Dockerfile: what goes into a folder that is a link goes to where the link leads.

mod unpacking;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::rc::Rc;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::PackedLayer;

use crate::contents::{Contents, FileSource, ItemKind};
use crate::context::join;
use crate::inside::{Layers, Listed, Listing};
use crate::kubefile::Span;
use crate::pack;

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;
/// A list of images is text; more than this is something else.
const MAX_TEXT: u64 = 1 << 20;

/// A tree of paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rootfs {
    entries: BTreeMap<String, Entry>,
    /// The folder of what was put last, and where it really is: what comes next mostly lies beside it.
    last_folder: Option<(String, String)>,
}

#[derive(Debug, Clone)]
struct Entry {
    node: Node,
    /// The instruction that made it; none for what the base holds.
    made_by: Option<Span>,
}

#[derive(Debug, Clone)]
enum Node {
    Folder,
    Symlink(String),
    File(Origin),
}

/// Where a file's content is.
#[derive(Debug, Clone)]
enum Origin {
    Source(FileSource),
    /// In a layer, at this path.
    Layer(Rc<PackedLayer>, String),
    /// In a layer that is not made yet.
    Unknown,
}

impl Rootfs {
    /// Whether a folder lies at a path, links followed. The rootfs itself is one.
    pub(crate) fn is_folder(&self, path: &str) -> bool {
        self.resolve(path)
            .is_some_and(|path| path.is_empty() || matches!(self.node(&path), Some(Node::Folder)))
    }

    /// Where something that is put at `path` comes to lie: links to folders are followed, one that leads to a file
    /// is replaced.
    pub(crate) fn place(&self, path: &str) -> Result<String> {
        let misled = || {
            let what = format!("`{path}` leads out of the rootfs or in circles: a link lies in its way");
            Error::new(ErrorKind::Input, what).hint("write the path without the link")
        };
        if let Some(real) = self.resolve(path)
            && (real.is_empty() || matches!(self.node(&real), Some(Node::Folder)))
        {
            return Ok(real);
        }
        let (folder, name) = split(path);
        Ok(join(&self.resolve(folder).ok_or_else(misled)?, name))
    }

    /// Puts in what a layer of these contents does.
    pub(crate) fn put_contents(&mut self, contents: &Contents, span: Span) {
        for (path, item) in &contents.entries {
            let node = match &item.kind {
                ItemKind::Folder => Node::Folder,
                ItemKind::Symlink(target) => Node::Symlink(target.clone()),
                ItemKind::File(source) => Node::File(Origin::Source(source.clone())),
                ItemKind::HardLink(target) => match self.node(target) {
                    Some(node) => node.clone(),
                    None => continue,
                },
            };
            self.put(path, node, Some(span));
        }
    }

    /// Puts in what a layer holds, whiteouts first: they hide what lower layers brought (layer.md). Without
    /// `made_by` it is the base's.
    pub(crate) fn put_layer(&mut self, layer: PackedLayer, listing: Listing, made_by: Option<Span>) {
        for (path, _) in &listing.0 {
            let (folder, name) = split(path);
            match name.strip_prefix(".wh.") {
                Some(".wh..opq") => self.clear(folder),
                Some(hidden) => self.remove(&join(folder, hidden)),
                None => {}
            }
        }
        let layer = Rc::new(layer);
        for (path, listed) in listing.0 {
            if split(&path).1.starts_with(".wh.") {
                continue;
            }
            let node = match listed {
                Listed::Folder => Node::Folder,
                Listed::Symlink(target) => Node::Symlink(target),
                Listed::File => Node::File(Origin::Layer(Rc::clone(&layer), path.clone())),
                Listed::HardLink(target) => match self.place(&target).ok().and_then(|target| self.node(&target)) {
                    Some(node) => node.clone(),
                    None => continue,
                },
            };
            self.put(&path, node, made_by);
        }
    }

    /// The text that an instruction brought to `path`, links followed.
    ///
    /// # Errors
    /// That it is no text, or that a link leads nowhere; and the instruction.
    pub(crate) fn text(&self, path: &str, layers: Layers<'_>) -> Result<Option<String>, (Error, Span)> {
        let entry = self.resolve(path).and_then(|real| self.entries.get(&real));
        match (entry, self.entries.get(path)) {
            (
                Some(Entry {
                    node: Node::File(origin),
                    made_by: Some(span),
                }),
                _,
            ) => read(origin, path, layers).map(Some).map_err(|error| (error, *span)),
            (
                None,
                Some(Entry {
                    made_by: Some(span), ..
                }),
            ) => {
                let what = "it is a link that leads to nothing in the rootfs";
                let error = Error::new(ErrorKind::Input, what).hint("copy the list itself to that place");
                Err((error, *span))
            }
            _ => Ok(None),
        }
    }

    /// The content of a file of the base.
    pub(crate) fn base_file(&self, path: &str, layers: Layers<'_>) -> Result<Option<Vec<u8>>> {
        match self.resolve(path).as_deref().and_then(|path| self.node(path)) {
            Some(Node::File(Origin::Layer(layer, path))) => layers.file(layer, path).map(Some),
            _ => Ok(None),
        }
    }

    /// The files in a folder and in those in it, by their paths in it: each with whether an instruction brought it. A link
    /// is what it leads to; one that leads to no file is `Err`.
    pub(crate) fn files(&self, folder: &str) -> Vec<(String, Result<bool, ()>)> {
        let Some(real) = self.resolve(folder) else {
            return Vec::new();
        };
        let files = self.below(&real).map(|(path, entry)| {
            let target = self.resolve(path).and_then(|real| self.entries.get(&real));
            let is_new = match target {
                Some(
                    file @ Entry {
                        node: Node::File(_), ..
                    },
                ) => Ok(entry.made_by.is_some() || file.made_by.is_some()),
                // What is not new was told when the base was built.
                _ if entry.made_by.is_none() => Ok(false),
                _ => Err(()),
            };
            let below = path.strip_prefix(&real).unwrap_or(path);
            (below.trim_start_matches('/').to_owned(), is_new)
        });
        files.collect()
    }

    /// Copies the file at `path`, links followed, to a place outside.
    pub(crate) fn copy_out(&self, path: &str, to: &Path, layers: Layers<'_>) -> Result<()> {
        let place = || format!("cannot copy `{path}` to {}", to.display());
        let mut out = fs::File::create(to).or_io(place)?;
        let mut copy = |mut from: fs::File| io::copy(&mut from, &mut out).or_io(place).map(drop);
        match self.resolve(path).as_deref().and_then(|path| self.node(path)) {
            Some(Node::File(Origin::Source(FileSource::Disk(file)))) => copy(pack::open(file)?),
            Some(Node::File(Origin::Source(FileSource::Stored { digest, .. }))) => {
                copy(fs::File::open(layers.store.blob_path(digest)).or_io(place)?)
            }
            Some(Node::File(Origin::Source(FileSource::Inline(content)))) => out.write_all(content).or_io(place),
            Some(Node::File(Origin::Layer(layer, path))) => out.write_all(&layers.file(layer, path)?).or_io(place),
            _ => Err(Error::new(ErrorKind::Internal, place())),
        }
    }

    /// Where the file at `path` lies in the build context, if it is from there.
    pub(crate) fn on_disk(&self, path: &str) -> Option<&Path> {
        match self.resolve(path).as_deref().and_then(|path| self.node(path)) {
            Some(Node::File(Origin::Source(FileSource::Disk(file)))) => Some(&file.path),
            _ => None,
        }
    }

    /// Whether something lies at a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Whether all that a layer brings is what lies there.
    pub(crate) fn shows(&self, layer: &Digest, listing: &Listing) -> bool {
        listing.0.iter().all(|(path, listed)| {
            let (folder, name) = split(path);
            let at = self.resolve(folder).map(|folder| join(&folder, name));
            match (listed, at.and_then(|at| self.node(&at))) {
                // A whiteout shows nothing.
                _ if name.starts_with(".wh.") => false,
                (Listed::Folder, Some(Node::Folder)) => true,
                (Listed::Symlink(own), Some(Node::Symlink(there))) => own == there,
                (Listed::File | Listed::HardLink(_), Some(Node::File(Origin::Layer(by, _)))) => {
                    by.descriptor.digest == *layer
                }
                _ => false,
            }
        })
    }

    /// What would be gone if a layer came on top, beside what it brings itself: what its whiteouts hide, and what lies in
    /// folders that it puts something else in place of.
    pub(crate) fn lost(&self, listing: &Listing) -> Vec<String> {
        let mut lost = Vec::new();
        for (path, listed) in &listing.0 {
            let (folder, name) = split(path);
            let Some(folder) = self.resolve(folder) else { continue };
            let (at, is_hidden) = match name.strip_prefix(".wh.") {
                Some(".wh..opq") => (folder, false),
                Some(hidden) => (join(&folder, hidden), true),
                None if matches!(listed, Listed::Folder) => continue,
                None => (join(&folder, name), false),
            };
            if is_hidden && self.node(&at).is_some_and(|node| !matches!(node, Node::Folder)) {
                lost.push(at);
            } else {
                lost.extend(self.below(&at).map(|(path, _)| path.clone()));
            }
        }
        lost
    }

    /// The files that `other`, which comes on top, brings in layers that are `new`, over files that lie here.
    pub(crate) fn replaced_by(&self, other: &Self, new: impl Fn(&Digest) -> bool) -> Vec<String> {
        let files = other.entries.iter().filter(|(path, entry)| match &entry.node {
            Node::File(Origin::Layer(layer, _)) => {
                new(&layer.descriptor.digest) && matches!(self.node(path), Some(Node::File(_)))
            }
            _ => false,
        });
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Whether a folder holds the same here and in `other`. What can't be compared is not the same.
    pub(crate) fn is_alike(&self, other: &Self, folder: &str, layers: Layers<'_>) -> bool {
        let content = |origin: &Origin| match origin {
            Origin::Layer(layer, path) => layers.file(layer, path).ok(),
            Origin::Source(_) | Origin::Unknown => None,
        };
        let is_same = |one: &Node, two: &Node| match (one, two) {
            (Node::Symlink(one), Node::Symlink(two)) => one == two,
            (Node::File(Origin::Layer(one, own)), Node::File(Origin::Layer(two, others)))
                if one.descriptor.digest == two.descriptor.digest && own == others =>
            {
                true
            }
            (Node::File(one), Node::File(two)) => {
                let one = content(one);
                one.is_some() && one == content(two)
            }
            _ => false,
        };
        let own: Vec<_> = self.below(folder).collect();
        let others: Vec<_> = other.below(folder).collect();
        own.len() == others.len()
            && own
                .iter()
                .zip(&others)
                .all(|((own, one), (others, two))| own == others && is_same(&one.node, &two.node))
    }

    /// The files and links in a folder, and in the folders in it.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&String, &Entry)> {
        let start = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let found = self.entries.range(start.clone()..);
        let found = found.take_while(move |(path, _)| path.starts_with(&start));
        found.filter(|(_, entry)| !matches!(entry.node, Node::Folder))
    }

    fn node(&self, path: &str) -> Option<&Node> {
        self.entries.get(path).map(|entry| &entry.node)
    }

    /// A path with all links in it followed, whether something lies there or not; none when they lead out of the
    /// rootfs or in circles.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut rest: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut real = String::new();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." if real.is_empty() => return None,
                ".." => {
                    real.truncate(real.rfind('/').unwrap_or(0));
                    continue;
                }
                part => {
                    let next = join(&real, part);
                    let Some(Node::Symlink(target)) = self.node(&next) else {
                        real = next;
                        continue;
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    for part in target.split('/').rev() {
                        rest.push_front(part.to_owned());
                    }
                }
            }
        }
        Some(real)
    }

    /// Puts something in as unpacking does: links above it are followed, missing folders made, and only a folder
    /// joins what lies there.
    fn put(&mut self, path: &str, node: Node, made_by: Option<Span>) {
        let (folder, name) = split(path);
        let path = join(&self.make_folder(folder, made_by), name);
        match (self.node(&path), &node) {
            (Some(Node::Folder), Node::Folder) => return,
            (Some(Node::Folder), _) => self.clear(&path),
            _ => {}
        }
        // A link that comes or goes may lie on the way to that folder.
        if [Some(&node), self.node(&path)]
            .iter()
            .any(|node| matches!(node, Some(Node::Symlink(_))))
        {
            self.last_folder = None;
        }
        self.entries.insert(path, Entry { node, made_by });
    }

    /// Makes a folder and those above it, as far as they are missing, and says where it really is.
    fn make_folder(&mut self, folder: &str, made_by: Option<Span>) -> String {
        if let Some((last, real)) = &self.last_folder
            && last == folder
        {
            return real.clone();
        }
        let real = self.resolve(folder).unwrap_or_else(|| folder.to_owned());
        for end in real.match_indices('/').map(|(at, _)| at).chain([real.len()]) {
            let above = real.get(..end).unwrap_or_default();
            if !above.is_empty() && !matches!(self.node(above), Some(Node::Folder)) {
                let node = Node::Folder;
                self.entries.insert(above.to_owned(), Entry { node, made_by });
            }
        }
        self.last_folder = Some((folder.to_owned(), real.clone()));
        real
    }

    fn remove(&mut self, path: &str) {
        self.clear(path);
        self.entries.remove(path);
    }

    /// Removes what lies in a folder.
    fn clear(&mut self, folder: &str) {
        self.last_folder = None;
        if folder.is_empty() {
            self.entries.clear();
            return;
        }
        // `0` comes right after the slash.
        let mut below = self.entries.split_off(&format!("{folder}/"));
        let mut after = below.split_off(&format!("{folder}0"));
        self.entries.append(&mut after);
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn read(origin: &Origin, path: &str, layers: Layers<'_>) -> Result<String> {
    let place = || format!("cannot read `{path}`");
    let mut bytes = Vec::new();
    let mut take = |file: fs::File| file.take(MAX_TEXT + 1).read_to_end(&mut bytes).or_io(place).map(drop);
    match origin {
        Origin::Source(FileSource::Disk(file)) => take(pack::open(file)?)?,
        Origin::Source(FileSource::Stored { digest, .. }) => {
            take(fs::File::open(layers.store.blob_path(digest)).or_io(place)?)?;
        }
        Origin::Source(FileSource::Inline(content)) => bytes.clone_from(content),
        Origin::Layer(layer, path) => bytes = layers.file(layer, path)?,
        Origin::Unknown => return Err(Error::new(ErrorKind::Internal, place())),
    }
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Error::new(ErrorKind::Input, place())
            .because(Error::new(ErrorKind::Input, "a list of images has at most 1 MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Error::new(ErrorKind::Input, format!("`{path}` is not a text"))
            .because(error)
            .hint("write one image a line, in UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use sealrs_image::layer::Compression;

    use super::*;

    fn layer() -> PackedLayer {
        PackedLayer::new(Compression::None, Digest::of(b"x"), 1, Digest::of(b"x"), 1)
    }

    pub(super) fn rootfs(layers: &[&[(&str, Listed)]]) -> Rootfs {
        let mut rootfs = Rootfs::default();
        for entries in layers {
            let entries = entries
                .iter()
                .map(|(path, listed)| ((*path).to_owned(), listed.clone()));
            rootfs.put_layer(layer(), Listing(entries.collect()), None);
        }
        rootfs
    }

    pub(super) fn link(target: &str) -> Listed {
        Listed::Symlink(target.to_owned())
    }

    #[test]
    fn what_is_put_below_a_link_goes_to_where_it_leads() {
        let rootfs = rootfs(&[&[
            ("other", Listed::Folder),
            ("manifests", link("other")),
            ("deep/a", Listed::File),
            ("deep/up", link("../manifests/./")),
            ("abs", link("/deep")),
            ("file", link("deep/a")),
            ("dangling", link("nowhere/x")),
            ("out", link("../x")),
            ("round", link("round/x")),
        ]]);
        for (path, is_folder, place) in [
            ("", true, Some("")),
            ("manifests", true, Some("other")),
            ("manifests/x", false, Some("other/x")),
            ("deep/up/x", false, Some("other/x")),
            ("abs", true, Some("deep")),
            ("abs/b/c", false, Some("deep/b/c")),
            ("file", false, Some("file")),
            ("dangling", false, Some("dangling")),
            ("new/x", false, Some("new/x")),
            ("out", false, Some("out")),
            ("out/x", false, None),
            ("round/x", false, None),
        ] {
            assert_eq!(rootfs.is_folder(path), is_folder, "{path}");
            assert_eq!(rootfs.place(path).ok().as_deref(), place, "{path}");
        }
    }

    #[test]
    fn what_a_layer_would_take_away_is_known() {
        let rootfs = rootfs(&[&[
            ("a/b/c", Listed::File),
            ("a/d", Listed::File),
            ("e", link("a")),
            ("f", Listed::File),
        ]]);
        let lost = |entries: &[(&str, Listed)]| {
            let entries = entries
                .iter()
                .map(|(path, listed)| ((*path).to_owned(), listed.clone()));
            rootfs.lost(&Listing(entries.collect()))
        };
        for (path, listed, expected) in [
            ("a/.wh.b", Listed::File, &["a/b/c"][..]),
            (".wh.a", Listed::File, &["a/b/c", "a/d"]),
            ("e/.wh.d", Listed::File, &["a/d"]),
            (".wh.e", Listed::File, &["e"]),
            ("a/.wh..wh..opq", Listed::File, &["a/b/c", "a/d"]),
            (".wh.none", Listed::File, &[]),
            ("a", Listed::File, &["a/b/c", "a/d"]),
            ("a/b", link("x"), &["a/b/c"]),
            ("f", Listed::File, &[]),
            ("a", Listed::Folder, &[]),
            ("a/d", Listed::Folder, &[]),
        ] {
            assert_eq!(lost(&[(path, listed)]), expected, "{path}");
        }
    }

    #[test]
    fn a_layer_shows_as_long_as_nothing_covers_it() {
        let listing = Listing(vec![
            ("a".to_owned(), Listed::Folder),
            ("a/b".to_owned(), Listed::File),
            ("l".to_owned(), link("a")),
        ]);
        let below = layer();
        let other = |entries: &[(&str, Listed)]| {
            let mut rootfs = Rootfs::default();
            rootfs.put_layer(below.clone(), listing.clone(), None);
            let digest = Digest::of(b"other");
            let layer = PackedLayer::new(Compression::None, digest, 1, digest, 1);
            let entries = entries
                .iter()
                .map(|(path, listed)| ((*path).to_owned(), listed.clone()));
            rootfs.put_layer(layer, Listing(entries.collect()), None);
            rootfs.shows(&below.descriptor.digest, &listing)
        };
        assert!(other(&[]));
        assert!(other(&[("a/c", Listed::File), ("d", Listed::File)]));
        assert!(!other(&[("a/b", Listed::File)]));
        assert!(!other(&[("a/.wh.b", Listed::File)]));
        assert!(!other(&[("l", link("x"))]));
    }

    #[test]
    fn later_layers_hide_and_replace() {
        let below: &[(&str, Listed)] = &[
            ("a/b/c", Listed::File),
            ("a.b", Listed::File),
            ("a0", Listed::File),
            ("d/e", Listed::File),
            ("f/g", Listed::File),
            ("l", link("a")),
        ];
        let folders = |rootfs: &Rootfs| -> Vec<String> { rootfs.entries.keys().cloned().collect() };
        let hidden = rootfs(&[below, &[("a/.wh.b", Listed::File), ("d/.wh..wh..opq", Listed::File)]]);
        assert_eq!(folders(&hidden), ["a", "a.b", "a0", "d", "f", "f/g", "l"]);
        let replaced = rootfs(&[
            below,
            &[("a", Listed::File), ("l", Listed::Folder), ("l/x", Listed::File)],
        ]);
        assert_eq!(
            folders(&replaced),
            ["a", "a.b", "a0", "d", "d/e", "f", "f/g", "l", "l/x"]
        );
        assert!(!replaced.is_folder("a") && replaced.is_folder("l"));
        // The link is gone by the time of the second file.
        let through = rootfs(&[&[("d/x", link(".")), ("d/x/x", Listed::File), ("d/x/y", Listed::File)]]);
        assert_eq!(folders(&through), ["d", "d/x", "d/x/y"]);
    }
}
