//! Which blobs an image is made of: index, manifests, configs, layers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use crate::copy::in_parallel;
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::source::{Source, document, rest};
use crate::spec::{self, Descriptor, Index, Manifest, media_type};

/// An image nests at most this deep; deeper is an attack or a defect.
pub(crate) const MAX_DEPTH: usize = 4;

/// The documents of one image have at most so many bytes in all; a usual one's have a few thousand.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// The blobs of an image, and the documents that tell of them.
#[derive(Debug)]
pub struct Graph {
    /// Each once: children before the documents that name them, the root last.
    pub blobs: Vec<Descriptor>,
    /// The layers of each image, in their order.
    layers: Vec<Vec<Digest>>,
    documents: BTreeMap<Digest, Vec<u8>>,
}

/// All blobs that `root` reaches, as [`Graph::blobs`] has them.
///
/// # Errors
/// As [`Graph::read`].
pub fn blobs(source: &dyn Source, root: &Descriptor) -> Result<Vec<Descriptor>> {
    Ok(Graph::read(source, root, 1)?.blobs)
}

impl Graph {
    /// Reads the documents of the image `root`, `jobs` at once.
    ///
    /// A member of an index that the source lacks is left out: a platform that was not shipped.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when a document is damaged or nests too deep; [`ErrorKind::NotFound`] when `root` or a
    /// manifest's own parts are missing.
    pub fn read(source: &dyn Source, root: &Descriptor, jobs: usize) -> Result<Self> {
        let mut documents: BTreeMap<Digest, Option<Document>> = BTreeMap::new();
        let mut level = vec![root.clone()];
        let (mut depth, mut total) = (0, 0);
        while let Some(first) = level.first() {
            if depth > MAX_DEPTH {
                let what = format!("{} of {} nests too deep", first.digest, source.origin());
                return Err(Error::new(ErrorKind::Integrity, what));
            }
            total = level
                .iter()
                .map(|document| document.size)
                .fold(total, u64::saturating_add);
            if total > MAX_DOCUMENTS {
                let what = format!(
                    "the documents of {} in {} have {total} bytes",
                    root.digest,
                    source.origin()
                );
                return Err(Error::new(ErrorKind::Integrity, what));
            }
            let read = Mutex::new(Vec::new());
            in_parallel(level, jobs, |descriptor| {
                let document = match Document::read(source, &descriptor) {
                    Err(error) if error.kind() == ErrorKind::NotFound && depth > 0 => None,
                    other => Some(other?),
                };
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                read.push((descriptor.digest, document));
                Ok(())
            })?;
            let mut next = BTreeMap::new();
            for (digest, document) in read.into_inner().unwrap_or_else(PoisonError::into_inner) {
                let members = document.iter().flat_map(|document| &document.parts);
                for member in members.filter(|member| is_document(member)) {
                    next.insert(member.digest, member.clone());
                }
                documents.insert(digest, document);
            }
            next.retain(|digest, _| !documents.contains_key(digest));
            level = next.into_values().collect();
            depth += 1;
        }
        let mut walk = Walk {
            documents: &documents,
            seen: BTreeSet::new(),
            found: Vec::new(),
        };
        walk.visit(root, 0)
            .context(|| format!("cannot read image {} of {}", root.digest, source.origin()))?;
        let blobs = walk.found;
        let images = blobs.iter().filter(|blob| media_type::is_manifest(&blob.media_type));
        let images = images.filter_map(|image| documents.get(&image.digest)?.as_ref());
        let layers = |image: &Document| {
            let layers = image.parts.iter().filter(|part| !is_json(part));
            layers.map(|layer| layer.digest).collect()
        };
        let layers = images.map(layers).collect();
        let documents = documents
            .into_iter()
            .filter_map(|(digest, document)| Some((digest, document?.bytes)))
            .collect();
        Ok(Self {
            blobs,
            layers,
            documents,
        })
    }

    /// The place of each layer in an order in which each image can be unpacked while it comes.
    pub(crate) fn layer_places(&self) -> BTreeMap<Digest, usize> {
        let order = in_common_order(self.layers.clone());
        order.into_iter().enumerate().map(|(at, layer)| (layer, at)).collect()
    }

    /// The source that was read, which is not asked again for the documents that are known by now.
    #[must_use]
    pub fn over<'g>(&'g self, source: &'g dyn Source) -> Remembering<'g> {
        Remembering {
            source,
            documents: &self.documents,
        }
    }
}

/// A source, and what is known of it already.
pub struct Remembering<'g> {
    source: &'g dyn Source,
    documents: &'g BTreeMap<Digest, Vec<u8>>,
}

impl std::fmt::Debug for Remembering<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Remembering({}, {} documents)",
            self.source.origin(),
            self.documents.len()
        )
    }
}

