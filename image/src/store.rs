//! The store: an OCI image layout on disk (image-layout.md), which other OCI tools read as it is.
//!
//! Blobs are written under a partial name on the same file system, synced, and renamed: a reader never sees half
//! a blob. Names live in `index.json`, replaced atomically under a lock. Whoever reads or adds holds the store's
//! shared lock ([`Store::share`]); whoever removes holds it alone, so nothing that is being used goes.

mod blob_writer;
mod collect;
mod repair;

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

pub use blob_writer::BlobWriter;
pub use collect::Collected;

use crate::digest::{Digest, Hasher, verify};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::file;
use crate::lock::{self, Lock};
use crate::progress::Task;
use crate::reference::Reference;
use crate::source::{Extent, Source};
use crate::spec::{self, Descriptor, Index, annotation};

/// Buffer for moving bytes: large enough that system calls do not count.
pub(crate) const BLOCK: usize = 256 << 10;

/// An OCI image layout that sealrs owns.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

/// A container image's blob as it lies inside a layer: what goes before and after its bytes.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Written before the blob: tar headers.
    pub before: Vec<u8>,
    /// Written after it: padding and the tar's end.
    pub after: Vec<u8>,
}

impl Store {
    /// Whether there is a store below `root`.
    #[must_use]
    pub fn is_there(root: &Path) -> bool {
        root.join("store/oci-layout").exists()
    }

