//! From contents to a layer in the store: by the cache, or by reading every file once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::Mutex;
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

/// The digests of files that were read just now. They say what went into this layer, even of a file whose time stamps
/// are too young to tell the next build that it is still the same.
pub(crate) type Digests = BTreeMap<(Identity, u64), Digest>;

/// What packing needs.
pub(crate) struct Packing<'b> {
    pub(crate) store: &'b Store,
    pub(crate) cache: &'b Cache,
    pub(crate) known: &'b KnownFiles,
    pub(crate) compression: Compression,
    /// Seconds since 1970 that all entries get.
    pub(crate) mtime: u64,
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
        if self.use_cache {
            let read = self.learn(contents, shape, what)?;
            if let Some(layer) = self.cached(contents, &settings, &read) {
                return Ok(Packed { layer, cached: true });
            }
        }
        let (layer, read) = self.write(contents, what)?;
        self.cache
            .remember_listing(&layer.descriptor.digest, &Listing::of(contents))?;
        if let Some(key) = self.key(contents, &settings, &read) {
            self.cache.remember_layer(&key, &layer)?;
        }
        self.cache.remember_shape(&shape())?;
        Ok(Packed { layer, cached: false })
    }

    /// The layer that was made of this.
    pub(crate) fn cached(&self, contents: &Contents, settings: &str, read: &Digests) -> Option<PackedLayer> {
        self.known_layer(&self.key(contents, settings, read)?)
    }

    /// The layer under a key, if the store still has it.
    pub(crate) fn known_layer(&self, key: &Digest) -> Option<PackedLayer> {
        let layer = self.cache.layer(key)?;
        self.store.has(&layer.descriptor.digest).then_some(layer)
    }

    /// The key in the cache; none as long as a file's content is not known.
    pub(crate) fn key(&self, contents: &Contents, settings: &str, read: &Digests) -> Option<Digest> {
        describe(contents, settings, Some(&|source| self.digest(source, read)))
    }

    fn digest(&self, source: &FileSource, read: &Digests) -> Option<Digest> {
        match source {
            FileSource::Disk(file) => {
                let read = read.get(&(file.identity, file.size)).copied();
                read.or_else(|| self.known.digest(file))
            }
            FileSource::Inline(bytes) => Some(Digest::of(bytes)),
            FileSource::Stored { digest, .. } => Some(*digest),
        }
    }

    /// Hashes the files whose content is not known, where that is likely to save packing: they are few, or a layer
    /// of the same names and sizes was built before (a fresh checkout of the same files).
    pub(crate) fn learn(&self, contents: &Contents, shape: impl FnOnce() -> Digest, what: &str) -> Result<Digests> {
        let unknown: Vec<&OnDisk> = contents
            .files()
            .filter_map(|(_, source)| match source {
                FileSource::Disk(file) if self.known.digest(file).is_none() => Some(file),
                _ => None,
            })
            .collect();
        let bytes: u64 = unknown.iter().map(|file| file.size).sum();
        if unknown.is_empty() || (bytes > CHEAP_TO_HASH && !self.cache.knows_shape(&shape())) {
            return Ok(Digests::default());
        }
        let read = Mutex::new(Digests::default());
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
                let digest = hasher.finish();
                self.known.remember(file, digest, started);
                read.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .insert((file.identity, file.size), digest);
            }
            Ok(())
        })?;
        Ok(collected(read))
    }

    /// Gives the layer, and the digests of what was read for it.
    fn write(&self, contents: &Contents, what: &str) -> Result<(PackedLayer, Digests)> {
        let mut read = Digests::default();
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
                    if self.known.digest(file).is_some() {
                        let mut reader = reader;
                        tar.append_file(&entry, &mut reader, &mut buffer)?;
                    } else {
                        let mut reader = Hashing::new(reader);
                        tar.append_file(&entry, &mut reader, &mut buffer)?;
                        let digest = reader.finish();
                        self.known.remember(file, digest, started);
                        read.insert((file.identity, file.size), digest);
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
        Ok((tar.finish()?.finish()?, read))
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
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
