//! The container images of a ClusterImage, straight out of its layers: nothing is unpacked.
//!
//! A blob that is a layer of its own, or lies in any other layer that is not packed, is a range of that layer's bytes.
//! Small files of packed layers are kept in memory. Large ones there, as sealer makes them, are read while the layer is
//! unpacked as a stream, which is why they have turns.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::digest::{Digest, VerifyingReader};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::graph;
use sealrs_image::images_lock::{LOCK_PATH, Lock, Referrer};
use sealrs_image::layer::{Compression, Member, MemberKind, TarReader, annotation};
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use sealrs_image::rootfs::{self, rules};
use sealrs_image::source::{Source, document};
use sealrs_image::spec::{self, Descriptor, Index, MAX_DOCUMENT, media_type};
use sealrs_registry::host::Host;
use sealrs_registry::layout;
use sealrs_registry::name::{Repository, Tag};

use crate::container_images::{OWN_LAYER, REGISTRY, blob_path};
use crate::context::join;
use crate::referrers;

/// Files up to [`OWN_LAYER`] are kept in memory until they have so many bytes in all.
const MOST_KEPT: u64 = 64 << 20;
/// Blobs, tags and whiteouts that an image may have; thousands are usual.
const MOST_FILES: usize = 1 << 20;
/// Bytes of the paths of tags and whiteouts; a hundred each are usual.
const MOST_PATHS: usize = 64 << 20;
/// What is read at once of a packed layer.
const BUFFER: usize = 1 << 20;

/// The blobs of container images in a ClusterImage's layers.
pub(crate) struct Bundled<'s> {
    source: &'s dyn Source,
    blobs: BTreeMap<Digest, Place>,
    kept: u64,
    /// The bytes of the paths in `tags` and `hidden`.
    paths: usize,
    /// What the tags mean, by the paths of their links.
    tags: BTreeMap<String, Digest>,
    lock: Option<Lock>,
    /// What the layers looked at so far hide in those below.
    hidden: BTreeSet<String>,
    turns: u64,
    /// A packed layer that was read up to some file, for whoever wants a later one.
    stream: Mutex<Option<Stream<'s>>>,
}

/// Where a blob is.
enum Place {
    Kept(Vec<u8>),
    /// A range of a layer that is not packed.
    Range {
        layer: Descriptor,
        start: u64,
        size: u64,
    },
    /// In a packed layer, from this byte of its tar on.
    Packed {
        layer: Descriptor,
        start: u64,
        size: u64,
        turn: u64,
    },
}

/// A container image whose blobs are all there.
#[derive(Debug, Clone)]
pub(crate) struct BundledImage {
    pub(crate) reference: Reference,
    /// Its manifest or index.
    pub(crate) root: Descriptor,
    /// The documents, configs and layers that are there.
    pub(crate) blobs: Vec<Descriptor>,
    /// Of an index that is not whole, the manifest that is there.
    pub(crate) only: Option<Descriptor>,
    /// Whether its tag means it: one that was built over may be left with its digest alone.
    pub(crate) tagged: bool,
    /// What refers to it.
    pub(crate) referrers: Vec<BundledReferrer>,
}

/// A referrer of a container image.
#[derive(Debug, Clone)]
pub(crate) struct BundledReferrer {
    pub(crate) referrer: Referrer,
    /// Its manifest, as a list of referrers has it.
    pub(crate) root: Descriptor,
    /// All that it is made of, `root` as well.
    pub(crate) blobs: Vec<Descriptor>,
}

impl<'s> Bundled<'s> {
    fn new(source: &'s dyn Source) -> Self {
        Self {
            source,
            blobs: BTreeMap::new(),
            kept: 0,
            paths: 0,
            tags: BTreeMap::new(),
            lock: None,
            hidden: BTreeSet::new(),
            turns: 0,
            stream: Mutex::default(),
        }
    }