    /// Opens `<root>/store`, making it if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when it can't be made, [`ErrorKind::Conflict`] when something else lies there.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("store");
        let store = Self { path };
        for folder in ["blobs/sha256", "partial"] {
            let folder = store.path.join(folder);
            fs::create_dir_all(&folder).or_io(|| format!("cannot make the store's folder {}", folder.display()))?;
        }
        let marker = store.path.join("oci-layout");
        if !marker.exists() {
            // Who prunes would take the file for a left-over.
            let _lock = store.share()?;
            file::write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        }
        if !store.index_path().exists() {
            let _shared = store.share()?;
            let _lock = store.lock_index()?;
            if !store.index_path().exists() {
                file::write(&store.index_path(), &spec::canonical(&Index::new(Vec::new()))?, 0o644)?;
            }
        }
        Ok(store)
    }

    /// The store for whoever only reads: nothing is made, and where there is no store it is empty.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when nobody can be let in there.
    pub fn look(root: &Path) -> Result<Self> {
        let path = root.join("store");
        match fs::metadata(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).or_io(|| format!("cannot read the store {}", path.display()))
            }
            _ => Ok(Self { path }),
        }
    }

    /// A layout of somebody else's, whose blobs are written as a store's are.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The layout's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where unfinished work lies, which `prune` removes.
    #[must_use]
    pub fn partial_folder(&self) -> PathBuf {
        self.path.join("partial")
    }

    /// Holds the store: nothing is removed from it until the lock is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the lock file can't be opened.
    pub fn share(&self) -> Result<Lock> {
        if !self.path.exists() {
            return Ok(Lock::nothing());
        }
        lock::shared(&self.path.join("lock"))
    }

    /// Where a blob lies, or would lie.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there, whole.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// The size of a blob in bytes, if it is there.
    #[must_use]
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::metadata(self.blob_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Removes a blob that proved damaged, so that it can be copied again.
    pub(crate) fn forget(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        fs::remove_file(&path).or_io(|| format!("cannot remove {}", path.display()))
    }

    /// The descriptor under a name. A reference with tag and digest must agree with what is stored.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when `index.json` can't be read.
    pub fn resolve(&self, name: &Reference) -> Result<Option<Descriptor>> {
        Ok(self
            .index()?
            .manifests
            .into_iter()
            .filter(|entry| name.digest().is_none_or(|digest| entry.digest == digest))
            .find(|entry| {
                entry_name(entry).is_some_and(|stored| {
                    stored.repository() == name.repository() && (name.tag().is_none() || stored.tag() == name.tag())
                })
            })
            .map(without_name))
    }

    /// The descriptors whose digest starts with these hex digits, for `inspect 3f2a…`.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when `index.json` can't be read.
    pub fn resolve_prefix(&self, hex: &str) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = self
            .index()?
            .manifests
            .into_iter()
            .filter(|entry| entry.digest.hex().starts_with(hex))
            .map(without_name)
            .collect();
        found.sort_by_key(|entry| entry.digest);
        found.dedup_by_key(|entry| entry.digest);
        Ok(found)
    }

    /// All names with what they stand for, sorted by name; images without a name come with `None`.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when `index.json` can't be read.
    pub fn list(&self) -> Result<Vec<(Option<Reference>, Descriptor)>> {
        let mut all: Vec<_> = self
            .index()?
            .manifests
            .into_iter()
            .map(|entry| (entry_name(&entry), without_name(entry)))
            .collect();
        all.sort_by(|a, b| (&a.0, a.1.digest).cmp(&(&b.0, b.1.digest)));
        Ok(all)
    }

    /// Gives an image a name, taking it from the image that had it. Without a name it is kept under its digest, or
    /// under the names that it has already.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when `index.json` can't be written.
    pub fn tag(&self, name: Option<&Reference>, image: &Descriptor) -> Result<()> {
        self.edit_index(|index| {
            let known = index.manifests.iter().any(|old| old.digest == image.digest);
            if name.is_some() || !known {
                enter(index, name, image);
            }
        })
    }

    /// Gives an image a name, if that still means the image `before`, or none. Gives whether it did.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when `index.json` can't be written.
    pub fn retag(&self, name: &Reference, before: Option<Digest>, image: &Descriptor) -> Result<bool> {
        self.edit_index(|index| {
            let mut named = index
                .manifests
                .iter()
                .filter(|entry| entry_name(entry).as_ref() == Some(name));
            let is_so = named.next().map(|entry| entry.digest) == before;
            if is_so {
                enter(index, Some(name), image);
            }
            is_so
        })
    }

    /// Starts a new blob whose digest will be known at its end.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the partial file can't be made.
    pub fn create(&self) -> Result<BlobWriter> {
        BlobWriter::create(&self.path)
    }

    /// Puts a small blob in.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when it can't be written.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.has(&descriptor.digest) {
            let mut writer = self.create()?;
            writer.write_all(bytes).or_io(|| "cannot write to the store")?;
            writer.finish()?;
        }
        Ok(descriptor)
    }

    /// Copies a blob from `source`, continuing where an interrupted copy stopped, and verifies it.
    ///
    /// # Errors
    /// What the source or the disk meets; [`ErrorKind::Integrity`] when the bytes are not the blob's. A partial
    /// that proved wrong is removed, and the blob copied from its start; one that is merely incomplete is kept for
    /// the next try.
    pub fn fetch(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        let envelope = Envelope {
            before: Vec::new(),
            after: Vec::new(),
        };
        let partial = self.path.join("partial").join(blob.digest.hex());
        self.fetch_into(blob, &envelope, &partial, source, task).map(drop)
    }

    /// Copies a blob from `source` into a layer: `before`, the blob, `after`. Gives the layer's digest and size.
    /// Resumes and verifies like [`Store::fetch`].
    ///
    /// # Errors
    /// As [`Store::fetch`].
    pub fn fetch_enveloped(
        &self,
        blob: &Descriptor,
        envelope: &Envelope,
        source: &dyn Source,
        task: &Task<'_>,
    ) -> Result<(Digest, u64)> {
        let partial = self.path.join("partial").join(format!("{}.layer", blob.digest.hex()));
        self.fetch_into(blob, envelope, &partial, source, task)
    }

    fn fetch_into(
        &self,
        blob: &Descriptor,
        envelope: &Envelope,
        partial: &Path,
        source: &dyn Source,
        task: &Task<'_>,
    ) -> Result<(Digest, u64)> {
        let plain = envelope.before.is_empty() && envelope.after.is_empty();
        let place = || format!("cannot write {}", partial.display());
        // Two processes may want the same blob: the second waits, and then finds it done.
        let mut file = lock::own(partial)?;
        // One of another size is damaged, or the descriptor lies: either shows when it is fetched.
        if plain && self.size(&blob.digest) == Some(blob.size) {
            task.advance(blob.size);
            let _ = fs::remove_file(partial);
            return Ok((blob.digest, blob.size));
        }

        let mut inner = Hasher::new();
        let mut outer = Hasher::new();
        let before = envelope.before.len() as u64;
        let kept = file.metadata().or_io(place)?.len();
        if kept > before && kept <= before.saturating_add(blob.size) {
            rehash(&mut file, &envelope.before, &mut inner, &mut outer).or_io(place)?;
            task.advance(inner.size());
        }
        if outer.size() == 0 {
            // Nothing usable was there.
            inner = Hasher::new();
            file.set_len(0).or_io(place)?;
            file.seek(SeekFrom::Start(0)).or_io(place)?;
            file.write_all(&envelope.before).or_io(place)?;
            outer.update(&envelope.before);
        }

        let resumed = inner.size() > 0;
        let mut reader: Box<dyn Read + Send + '_> = if inner.size() < blob.size {
            source.open(blob, inner.size())?
        } else {
            Box::new(io::empty())
        };
        let mut buffer = vec![0u8; BLOCK];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(error).or_io(|| format!("cannot read blob {} from {}", blob.digest, source.origin()));
                }
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            inner.update(bytes);
            if !plain {
                outer.update(bytes);
            }
            if inner.size() > blob.size {
                break;
            }
            file.write_all(bytes).or_io(place)?;
            task.advance(read as u64);
        }
        if inner.size() < blob.size {
            // Incomplete, not wrong: what came is kept and the next try continues.
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "blob {} ends after {} of {} bytes in {}",
                    blob.digest,
                    inner.size(),
                    blob.size,
                    source.origin()
                ),
            )
            .hint("the source is truncated: copy it again from where it came"));
        }
        if let Err(error) = verify(inner, blob.digest, blob.size) {
            // While it is still ours: who waits for the file must find its name gone.
            let _ = fs::remove_file(partial);
            drop(file);
            // Perhaps only what an earlier try left was wrong: a power cut leaves holes.
            return match resumed {
                true => self.fetch_into(blob, envelope, partial, source, task),
                false => Err(error),
            };
        }
        file.write_all(&envelope.after).or_io(place)?;
        file.sync_data().or_io(place)?;
        let (digest, size) = if plain {
            (blob.digest, blob.size)
        } else {
            outer.update(&envelope.after);
            let size = outer.size();
            (outer.finish(), size)
        };
        fs::rename(partial, self.blob_path(&digest)).or_io(place)?;
        Ok((digest, size))
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    fn lock_index(&self) -> Result<Lock> {
        lock::exclusive(&self.path.join("index.lock"))
    }

    fn index(&self) -> Result<Index> {
        let path = self.index_path();
        let bytes = match fs::read(&path) {
            // Nobody has put anything there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::new(Vec::new())),
            bytes => bytes.or_io(|| format!("cannot read {}", path.display()))?,
        };
        spec::parse(&bytes, &path.display().to_string()).map_err(|error| {
            error.hint("the store's index is damaged: restore it, or choose another store with `--root`")
        })
    }

    fn edit_index<T>(&self, edit: impl FnOnce(&mut Index) -> T) -> Result<T> {
        let _lock = self.lock_index()?;
        let mut index = self.index()?;
        let done = edit(&mut index);
        // Nothing may be listed whose blobs a power cut could still take away.
        file::sync_folder(&self.path.join("blobs/sha256"))?;
        file::write(&self.index_path(), &spec::canonical(&index)?, 0o644)?;
        Ok(done)
    }
}

