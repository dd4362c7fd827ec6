//! From contents to a layer in the store: by the cache, or by reading every file once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use sealrs_image::copy::in_parallel;
use sealrs_image::digest::{Digest, Hasher};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Compression, Entry, EntryKind, LayerWriter, PackedLayer, TarWriter};
use sealrs_image::progress::{Progress, Task};
use sealrs_image::store::Store;

use crate::cache::{Cache, KnownFiles, describe};
use crate::contents::{Contents, FileSource, Identity, ItemKind, OnDisk};
use crate::inside::{Layers, Listing};

const BUFFER: usize = 256 << 10;

/// Up to so many bytes are hashed first to ask the cache, rather than packed at once.
const CHEAP_TO_HASH: u64 = 16 << 20;

/// What this build has seen and made already: the build for another platform, or another line, does not do it again.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The digests of files that were read. They hold for this build, even of a file whose time stamps are too young to
    /// tell the next build that it is still the same.
    digests: Mutex<BTreeMap<(Identity, u64), Digest>>,
    /// The keys of the layers that were packed.
    packed: Mutex<BTreeSet<Digest>>,
    /// What files without a checksum were, by their URL.
    fetched: Mutex<BTreeMap<String, Digest>>,
}

impl Seen {
    /// What a URL gave in this build.
    pub(crate) fn fetched(&self, url: &str) -> Option<Digest> {
        lock(&self.fetched).get(url).copied()
    }

    pub(crate) fn remember_fetched(&self, url: &str, digest: Digest) {
        lock(&self.fetched).insert(url.to_owned(), digest);
    }
}

/// What packing needs.
pub(crate) struct Packing<'b> {
    pub(crate) store: &'b Store,
    pub(crate) cache: &'b Cache,
    pub(crate) known: &'b KnownFiles,
    pub(crate) seen: &'b Seen,
    pub(crate) compression: Compression,
    /// Seconds since 1970 that all entries get.
    pub(crate) mtime: u64,
    /// Whether layers of earlier builds are used.
    pub(crate) use_cache: bool,
    pub(crate) progress: &'b dyn Progress,
}

/// A layer, and whether the cache had it.
pub(crate) struct Packed {
    pub(crate) layer: PackedLayer,
    pub(crate) cached: bool,
}

