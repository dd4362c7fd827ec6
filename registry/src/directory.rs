//! A registry directory, whoever wrote it: reading it here, changing it in the modules below.
//!
//! No path leads out of the directory: it is opened once and everything is looked up beneath that handle, links
//! included. A request names repositories, tags and digests only, which are checked before they become paths.

mod changes;
mod collect;
mod content;
#[cfg(test)]
mod kill;
mod referrers;
mod upload;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::spec::{MAX_DOCUMENT, media_type};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::BlobDigest;
use crate::host::Host;
use crate::layout;
use crate::name::{Repository, Tag};
use crate::page::{Listing, Page};

pub use collect::{Collect, Collected};
pub(crate) use content::Pushed;
pub(crate) use referrers::Referrers;
pub(crate) use upload::{Upload, UploadEnd};

/// An open registry directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    dir: Dir,
    /// Held by who adds to the directory, and alone by who removes from it: nothing goes while something that
    /// needs it is on its way. Other processes are kept out by a lock on the folder of everything.
    removing: RwLock<()>,
}

/// A manifest or index as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest, which its bytes have.
    pub digest: BlobDigest,
    /// What it is.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A blob that was found. Its bytes are not verified: who reads them does that.
#[derive(Debug)]
pub struct StoredBlob {
    /// The open file.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
}