impl Source for Store {
    fn origin(&self) -> String {
        format!("the store {}", self.path.display())
    }

    fn extent(&self, blob: &Descriptor) -> Option<Extent> {
        let file = File::open(self.blob_path(&blob.digest)).ok()?;
        Some(Extent { file, offset: 0 })
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let path = self.blob_path(&blob.digest);
        let mut file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("the store lacks blob {}", blob.digest))
                .because(error)
                .hint("load or pull the image again"),
            // A blob that can't be opened is not one that is not there: collecting must not take it for that.
            _ => Error::new(
                ErrorKind::Disk,
                format!("cannot open blob {} of the store", blob.digest),
            )
            .because(error),
        })?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))
                .or_io(|| format!("cannot read {}", path.display()))?;
        }
        Ok(Box::new(file))
    }
}

/// The name of an entry of `index.json`. Entries that other tools wrote may have none that is a reference.
fn entry_name(entry: &Descriptor) -> Option<Reference> {
    entry.annotations.get(annotation::REF_NAME)?.parse().ok()
}

/// Lists an image, in place of the one that had its name.
fn enter(index: &mut Index, name: Option<&Reference>, image: &Descriptor) {
    let mut entry = without_name(image.clone());
    if let Some(name) = name {
        for key in [annotation::REF_NAME, annotation::CONTAINERD_NAME] {
            entry.annotations.insert(key.to_owned(), name.to_string());
        }
        index.manifests.retain(|old| {
            let old_name = entry_name(old);
            // An image that gets a name needs no nameless entry any more.
            old_name.as_ref() != Some(name) && (old_name.is_some() || old.digest != entry.digest)
        });
    }
    index.manifests.push(entry);
    index.manifests.sort_by_key(|entry| (entry_name(entry), entry.digest));
}

fn without_name(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(annotation::REF_NAME);
    entry.annotations.remove(annotation::CONTAINERD_NAME);
    entry
}

/// Feeds what a partial file holds to the hashers; leaves `outer` empty when it does not start as it should.
fn rehash(file: &mut File, before: &[u8], inner: &mut Hasher, outer: &mut Hasher) -> io::Result<()> {
    let mut start = vec![0u8; before.len()];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut start)?;
    if start != before {
        return Ok(());
    }
    outer.update(before);
    let mut buffer = vec![0u8; BLOCK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            // A plain copy has nothing before it, and yet must count as started.
            return Ok(());
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        inner.update(bytes);
        outer.update(bytes);
    }
}

#[cfg(test)]
mod tests;