impl Source for Remembering<'_> {
    fn origin(&self) -> String {
        self.source.origin()
    }

    fn repository(&self) -> Option<&Reference> {
        self.source.repository()
    }

    fn is_sequential(&self) -> bool {
        self.source.is_sequential()
    }

    fn turn(&self, blob: &Descriptor) -> Option<u64> {
        self.source.turn(blob)
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        match self.documents.get(&blob.digest) {
            Some(bytes) => Ok(Box::new(rest(bytes, offset))),
            None => self.source.open(blob, offset),
        }
    }
}

/// An index or a manifest, read and verified. Anything else has no parts.
struct Document {
    bytes: Vec<u8>,
    parts: Vec<Descriptor>,
}

impl Document {
    fn read(source: &dyn Source, descriptor: &Descriptor) -> Result<Self> {
        if !is_document(descriptor) {
            return Ok(Self {
                bytes: Vec::new(),
                parts: Vec::new(),
            });
        }
        let place = || format!("cannot read image {} of {}", descriptor.digest, source.origin());
        let bytes = document(source, descriptor).context(place)?;
        let name = descriptor.digest.to_string();
        let parts = if media_type::is_index(&descriptor.media_type) {
            spec::parse::<Index>(&bytes, &name)?.manifests
        } else {
            let manifest: Manifest = spec::parse(&bytes, &name)?;
            [manifest.config].into_iter().chain(manifest.layers).collect()
        };
        Ok(Self { bytes, parts })
    }
}

struct Walk<'d> {
    documents: &'d BTreeMap<Digest, Option<Document>>,
    seen: BTreeSet<Digest>,
    found: Vec<Descriptor>,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        let document = self.documents.get(&descriptor.digest);
        let absent = matches!(document, Some(None));
        if absent || !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        // One level more for the blobs of a manifest. Levels alone are no bound: what is near by one way may be far by
        // another.
        if depth > MAX_DEPTH + 1 {
            let what = format!("{} nests too deep", descriptor.digest);
            return Err(Error::new(ErrorKind::Integrity, what));
        }
        for part in document.iter().copied().flatten().flat_map(|document| &document.parts) {
            let missing = matches!(self.documents.get(&part.digest), Some(None));
            // Only an index may name what was not shipped.
            if missing && !media_type::is_index(&descriptor.media_type) {
                let what = format!("{}, a part of {}, is not there", part.digest, descriptor.digest);
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            self.visit(part, depth + 1)?;
        }
        self.found.push(descriptor.clone());
        Ok(())
    }
}

/// Joins lists into one that has each item once and keeps the order of each list, as far as there is such an order:
/// platforms share layers, and each wants them after its own.
fn in_common_order(lists: Vec<Vec<Digest>>) -> Vec<Digest> {
    // In how many lists something else comes before an item, and which lists have it first.
    let mut waiting: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut heading: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    let (mut rests, mut ready, mut unfinished) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for (at, list) in lists.into_iter().enumerate() {
        let mut seen = BTreeSet::new();
        let mut list = list
            .into_iter()
            .filter(move |item| seen.insert(*item))
            .collect::<VecDeque<_>>();
        list.iter()
            .skip(1)
            .for_each(|item| *waiting.entry(*item).or_default() += 1);
        if let Some(head) = list.pop_front() {
            heading.entry(head).or_default().push(at);
            unfinished.insert(at, head);
        }
        rests.push(list);
    }
    let is_free = |waiting: &BTreeMap<Digest, usize>, item: &Digest| waiting.get(item).is_none_or(|count| *count == 0);
    ready.extend(
        unfinished
            .iter()
            .filter(|(_, head)| is_free(&waiting, head))
            .map(|(at, _)| *at),
    );
    let (mut joined, mut placed) = (Vec::new(), BTreeSet::new());
    // Without a free one there is no such order, and whoever needs it will say so.
    while let Some(at) = ready.first().or(unfinished.keys().next()).copied() {
        let Some(next) = unfinished.get(&at).copied() else {
            break;
        };
        joined.push(next);
        placed.insert(next);
        for at in heading.remove(&next).unwrap_or_default() {
            ready.remove(&at);
            unfinished.remove(&at);
            // What has its place already, because there is no order, is passed by.
            while let Some(head) = rests.get_mut(at).and_then(VecDeque::pop_front) {
                if let Some(count) = waiting.get_mut(&head) {
                    *count = count.saturating_sub(1);
                }
                if placed.contains(&head) {
                    continue;
                }
                unfinished.insert(at, head);
                let same_head = heading.entry(head).or_default();
                same_head.push(at);
                if is_free(&waiting, &head) {
                    ready.extend(same_head.iter().copied());
                }
                break;
            }
        }
    }
    joined
}