    /// Looks through the layers of `image`, from the top down and no further than is needed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when a container image that it lists is not whole, [`ErrorKind::Integrity`] when a
    /// layer is damaged.
    pub(crate) fn read(source: &'s dyn Source, image: &ClusterImage) -> Result<(Self, Vec<BundledImage>)> {
        let mut bundled = Self::new(source);
        let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        for (layer, diff_id) in layers.rev() {
            let place = || format!("cannot read layer {}", layer.digest);
            if bundled.add_blob_layer(layer).context(place)? {
                continue;
            }
            // The images that are known by now may need nothing of what is further down.
            if bundled.lock.is_some()
                && let Ok(images) = bundled.images(image)
            {
                return Ok((bundled, images));
            }
            bundled.add_layer(layer, *diff_id).context(place)?;
        }
        let images = bundled.images(image)?;
        Ok((bundled, images))
    }

    /// Adds a document that is made here.
    pub(crate) fn add_document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest, Place::Kept(bytes));
        descriptor
    }

    /// Takes in a layer that is nothing but a blob in its envelope; of it only the header is read. Anything else is left.
    fn add_blob_layer(&mut self, layer: &Descriptor) -> Result<bool> {
        if layer.media_type != media_type::LAYER || !layer.annotations.contains_key(annotation::BLOB) {
            return Ok(false);
        }
        let mut tar = TarReader::new(self.source.open(layer, 0)?);
        let Some(member) = tar.next()? else {
            return Ok(false);
        };
        let path = path_of(&member)?;
        let (Some(digest), MemberKind::File(size)) = (blob_of(&path), &member.kind) else {
            return Ok(false);
        };
        if !self.hides(&path) {
            self.blobs.entry(digest).or_insert_with(|| Place::Range {
                layer: layer.clone(),
                start: member.offset,
                size: *size,
            });
        }
        Ok(true)
    }

    /// Goes over all files of a layer.
    fn add_layer(&mut self, layer: &Descriptor, diff_id: Digest) -> Result<()> {
        let packed = VerifyingReader::new(self.source.open(layer, 0)?, layer.digest, layer.size);
        let mut hidden = BTreeSet::new();
        rootfs::unpacked(packed, &layer.media_type, diff_id, None, |tar| {
            let mut tar = TarReader::new(tar);
            while let Some(member) = tar.next()? {
                let path = path_of(&member)?;
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let whiteout = match name.strip_prefix(".wh.") {
                    Some(".wh..opq") => Some(folder.to_owned()),
                    Some(name) => Some(join(folder, name)),
                    None => None,
                };
                match whiteout {
                    Some(path) => {
                        if is_about_images(&path) && hidden.insert(path.clone()) {
                            self.count_path(&path, hidden.len())?;
                        }
                    }
                    None if self.hides(&path) => {}
                    None => self.add_file(&path, &member, layer, &mut tar.content())?,
                }
            }
            tar.drain()
        })?;
        self.hidden.append(&mut hidden);
        Ok(())
    }

    /// Refuses what no image has, before memory is full of it. `more` files are not in the collections yet.
    fn count_path(&mut self, path: &str, more: usize) -> Result<()> {
        self.paths = self.paths.saturating_add(path.len());
        let files = self.blobs.len() + self.tags.len() + self.hidden.len() + more;
        if files > MOST_FILES || self.paths > MOST_PATHS {
            let what = format!(
                "the registry data has more than {MOST_FILES} files, or names of more than {} MiB",
                MOST_PATHS >> 20
            );
            return Err(Error::new(ErrorKind::Integrity, what));
        }
        Ok(())
    }

    /// Whether a layer above hides this path.
    fn hides(&self, path: &str) -> bool {
        let folders = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        !self.hidden.is_empty()
            && ["", path]
                .into_iter()
                .chain(folders)
                .any(|part| self.hidden.contains(part))
    }

    /// Takes in a file, if it has to do with container images and no layer above had it.
    fn add_file(&mut self, path: &str, member: &Member, layer: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let MemberKind::File(size) = member.kind else {
            return Ok(());
        };
        let mut read = || {
            let mut bytes = Vec::new();
            content
                .take(MAX_DOCUMENT)
                .read_to_end(&mut bytes)
                .or_io(|| format!("cannot read `{path}`"))?;
            Ok::<_, Error>(bytes)
        };
        if path == LOCK_PATH && self.lock.is_none() {
            self.lock = Some(spec::parse(&read()?, LOCK_PATH)?);
        } else if path.starts_with(REGISTRY) && path.ends_with("/current/link") {
            // One that says nothing means nothing: its image is missed by its name then.
            if let Some(digest) = String::from_utf8(read()?)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                && let Entry::Vacant(tag) = self.tags.entry(path.to_owned())
            {
                tag.insert(digest);
                self.count_path(path, 0)?;
            }
        } else if let Some(digest) = blob_of(path).filter(|digest| !self.blobs.contains_key(digest)) {
            let start = member.offset;
            let place = if size < OWN_LAYER && self.kept + size <= MOST_KEPT {
                self.kept += size;
                Place::Kept(read()?)
            } else if layer.media_type == media_type::LAYER {
                let layer = layer.clone();
                Place::Range { layer, start, size }
            } else {
                self.turns += 1;
                let (layer, turn) = (layer.clone(), self.turns);
                Place::Packed {
                    layer,
                    start,
                    size,
                    turn,
                }
            };
            self.blobs.insert(digest, place);
            self.count_path("", 0)?;
        }
        Ok(())
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        Some(match self.blobs.get(digest)? {
            Place::Kept(bytes) => bytes.len() as u64,
            Place::Range { size, .. } | Place::Packed { size, .. } => *size,
        })
    }

    /// The images of the lock, and those of the annotation that are in no lock: sealer writes none.
    fn images(&self, image: &ClusterImage) -> Result<Vec<BundledImage>> {
        let mut images = Vec::new();
        let locked = self.lock.iter().flat_map(|lock| &lock.images);
        for locked in locked.clone() {
            let mut image = self.image(&locked.image, locked.digest, Some(locked.manifest), &locked.platform)?;
            for referrer in &locked.referrers {
                let place = || {
                    let (referrer, image) = (referrer.digest, &locked.image);
                    format!("the ClusterImage lists {referrer}, which refers to {image}, and does not hold all of it")
                };
                image.referrers.push(self.referrer(referrer).context(place)?);
            }
            images.push(image);
        }
        for listed in &image.container_images {
            let reference: Reference = listed
                .image
                .parse()
                .context(|| "the ClusterImage names a container image that can't be read")?;
            if locked.clone().any(|locked| locked.image == reference) {
                continue;
            }
            let digest = reference.digest().or_else(|| self.tag(&reference)).ok_or_else(|| {
                let what = format!("the ClusterImage lists {reference}, and its layers do not hold it");
                Error::new(ErrorKind::NotFound, what).hint("build the ClusterImage anew")
            })?;
            images.push(self.image(&reference, digest, None, &image.config.platform)?);
        }
        Ok(images)
    }

    /// What the tag of an image means: below the folder of its host or, as sealer has it, without a host.
    fn tag(&self, reference: &Reference) -> Option<Digest> {
        let tag: Tag = reference.tag()?.parse().ok()?;
        let link = |repository: Repository| {
            let path = format!("{REGISTRY}/{}", layout::tag_link(&repository, &tag));
            self.tags.get(&path).copied()
        };
        let on_host = Repository::on(&Host::of(reference), reference.path()).ok();
        on_host.and_then(link).or_else(|| link(reference.path().parse().ok()?))
    }

    /// An image of which everything is there, but perhaps other platforms than `platform`.
    fn image(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: Option<Digest>,
        platform: &Platform,
    ) -> Result<BundledImage> {
        let place = || format!("the ClusterImage lists {reference}, and its layers do not hold all of it");
        let root = self.document(digest).context(place)?;
        let blobs = self.whole(&root).context(place)?;
        let there: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        let mut only = None;
        if media_type::is_index(&root.media_type) {
            let index: Index = spec::parse(&document(self, &root)?, &root.digest.to_string()).context(place)?;
            if index.manifests.iter().any(|member| !there.contains(&member.digest)) {
                let chosen = manifest.or_else(|| Some(index.select(platform)?.digest));
                let chosen = chosen
                    .filter(|chosen| there.contains(chosen))
                    .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the manifest for {platform} is missing")));
                only = Some(chosen.and_then(|chosen| self.document(chosen)).context(place)?);
            }
        }
        let tagged = reference.tag().is_some() && self.tag(reference).is_none_or(|meant| meant == digest);
        Ok(BundledImage {
            reference: reference.clone(),
            root,
            blobs,
            only,
            tagged,
            referrers: Vec::new(),
        })
    }

    fn referrer(&self, referrer: &Referrer) -> Result<BundledReferrer> {
        let root = self.document(referrer.digest)?;
        let blobs = self.whole(&root)?;
        let root = referrers::listed(root, &self.bytes(referrer.digest)?);
        Ok(BundledReferrer {
            referrer: referrer.clone(),
            root,
            blobs,
        })
    }

    /// All that a document is made of, which has to be there but for platforms of an index.
    fn whole(&self, root: &Descriptor) -> Result<Vec<Descriptor>> {
        let blobs = graph::blobs(self, root)?;
        for blob in &blobs {
            match self.size(&blob.digest) {
                Some(size) if size == blob.size => {}
                Some(size) => {
                    let what = format!("blob {} has {size} bytes and not {}", blob.digest, blob.size);
                    return Err(Error::new(ErrorKind::Integrity, what));
                }
                None => return Err(self.lacks(&blob.digest)),
            }
        }
        Ok(blobs)
    }

    /// The bytes of a document that is there.
    fn bytes(&self, digest: Digest) -> Result<Vec<u8>> {
        let size = self.size(&digest).ok_or_else(|| self.lacks(&digest))?;
        document(self, &Descriptor::new("", digest, size))
    }

    /// The descriptor of a document that is there.
    fn document(&self, digest: Digest) -> Result<Descriptor> {
        let bytes = self.bytes(digest)?;
        let mut descriptor = Descriptor::new("", digest, bytes.len() as u64);
        descriptor.media_type = spec::media_type_of(&bytes).ok_or_else(|| {
            Error::new(
                ErrorKind::Integrity,
                format!("{digest} is neither an image nor an index"),
            )
        })?;
        Ok(descriptor)
    }

    fn lacks(&self, digest: &Digest) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("no layer of the ClusterImage in {} holds blob {digest}", self.origin()),
        )
    }

    /// The rest of a file in a packed layer.
    fn unpack(&self, layer: &Descriptor, start: u64, offset: u64) -> Result<Unpacking<'_, 's>> {
        let place = || format!("cannot read layer {}", layer.digest);
        let mut stream = match held(&self.stream).take() {
            Some(stream) if stream.layer == layer.digest && stream.at < start => stream,
            _ => {
                let packed = BufReader::with_capacity(BUFFER, self.source.open(layer, 0)?);
                let tar = Compression::of_layer(&layer.media_type)?.inflater(packed)?;
                Stream {
                    layer: layer.digest,
                    at: 0,
                    tar: TarReader::new(tar),
                }
            }
        };
        while stream.at < start {
            let member = stream.tar.next().context(place)?;
            stream.at = member.map_or(u64::MAX, |member| member.offset);
        }
        let skipped = io::copy(&mut stream.tar.content().take(offset), &mut io::sink()).or_io(place)?;
        if stream.at != start || skipped < offset {
            return Err(Error::new(ErrorKind::Integrity, "it is not what it was a moment ago")).context(place);
        }
        Ok(Unpacking {
            stream: Some(stream),
            home: &self.stream,
        })
    }
}

