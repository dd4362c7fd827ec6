//! Writes what `docker load` reads: configs, layers as plain tars, and `manifest.json`.
//!
//! Docker names a layer by the digest of its tar and not every version of it inflates every packing, so packed layers
//! are inflated on the way. How large that makes one is known only afterwards; its header is then written again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Output;
use crate::cluster_image::unpacked_size;
use crate::copy::{Order, Sink, Taken};
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::graph;
use crate::progress::Task;
use crate::reference::Reference;
use crate::rootfs::unpacked;
use crate::source::{Source, document};
use crate::spec::{self, Config, Descriptor, Manifest, media_type};
use crate::store::BLOCK;

const TAR_BLOCK: u64 = 512;

/// A Docker archive that is being written. It gets its name when it is whole; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct DockerArchiveSink {
    names: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    output: Output,
    position: u64,
    manifest: Option<Manifest>,
    /// The digest of each layer's tar, once the config has come.
    diff_ids: Vec<Digest>,
    written: BTreeSet<Digest>,
}

impl DockerArchiveSink {
    /// Starts an archive of the image under `root`, which is for one platform, with these names.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when `root` is an index; otherwise as [`Output::file`].
    pub fn create(path: &Path, root: &Descriptor, names: &[Reference], replace: bool) -> Result<Self> {
        if media_type::is_index(&root.media_type) {
            return Err(one_platform());
        }
        Ok(Self {
            // A name without a tag can't be given to an image.
            names: names
                .iter()
                .filter(|name| name.tag().is_some())
                .map(Reference::familiar)
                .collect(),
            state: Mutex::new(State {
                output: Output::file(path, replace)?,
                position: 0,
                manifest: None,
                diff_ids: Vec::new(),
                written: BTreeSet::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_platform() -> Error {
    Error::new(ErrorKind::Input, "a Docker archive holds the image of one platform")
        .hint("choose one of its platforms, or write an OCI archive")
}

impl State {
    fn read_manifest(&mut self, blob: &Descriptor, source: &dyn Source) -> Result<()> {
        if media_type::is_index(&blob.media_type) || self.manifest.is_some() {
            return Err(one_platform());
        }
        let bytes = document(source, blob)?;
        self.manifest = Some(spec::parse(&bytes, &format!("manifest {}", blob.digest))?);
        Ok(())
    }

    fn read_config(&mut self, blob: &Descriptor, layers: usize, source: &dyn Source) -> Result<()> {
        let bytes = document(source, blob)?;
        let config: Config = spec::parse(&bytes, &format!("config {}", blob.digest))?;
        if config.rootfs.diff_ids.len() != layers {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "the image has {layers} layers and {} digests of unpacked layers",
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        self.diff_ids = config.rootfs.diff_ids;
        self.small_file(&config_path(&blob.digest), &bytes)
    }

    fn write_layer(&mut self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        let layers = self.manifest.iter().flat_map(|manifest| &manifest.layers);
        let diff_id = layers
            .zip(&self.diff_ids)
            .find(|(layer, _)| layer.digest == blob.digest);
        let Some((_, &diff_id)) = diff_id else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("layer {} came before the image's manifest and config", blob.digest),
            ));
        };
        if !self.written.insert(diff_id) {
            // The same tar, packed in another way.
            task.advance(blob.size);
            return Ok(());
        }
        let start = self.position;
        let path = layer_path(&diff_id);
        self.write(&header(&path, 0)?)?;
        let reader = task.reader(source.open(blob, 0)?);
        let reader = VerifyingReader::new(reader, blob.digest, blob.size);
        if blob.digest == diff_id {
            self.copy(reader)?;
        } else {
            let bound = unpacked_size(blob);
            unpacked(reader, &blob.media_type, diff_id, bound, |tar: &mut dyn Read| {
                self.copy(tar)
            })?;
        }
        let size = self.position - start - TAR_BLOCK;
        self.pad(size)?;
        self.output
            .rewrite(start, &header(&path, size)?)
            .or_io(|| "cannot write the archive")
    }

    fn copy(&mut self, mut content: impl Read) -> Result<()> {
        let mut buffer = vec![0u8; BLOCK];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.write(buffer.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).or_io(|| "cannot read the layer"),
            }
        }
    }

    fn small_file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.write(&header(path, bytes.len() as u64)?)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(TAR_BLOCK) - size;
        self.write(
            [0; TAR_BLOCK as usize]
                .get(..usize::try_from(padding).unwrap_or(0))
                .unwrap_or_default(),
        )
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).or_io(|| "cannot write the archive")?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn config_path(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

fn layer_path(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// A header of one block whatever the size is: beyond 8 GiB as GNU writes it, which Go's reader knows.
fn header(path: &str, size: u64) -> Result<[u8; TAR_BLOCK as usize]> {
    let mut header = tar::Header::new_gnu();
    header
        .set_path(path)
        .or_io(|| format!("cannot write {path} into the archive"))?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(*header.as_bytes())
}

impl Sink for DockerArchiveSink {
    fn order(&self) -> Order {
        Order::DocumentsFirst
    }

    fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        let mut state = self.lock();
        let config = state
            .manifest
            .as_ref()
            .map(|manifest| (manifest.config.digest, manifest.layers.len()));
        match config {
            _ if graph::is_document(blob) => {
                task.advance(blob.size);
                state.read_manifest(blob, source)?;
            }
            Some((digest, layers)) if digest == blob.digest => {
                task.advance(blob.size);
                state.read_config(blob, layers, source)?;
            }
            _ => state.write_layer(blob, source, task)?,
        }
        Ok(Taken::Moved)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let config = state
            .manifest
            .as_ref()
            .map(|manifest| config_path(&manifest.config.digest));
        let layers: Vec<String> = state.diff_ids.iter().map(layer_path).collect();
        let entry = BTreeMap::from([
            ("Config", serde_json::json!(config)),
            ("RepoTags", serde_json::json!(self.names)),
            ("Layers", serde_json::json!(layers)),
        ]);
        let list = spec::canonical(&[entry])?;
        state.small_file("manifest.json", &list)?;
        state.write(&[0; 2 * TAR_BLOCK as usize])?;
        state.output.finish()
    }
}