/// Whether a blob is a document that names others, rather than payload.
#[must_use]
pub fn is_document(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type)
}

/// Whether a blob is JSON, as documents and configs are: small, and wanted before the payload.
#[must_use]
pub fn is_json(descriptor: &Descriptor) -> bool {
    descriptor.media_type.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MAX_DOCUMENT;
    use crate::testing::Memory;

    fn index(memory: &mut Memory, members: Vec<Descriptor>) -> Descriptor {
        let bytes = spec::canonical(&Index::new(members)).unwrap();
        memory.add(media_type::INDEX, bytes)
    }

    fn image(memory: &mut Memory, layers: &[&str]) -> Descriptor {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| memory.add(media_type::LAYER, layer.as_bytes()))
            .map(|layer| (layer.clone(), layer.digest))
            .collect();
        memory.image(layers)
    }

    #[test]
    fn every_blob_comes_once_and_before_what_names_it() {
        let mut memory = Memory::default();
        let one = image(&mut memory, &["shared", "one", "shared"]);
        let two = image(&mut memory, &["two", "shared"]);
        let root = index(&mut memory, vec![one.clone(), two.clone(), one.clone()]);
        let found = blobs(&memory, &root).unwrap();
        let mut digests: Vec<_> = found.iter().map(|blob| blob.digest).collect();
        let at = |blob: &Descriptor| digests.iter().position(|digest| *digest == blob.digest);
        assert_eq!(at(&root), Some(found.len() - 1));
        assert_eq!(at(&one), Some(3), "after its two layers and its config");
        assert_eq!(found.len(), 3 + 2 + 2 + 1);
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), found.len());
    }

    #[test]
    fn layers_come_in_the_order_of_each_platform() {
        let digest = |letter: char| Digest::of(letter.to_string().as_bytes());
        let letters: BTreeMap<Digest, char> = ('a'..='z').map(|letter| (digest(letter), letter)).collect();
        let order = |lists: &[&str]| -> String {
            let lists = lists.iter().map(|list| list.chars().map(digest).collect());
            let joined = in_common_order(lists.collect());
            joined.iter().map(|digest| letters[digest]).collect()
        };
        for (lists, joined) in [
            (&["abc"][..], "abc"),
            (&["aba"], "ab"),
            (&["xs", "ys"], "xys"),
            (&["xsa", "ysb", "zsab"], "xyzsab"),
            (&["abc", "bcd", "acd"], "abcd"),
            (&["", "a"], "a"),
            // There is none.
            (&["ab", "ba"], "ab"),
            (&["abc", "cab", "bd"], "abcd"),
        ] {
            assert_eq!(order(lists), joined, "{lists:?}");
        }
    }

    #[test]
    fn the_order_of_many_long_lists_is_found_fast() {
        let digests: Vec<Digest> = (0..20_000u32).map(|number| Digest::of(&number.to_le_bytes())).collect();
        let single = digests.iter().map(|digest| vec![*digest]);
        let lists: Vec<_> = single.chain([digests.clone(), digests.clone()]).collect();
        let started = std::time::Instant::now();
        assert_eq!(in_common_order(lists), digests);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn only_an_index_may_name_what_is_not_there() {
        let mut memory = Memory::default();
        let inner = image(&mut memory, &["layer"]);
        let outer = memory.image(vec![(inner.clone(), inner.digest)]);
        memory.forget(inner.digest);
        let error = blobs(&memory, &outer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(format!("{error:?}").contains(&inner.digest.to_string()));
    }

    #[test]
    fn a_platform_that_was_not_shipped_is_left_out_and_a_missing_image_is_not() {
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, &["one"]), image(&mut memory, &["two"]));
        let root = index(&mut memory, vec![one.clone(), two.clone()]);
        memory.forget(one.digest);
        let found = blobs(&memory, &root).unwrap();
        assert_eq!(found.len(), 4, "two's layer, config and manifest, and the index");
        let error = blobs(&memory, &one).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // A damaged one is no absent one.
        memory.damage(two.digest, |bytes| bytes[0] ^= 1);
        let error = blobs(&memory, &root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(format!("{error:?}").contains(&two.digest.to_string()));
    }

    #[test]
    fn what_nests_too_deep_or_is_too_large_is_refused() {
        let mut memory = Memory::default();
        let mut root = image(&mut memory, &["layer"]);
        for depth in 1..=5 {
            root = index(&mut memory, vec![root]);
            assert_eq!(blobs(&memory, &root).is_ok(), depth <= 4, "{depth}");
        }
        root.size = MAX_DOCUMENT + 1;
        let error = blobs(&memory, &root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        let text = memory.add(media_type::MANIFEST, b"no JSON".as_slice());
        let error = blobs(&memory, &text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
}
