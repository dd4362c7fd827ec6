//! Archive files: reading OCI archives (an image layout in a tar) and Docker's, in place; writing OCI archives.
//!
//! Reading makes one pass over the headers and seeks over the payload: nothing is unpacked to a temporary place.

mod docker;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub use writer::ArchiveSink;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::layer::{MemberKind, TarReader};
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::{self, Descriptor, Index, MAX_DOCUMENT, annotation};

/// An archive has a few thousand entries; millions are an attack.
const MAX_ENTRIES: usize = 1 << 20;

/// An archive file whose entries are known.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    images: Vec<(Option<Reference>, Descriptor)>,
    blobs: BTreeMap<Digest, Place>,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
enum Place {
    /// In the file.
    At(Extent),
    /// Made from a Docker archive's own documents.
    Made(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    size: u64,
}

impl Archive {
    /// Reads an archive's table of contents.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is neither kind of archive, is cut off or names an entry twice.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).or_io(|| format!("cannot open {}", path.display()))?;
        let mut archive = Self {
            path: path.to_owned(),
            file,
            images: Vec::new(),
            blobs: BTreeMap::new(),
        };
        archive.refuse_packed()?;
        let entries = archive.entries()?;
        if entries.contains_key("index.json") {
            archive.read_layout(&entries)?;
        } else if entries.contains_key("manifest.json") {
            docker::read(&mut archive, &entries)?;
        } else {
            return Err(archive
                .damaged("it has neither an `index.json` (OCI archive) nor a `manifest.json` (Docker archive)")
                .hint("give a file that `sealrs save`, `skopeo copy … oci-archive:` or `docker save` made"));
        }
        Ok(archive)
    }

    /// The images inside, with the names they were saved under.
    #[must_use]
    pub fn images(&self) -> &[(Option<Reference>, Descriptor)] {
        &self.images
    }

    fn read_layout(&mut self, entries: &BTreeMap<String, Extent>) -> Result<()> {
        for (name, extent) in entries {
            let Some(hex) = name.strip_prefix("blobs/sha256/") else {
                continue;
            };
            // Only what can be named by a descriptor counts; anything else is not ours to judge.
            if let Ok(digest) = format!("sha256:{hex}").parse() {
                self.blobs.insert(digest, Place::At(*extent));
            }
        }
        let bytes = self.small_entry(entries, "index.json")?;
        let index: Index = spec::parse(&bytes, &format!("`index.json` of {}", self.origin()))?;
        self.images = index
            .manifests
            .into_iter()
            .map(|mut image| {
                let mut name = None;
                for key in [annotation::CONTAINERD_NAME, annotation::REF_NAME] {
                    let text = image.annotations.remove(key);
                    // A bare tag (`v1`), as skopeo may write, names no image.
                    name = name.or_else(|| text.filter(|text| text.contains([':', '/']))?.parse().ok());
                }
                (name, image)
            })
            .collect();
        if self.images.is_empty() {
            return Err(self.damaged("its `index.json` lists no image"));
        }
        Ok(())
    }

    /// Finds where each file lies.
    fn entries(&self) -> Result<BTreeMap<String, Extent>> {
        let length = self.file.metadata().or_io(|| self.place())?.len();
        let mut found = BTreeMap::new();
        let mut links = Vec::new();
        let mut tar = TarReader::new(&self.file);
        loop {
            let next = tar.next_seeking();
            let Some(member) = next.map_err(|error| self.damaged("it is not a tar, or is cut off").because(error))?
            else {
                break;
            };
            if found.len() + links.len() >= MAX_ENTRIES {
                return Err(self.damaged("it has more than a million entries"));
            }
            let name = member.path.strip_prefix("./").unwrap_or(&member.path).to_owned();
            let size = match member.kind {
                MemberKind::File(size) => size,
                MemberKind::Symlink(target) => {
                    links.push((name, target));
                    continue;
                }
                _ => continue,
            };
            let extent = Extent {
                offset: member.offset,
                size,
            };
            if extent.offset.checked_add(extent.size).is_none_or(|end| end > length) {
                return Err(self
                    .damaged(&format!("it is cut off inside `{name}`"))
                    .hint("copy it again from where it came"));
            }
            if found.insert(name.clone(), extent).is_some() {
                return Err(self.damaged(&format!("it holds `{name}` twice")));
            }
        }
        // Docker stores a layer that comes twice as a link to the first.
        for (name, target) in links {
            if let Some(&extent) = found.get(&link_target(&name, &target)) {
                found.entry(name).or_insert(extent);
            }
        }
        Ok(found)
    }

    fn small_entry(&self, entries: &BTreeMap<String, Extent>, name: &str) -> Result<Vec<u8>> {
        let extent = entries
            .get(name)
            .ok_or_else(|| self.damaged(&format!("it lacks `{name}`")))?;
        if extent.size > MAX_DOCUMENT {
            return Err(self.damaged(&format!("its `{name}` has {} bytes", extent.size)));
        }
        let mut bytes = Vec::new();
        self.read_extent(*extent, 0)
            .read_to_end(&mut bytes)
            .or_io(|| self.place())?;
        Ok(bytes)
    }

    fn read_extent(&self, extent: Extent, offset: u64) -> ExtentReader<'_> {
        let offset = offset.min(extent.size);
        ExtentReader {
            file: &self.file,
            position: extent.offset + offset,
            left: extent.size - offset,
        }
    }

    fn refuse_packed(&self) -> Result<()> {
        let mut start = Vec::new();
        let mut file = &self.file;
        file.take(4).read_to_end(&mut start).or_io(|| self.place())?;
        file.seek(SeekFrom::Start(0)).or_io(|| self.place())?;
        let (packed, unpack) = match start.as_slice() {
            [0x1f, 0x8b, ..] => ("gzip", "gunzip"),
            [0x28, 0xb5, 0x2f, 0xfd] => ("zstd", "unzstd"),
            _ => return Ok(()),
        };
        Err(self
            .damaged(&format!("the whole file is packed with {packed}"))
            .hint(format!(
                "its layers are packed already; unpack the file with `{unpack}` first"
            )))
    }

    fn damaged(&self, why: &str) -> Error {
        Error::new(ErrorKind::Integrity, format!("cannot read {}: {why}", self.origin()))
    }

    fn place(&self) -> String {
        format!("cannot read {}", self.origin())
    }
}

/// The name that a symbolic link in the archive points to.
fn link_target(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Source for Archive {
    fn origin(&self) -> String {
        format!("archive {}", self.path.display())
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        match self.blobs.get(&blob.digest) {
            Some(Place::At(extent)) => Ok(Box::new(self.read_extent(*extent, offset))),
            Some(Place::Made(bytes)) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(Cursor::new(bytes.get(start..).unwrap_or_default())))
            }
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("{} lacks blob {}", self.origin(), blob.digest),
            )
            .hint("save the image again, or copy the file again from where it came")),
        }
    }
}

/// Reads a part of a file without moving its cursor, so that several can read at once.
struct ExtentReader<'f> {
    file: &'f File,
    position: u64,
    left: u64,
}

impl Read for ExtentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self
            .file
            .read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.position)?;
        self.position += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