impl Source for Bundled<'_> {
    fn origin(&self) -> String {
        self.source.origin()
    }

    fn turn(&self, blob: &Descriptor) -> Option<u64> {
        match self.blobs.get(&blob.digest)? {
            Place::Packed { turn, .. } => Some(*turn),
            Place::Kept(_) | Place::Range { .. } => None,
        }
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        match self.blobs.get(&blob.digest) {
            Some(Place::Kept(bytes)) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(bytes.get(start..).unwrap_or_default()))
            }
            Some(Place::Range { layer, start, size }) => {
                let rest = self.source.open(layer, start.saturating_add(offset))?;
                Ok(Box::new(rest.take(size.saturating_sub(offset))))
            }
            Some(Place::Packed { layer, start, .. }) => Ok(Box::new(self.unpack(layer, *start, offset)?)),
            None => Err(self.lacks(&blob.digest)),
        }
    }
}

/// A packed layer that is being read.
struct Stream<'s> {
    layer: Digest,
    /// Where in the tar the content of the current file starts.
    at: u64,
    tar: TarReader<Box<dyn Read + Send + 's>>,
}

/// Reads a file of a packed layer, and leaves the layer for the next reader.
struct Unpacking<'a, 's> {
    stream: Option<Stream<'s>>,
    home: &'a Mutex<Option<Stream<'s>>>,
}