impl Directory {
    /// Opens the directory that has, or will have, `docker/registry/v2` in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it does not exist, [`ErrorKind::Disk`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let dir = Dir::open_ambient_dir(path, ambient_authority())
            .or_io(|| format!("cannot open the registry directory `{shown}`"))
            .map_err(|error| {
                error.hint("name the folder that has `docker/registry/v2` in it: `registry` of an unpacked image")
            })?;
        Ok(Self {
            path: path.to_owned(),
            dir,
            removing: RwLock::default(),
        })
    }

    /// Whether anything was ever stored in it.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when that cannot be found out.
    pub fn is_in_use(&self) -> Result<bool> {
        self.is_folder(layout::ROOT)
    }

    /// The repository that holds what a client asks for as `name`.
    ///
    /// A client that was sent here by the settings for another registry names that one as `upstream` (`ns=`, as
    /// containerd does). Then `name` is that host's repository: under the host's folder, or without a host if no
    /// other host has that path; or it has that host's folder in it already. What another host has under the same path is never given out for it.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the directory cannot be read.
    pub fn find(&self, name: &Repository, upstream: Option<&Host>) -> Result<Option<Repository>> {
        let Some(upstream) = upstream else {
            return Ok(self.has(name)?.then(|| name.clone()));
        };
        // A name that gets too long with the host cannot be stored under it.
        if let Ok(qualified) = Repository::on(upstream, name.as_str())
            && self.has(&qualified)?
        {
            return Ok(Some(qualified));
        }
        // The settings of a client may have put the host's folder into the path already.
        if name.as_str().split('/').next() == Some(&upstream.folder()) && self.has(name)? {
            return Ok(Some(name.clone()));
        }
        if name.is_on_a_host() || !self.has(name)? || self.is_on_some_host(name)? {
            return Ok(None);
        }
        Ok(Some(name.clone()))
    }

    /// Whether there is such a repository.
    fn has(&self, name: &Repository) -> Result<bool> {
        Ok(self.is_folder(&layout::manifests(name))? || self.is_folder(&layout::layers(name))?)
    }

    fn is_on_some_host(&self, name: &Repository) -> Result<bool> {
        for folder in self.folders(&layout::repositories())? {
            if !Host::is_folder(&folder) {
                continue;
            }
            if let Ok(qualified) = format!("{folder}/{name}").parse()
                && self.has(&qualified)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a tag means.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when the tag's file is damaged, [`ErrorKind::Disk`] when it cannot be read.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<BlobDigest>> {
        self.link(&layout::tag_link(repository, tag))
    }

    /// A manifest or index of a repository.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when its bytes are not what its digest says or it is no manifest,
    /// [`ErrorKind::Disk`] when it cannot be read.
    pub fn manifest(&self, repository: &Repository, digest: &BlobDigest) -> Result<Option<StoredManifest>> {
        let Some(digest) = self.link(&layout::revision_link(repository, digest))? else {
            return Ok(None);
        };
        let Some(StoredBlob { file, size }) = self.content(&digest)? else {
            return Ok(None);
        };
        let what = || format!("manifest {digest} of `{repository}`");
        if size > MAX_DOCUMENT {
            return Err(damaged(format!(
                "{} has {size} bytes, more than a manifest may have",
                what()
            )));
        }
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .or_io(|| format!("cannot read {}", what()))?;
        let found = digest.same_of(&bytes);
        if found != digest {
            return Err(damaged(format!(
                "{} is damaged: its bytes have the digest {found}",
                what()
            )));
        }
        let media_type = media_type_of(&bytes).context(|| format!("cannot tell what {} is", what()))?;
        Ok(Some(StoredManifest {
            digest,
            media_type,
            bytes,
        }))
    }

    /// A config or layer of a repository.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when the file that makes it part of the repository is damaged,
    /// [`ErrorKind::Disk`] when it cannot be opened.
    pub fn blob(&self, repository: &Repository, digest: &BlobDigest) -> Result<Option<StoredBlob>> {
        match self.link(&layout::layer_link(repository, digest))? {
            Some(digest) => self.content(&digest),
            None => Ok(None),
        }
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when they cannot be read.
    pub fn tags(&self, repository: &Repository, page: &Page) -> Result<Listing> {
        let mut tags = Vec::new();
        for name in self.folders(&layout::tags(repository))? {
            // A tag that was being made, or removed, when the power failed has a folder and no meaning.
            if let Ok(tag) = name.parse()
                && self.exists(&layout::tag_link(repository, &tag))?
            {
                tags.push(name);
            }
        }
        Ok(page.of(tags))
    }

    /// The repositories.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when they cannot be read.
    pub fn repositories(&self, page: &Page) -> Result<Listing> {
        let mut found = Vec::new();
        self.each_repository(&mut |repository| {
            if self.has(repository)? {
                found.push(repository.to_string());
            }
            Ok(())
        })?;
        Ok(page.of(found))
    }

    /// Visits every folder that is, or has the name of, a repository.
    fn each_repository(&self, visit: &mut dyn FnMut(&Repository) -> Result<()>) -> Result<()> {
        let mut parents = vec![String::new()];
        while let Some(parent) = parents.pop() {
            for name in self.folders(&format!("{}/{parent}", layout::repositories()))? {
                // The grammar bounds the depth: a name has at most 255 characters.
                let Ok(repository) = format!("{parent}{name}").parse::<Repository>() else {
                    continue;
                };
                visit(&repository)?;
                parents.push(format!("{repository}/"));
            }
        }
        Ok(())
    }

    /// A blob's bytes, whichever repository they belong to, or to none.
    pub(crate) fn content(&self, digest: &BlobDigest) -> Result<Option<StoredBlob>> {
        self.file(&layout::blob_data(digest))
    }

    /// The digest in a `link` file.
    fn link(&self, path: &str) -> Result<Option<BlobDigest>> {
        const LENGTH: u64 = 256;
        let Some(StoredBlob { file, .. }) = self.file(path)? else {
            return Ok(None);
        };
        let mut text = String::new();
        file.take(LENGTH)
            .read_to_string(&mut text)
            .or_io(|| format!("cannot read `{path}`"))?;
        match text.parse() {
            Ok(digest) => Ok(Some(digest)),
            Err(error) => Err(damaged(format!("`{path}` is damaged")).because(error)),
        }
    }

    fn file(&self, path: &str) -> Result<Option<StoredBlob>> {
        let mut options = OpenOptions::new();
        // Opening a pipe must not wait for somebody to write to it.
        options
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let failed = || self.cannot("open", path);
        let Some(file) = found(self.dir.open_with(path, &options)).or_io(failed)? else {
            return Ok(None);
        };
        let file = file.into_std();
        let metadata = file.metadata().or_io(failed)?;
        if !metadata.is_file() {
            return Err(damaged(format!("`{path}` is not a file")));
        }
        Ok(Some(StoredBlob {
            file,
            size: metadata.len(),
        }))
    }

    fn exists(&self, path: &str) -> Result<bool> {
        let metadata = found(self.dir.metadata(path)).or_io(|| self.cannot("look up", path))?;
        Ok(metadata.is_some())
    }

    fn is_folder(&self, path: &str) -> Result<bool> {
        let metadata = found(self.dir.metadata(path)).or_io(|| self.cannot("look up", path))?;
        Ok(metadata.is_some_and(|metadata| metadata.is_dir()))
    }

    /// The names of the folders in a folder, of none if it does not exist.
    fn folders(&self, path: &str) -> Result<Vec<String>> {
        let failed = || self.cannot("list", path);
        let Some(entries) = found(self.dir.read_dir(path)).or_io(failed)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.or_io(failed)?;
            if entry.file_type().or_io(failed)?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn cannot(&self, what: &str, path: &str) -> String {
        format!("cannot {what} `{}`", self.path.join(path).display())
    }
}

/// What is not there is no failure.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn damaged(what: String) -> Error {
    Error::new(ErrorKind::Integrity, what)
        .hint("the registry's directory is damaged: unpack the image again, or push the container image again")
}

/// The part of a manifest that tells what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

/// The media type of a manifest: its own word, else what it looks like (OCI's `mediaType` is optional).
pub(crate) fn media_type_of(bytes: &[u8]) -> Result<String> {
    let shape: Shape = serde_json::from_slice(bytes)
        .or_fail(ErrorKind::Integrity, || "it is no JSON document of a manifest's form")?;
    if let Some(media_type) = shape.media_type.filter(|text| is_media_type(text)) {
        return Ok(media_type);
    }
    let is_index = shape.manifests.is_some();
    let is_manifest = shape.config.is_some() || shape.layers.is_some();
    let guess = match (is_index, is_manifest, shape.fs_layers.is_some()) {
        (true, false, false) => media_type::INDEX,
        (false, true, false) => media_type::MANIFEST,
        (false, false, true) if shape.signatures.is_some() => DOCKER_SCHEMA_1_SIGNED,
        (false, false, true) => DOCKER_SCHEMA_1,
        _ => {
            return Err(Error::new(
                ErrorKind::Integrity,
                "it has no `mediaType`, and not the fields of just one kind of manifest",
            ));
        }
    };
    Ok(guess.to_owned())
}

const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// `type/subtype` of the characters that RFC 6838 allows: it becomes a header.
fn is_media_type(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && part.len() <= 127
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

#[cfg(test)]
mod tests;