impl Packing<'_> {
    /// To look into layers that were packed.
    pub(crate) fn layers(&self) -> Layers<'_> {
        Layers {
            store: self.store,
            cache: self.cache,
        }
    }

    /// Makes the layer of `contents`, which `what` names in messages.
    pub(crate) fn pack(&self, contents: &Contents, what: &str) -> Result<Packed> {
        let settings = format!("{} {}", self.compression, self.mtime);
        let shape = || describe(contents, &settings, None).unwrap_or_else(|| Digest::of(b""));
        if let Some(layer) = self.find(contents, &settings, shape, what)? {
            return Ok(Packed { layer, cached: true });
        }
        let layer = self.write(contents, what)?;
        self.cache
            .remember_listing(&layer.descriptor.digest, &Listing::of(contents))?;
        self.remember(contents, &settings, &shape(), &layer)?;
        Ok(Packed { layer, cached: false })
    }

    /// The layer that was made of this, by this build or, with the cache, by an earlier one.
    pub(crate) fn find(
        &self,
        contents: &Contents,
        settings: &str,
        shape: impl FnOnce() -> Digest,
        what: &str,
    ) -> Result<Option<PackedLayer>> {
        if self.use_cache {
            self.learn(contents, shape, what)?;
        }
        let key = self.key(contents, settings);
        Ok(key.and_then(|key| self.known_layer(&key)))
    }

    /// Takes note of what a layer was made of.
    pub(crate) fn remember(
        &self,
        contents: &Contents,
        settings: &str,
        shape: &Digest,
        layer: &PackedLayer,
    ) -> Result<()> {
        if let Some(key) = self.key(contents, settings) {
            self.remember_layer(&key, layer)?;
        }
        self.cache.remember_shape(shape)
    }

    /// The layer under a key, if the store still has it.
    pub(crate) fn known_layer(&self, key: &Digest) -> Option<PackedLayer> {
        if !self.use_cache && !lock(&self.seen.packed).contains(key) {
            return None;
        }
        let layer = self.cache.layer(key)?;
        self.store.has(&layer.descriptor.digest).then_some(layer)
    }

    pub(crate) fn remember_layer(&self, key: &Digest, layer: &PackedLayer) -> Result<()> {
        lock(&self.seen.packed).insert(*key);
        self.cache.remember_layer(key, layer)
    }

    /// Takes note of a file that was read from `started` on.
    pub(crate) fn remember_file(&self, file: &OnDisk, digest: Digest, started: SystemTime) {
        self.known.remember(file, digest, started);
        lock(&self.seen.digests).insert((file.identity, file.size), digest);
    }

    /// The key in the cache; none as long as a file's content is not known.
    fn key(&self, contents: &Contents, settings: &str) -> Option<Digest> {
        describe(contents, settings, Some(&|source| self.digest(source)))
    }

    fn digest(&self, source: &FileSource) -> Option<Digest> {
        match source {
            FileSource::Disk(file) => self.digest_of(file),
            FileSource::Inline(bytes) => Some(Digest::of(bytes)),
            FileSource::Stored { digest, .. } => Some(*digest),
        }
    }

    fn digest_of(&self, file: &OnDisk) -> Option<Digest> {
        let read = lock(&self.seen.digests).get(&(file.identity, file.size)).copied();
        read.or_else(|| self.known.digest(file))
    }

    /// Hashes the files whose content is not known, where that is likely to save packing: they are few, or a layer
    /// of the same names and sizes was built before (a fresh checkout of the same files).
    fn learn(&self, contents: &Contents, shape: impl FnOnce() -> Digest, what: &str) -> Result<()> {
        let unknown: Vec<&OnDisk> = contents
            .files()
            .filter_map(|(_, source)| match source {
                FileSource::Disk(file) if self.digest_of(file).is_none() => Some(file),
                _ => None,
            })
            .collect();
        let bytes: u64 = unknown.iter().map(|file| file.size).sum();
        if unknown.is_empty() || (bytes > CHEAP_TO_HASH && !self.cache.knows_shape(&shape())) {
            return Ok(());
        }
        let task = Task::begin(self.progress, &format!("reading {what}"), Some(bytes));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        in_parallel(unknown, cores, |file| {
            let started = SystemTime::now();
            let mut reader = task.reader(open(file)?);
            let mut hasher = Hasher::new();
            let mut buffer = vec![0u8; BUFFER];
            loop {
                let count = reader
                    .read(&mut buffer)
                    .or_read(|| format!("cannot read {}", file.path.display()))?;
                if count == 0 {
                    break;
                }
                hasher.update(buffer.get(..count).unwrap_or_default());
            }
            if hasher.size() == file.size {
                self.remember_file(file, hasher.finish(), started);
            }
            Ok(())
        })
    }

    fn write(&self, contents: &Contents, what: &str) -> Result<PackedLayer> {
        let task = Task::begin(self.progress, &format!("packing {what}"), Some(contents.size()));
        let mut tar = TarWriter::new(LayerWriter::new(self.store, self.compression)?);
        let mut buffer = vec![0u8; BUFFER];
        for (path, item) in &contents.entries {
            let kind = match &item.kind {
                ItemKind::Folder => EntryKind::Folder,
                ItemKind::Symlink(target) => EntryKind::Symlink(target),
                ItemKind::HardLink(target) => EntryKind::HardLink(target),
                ItemKind::File(source) => EntryKind::File { size: source.size() },
            };
            let entry = Entry {
                path,
                kind,
                mode: item.mode,
                uid: item.uid,
                gid: item.gid,
                mtime: self.mtime,
                xattrs: &item.xattrs,
            };
            match &item.kind {
                ItemKind::File(FileSource::Disk(file)) => {
                    let started = SystemTime::now();
                    let reader = task.reader(open(file)?);
                    // What was read a moment ago may have changed without a new time stamp.
                    if self.known.digest(file).is_some() {
                        let mut reader = reader;
                        tar.append_file(&entry, &mut reader, &mut buffer)?;
                    } else {
                        let mut reader = Hashing::new(reader);
                        tar.append_file(&entry, &mut reader, &mut buffer)?;
                        self.remember_file(file, reader.finish(), started);
                    }
                }
                ItemKind::File(FileSource::Inline(bytes)) => {
                    tar.append_file(&entry, &mut bytes.as_slice(), &mut buffer)?;
                }
                ItemKind::File(FileSource::Stored { digest, .. }) => {
                    let path = self.store.blob_path(digest);
                    let file = File::open(&path).or_io(|| format!("cannot open {}", path.display()))?;
                    tar.append_file(&entry, &mut task.reader(file), &mut buffer)?;
                }
                _ => tar.append(&entry)?,
            }
        }
        tar.finish()?.finish()
    }
}

/// Opens a file of the context, which must be the one that was listed.
pub(crate) fn open(file: &OnDisk) -> Result<File> {
    let place = || format!("cannot open {}", file.path.display());
    let opened = File::open(&file.path).or_read(place)?;
    let metadata = opened.metadata().or_read(place)?;
    if (Identity::of(&metadata), metadata.len()) != (file.identity, file.size) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("{} changed while the image was being built", file.path.display()),
        )
        .hint("build again when nothing writes to the build context"));
    }
    Ok(opened)
}

/// Hashes what is read.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Collects results of parallel work.
pub(crate) fn collected<T>(results: Mutex<T>) -> T {
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