impl Read for Unpacking<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else {
            return Ok(0);
        };
        let read = stream.tar.content().read(buffer);
        if read
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::Interrupted)
        {
            // Nobody can go on from here.
            self.stream = None;
        }
        read
    }
}

impl Drop for Unpacking<'_, '_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            *held(self.home) = Some(stream);
        }
    }
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of a layer's entry in the rootfs.
fn path_of(member: &Member) -> Result<String> {
    rules::clean(&member.path).map_err(|why| {
        let start: String = member.path.chars().take(100).collect();
        let what = format!("the layer holds `{}`, {why}", start.escape_debug());
        Error::new(ErrorKind::Integrity, what)
    })
}

/// Whether the registry or the lock lies at a path, below it or above it.
fn is_about_images(path: &str) -> bool {
    let is_registry = |first: &str| first == REGISTRY;
    path.is_empty() || path == LOCK_PATH || path.split('/').next().is_some_and(is_registry)
}

/// The blob that a path of the rootfs is.
fn blob_of(path: &str) -> Option<Digest> {
    let hex = path.strip_suffix("/data")?.rsplit('/').next()?;
    let digest: Digest = format!("sha256:{hex}").parse().ok()?;
    (path == blob_path(&digest)).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealrs_image::layer::{Entry, EntryKind, TarWriter};

    /// A layer that is not packed.
    struct Layer(Vec<u8>);

    impl Source for Layer {
        fn origin(&self) -> String {
            "a test".to_owned()
        }

        fn open<'a>(&'a self, _blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
            Ok(Box::new(self.0.get(usize::try_from(offset).unwrap()..).unwrap()))
        }
    }

    impl Layer {
        /// Empty files at these paths.
        fn new(paths: impl IntoIterator<Item = String>) -> Self {
            let mut tar = TarWriter::new(Vec::new());
            for path in paths {
                tar.append(&Entry {
                    path: &path,
                    kind: EntryKind::File { size: 0 },
                    mode: 0o644,
                    uid: 0,
                    gid: 0,
                    mtime: 0,
                    xattrs: &[],
                })
                .unwrap();
            }
            Self(tar.finish().unwrap())
        }

        fn read(&self) -> Result<Bundled<'_>> {
            let mut bundled = Bundled::new(self);
            let layer = Descriptor::of(media_type::LAYER, &self.0);
            bundled.add_layer(&layer, layer.digest)?;
            Ok(bundled)
        }
    }

    #[test]
    fn whiteouts_of_other_files_are_not_remembered() {
        let paths = [
            "etc/.wh.a",
            "registry/.wh.b",
            "registry/c/.wh..wh..opq",
            ".wh.images.lock",
        ];
        let layer = Layer::new(paths.map(str::to_owned));
        let bundled = layer.read().unwrap();
        let hidden: Vec<&str> = bundled.hidden.iter().map(String::as_str).collect();
        assert_eq!(hidden, ["images.lock", "registry/b", "registry/c"]);
        assert!(bundled.hides("registry/b/x") && bundled.hides("registry/c/x") && !bundled.hides("registry/x"));
        let layer = Layer::new([".wh..wh..opq".to_owned()]);
        assert!(layer.read().unwrap().hides(LOCK_PATH));
    }

    #[test]
    fn names_without_end_are_refused() {
        let deep = vec!["x".repeat(200); 19].join("/");
        let count = MOST_PATHS / deep.len() + 1;
        let layer = Layer::new((0..count).map(|at| format!("registry/{deep}/.wh.{at}")));
        let refused = |layer: &Layer| layer.read().map(drop).unwrap_err().to_string();
        assert!(refused(&layer).contains("more than"));
        let long = Layer::new([format!("{deep}/{deep}")]);
        assert!(refused(&long).contains("longer than"));
    }
}
