//! Archive files: reading OCI archives (an image layout in a tar) and Docker's, in place; writing OCI archives.
//!
//! Reading makes one pass over the headers and seeks over the payload: nothing is unpacked to a temporary place.

mod continued;
mod delta;
mod docker;
mod docker_sink;
mod entries;
mod output;
mod parts;
mod receive;
mod stream;
mod volume;
mod writer;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

pub use delta::{Base, Completed, Delta};
pub use docker_sink::DockerArchiveSink;
use entries::Entries;
pub use entries::{Input, open_stream};
pub use output::Output;
pub use receive::Received;
pub use stream::ArchiveStream;
use volume::{Volume, VolumeReader};
pub use writer::ArchiveSink;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::layer::{MemberKind, TarReader};
use crate::layout;
use crate::reference::Reference;
use crate::source::{self, Source};
use crate::spec::{self, Descriptor, Index, MAX_DOCUMENT, annotation};

/// An archive has a few thousand entries; millions are an attack.
const MAX_ENTRIES: usize = 1 << 20;

/// A tar's blocks have so many bytes.
const TAR_BLOCK: u64 = 512;

const NO_ARCHIVE: &str = "give a file that `sealrs save`, `skopeo copy … oci-archive:` or `docker save` made";

/// The images of an archive, with the names they were saved under.
type Images = Vec<(Option<Reference>, Descriptor)>;

/// An archive file whose entries are known.
#[derive(Debug)]
pub struct Archive {
    volume: Volume,
    images: Vec<(Option<Reference>, Descriptor)>,
    /// The tag of each image as an OCI archive has it, which may be no name: `v1`.
    tags: Vec<Option<String>>,
    bases: Vec<Base>,
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
    /// Whether `path` is a file or stands for the parts of a split archive.
    #[must_use]
    pub fn is_there(path: &Path) -> bool {
        path.exists() || parts::common_name(path).is_some()
    }

    /// Reads an archive's table of contents. A split archive is named by its first part, or without a number.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is neither kind of archive, is cut off or names an entry twice.
    pub fn open(path: &Path) -> Result<Self> {
        let mut archive = Self {
            volume: Volume::open(path)?,
            images: Vec::new(),
            tags: Vec::new(),
            bases: Vec::new(),
            blobs: BTreeMap::new(),
        };
        match archive.read() {
            Ok(()) => Ok(archive),
            Err(error) => Err(archive.explain(error)),
        }
    }

    fn read(&mut self) -> Result<()> {
        self.refuse_packed()?;
        let entries = self.entries()?;
        if entries.contains_key("index.json") {
            self.read_layout(&entries)
        } else if entries.contains_key("manifest.json") {
            docker::read(self, &entries)
        } else {
            Err(self
                .damaged("it has neither an `index.json` (OCI archive) nor a `manifest.json` (Docker archive)")
                .hint(NO_ARCHIVE))
        }
    }

    /// The images inside, with the names they were saved under.
    #[must_use]
    pub fn images(&self) -> &[(Option<Reference>, Descriptor)] {
        &self.images
    }

    /// The image under a tag as it stands there (`v1`), or under a name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub fn find(&self, tag: &str) -> Result<Descriptor> {
        let named = self
            .images
            .iter()
            .map(|(name, image)| (name.as_ref().map(ToString::to_string), image));
        let tagged = self
            .tags
            .iter()
            .cloned()
            .zip(self.images.iter().map(|(_, image)| image));
        let mut all: Vec<(Option<String>, &Descriptor)> = named.chain(tagged).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all.dedup_by(|one, other| one.0 == other.0);
        layout::tagged(
            all.iter().map(|(tag, image)| (tag.as_deref(), *image)),
            tag,
            &self.origin(),
        )
    }

    /// The images that a store has to hold for this archive to be whole: those that it was saved `--since`.
    #[must_use]
    pub fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// Says which parts of a split archive are to blame for a failure, if it comes from damaged bytes.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Integrity {
            return error;
        }
        let damaged = match self.volume.damaged_parts() {
            Ok(damaged) if damaged.is_empty() => return error,
            Ok(damaged) => damaged,
            Err(failure) => return failure,
        };
        let names: Vec<String> = damaged.iter().map(|part| part.display().to_string()).collect();
        let what = match names.as_slice() {
            [one] => format!("the part {one} is damaged: it has not the digest that was written when it was saved"),
            several => format!(
                "the parts {} are damaged: they have not the digests that were written when they were saved",
                several.join(", ")
            ),
        };
        Error::new(ErrorKind::Integrity, what)
            .because(error)
            .hint("copy what is damaged again from where it came")
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
        let tag = |image: &Descriptor| image.annotations.get(annotation::REF_NAME).cloned();
        self.tags = index.manifests.iter().map(tag).collect();
        (self.images, self.bases) = listed(index)?;
        if self.images.is_empty() {
            return Err(self.damaged("its `index.json` lists no image"));
        }
        Ok(())
    }

    /// Finds where each file lies.
    fn entries(&self) -> Result<BTreeMap<String, Extent>> {
        let length = self.volume.len();
        let mut found = BTreeMap::new();
        let mut links = Vec::new();
        let mut tar = TarReader::new(self.volume.reader(0, u64::MAX));
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
                return Err(match self.volume.last_part() {
                    Some(part) => self.damaged(&format!("it is cut off inside `{name}`")).hint(format!(
                        "{} is not the last part, or is cut off: copy the parts again from where they came",
                        part.display()
                    )),
                    None => self
                        .damaged(&format!("it is cut off inside `{name}`"))
                        .hint("copy it again from where it came"),
                });
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

    fn read_extent(&self, extent: Extent, offset: u64) -> VolumeReader<'_> {
        let offset = offset.min(extent.size);
        self.volume.reader(extent.offset + offset, extent.size - offset)
    }

    fn refuse_packed(&self) -> Result<()> {
        let mut start = Vec::new();
        let mut reader = self.volume.reader(0, TAR_BLOCK);
        reader.read_to_end(&mut start).or_io(|| self.place())?;
        let Some((packed, unpack)) = packed_with(&start) else {
            return match begins_tar(&start) {
                true => Ok(()),
                false => Err(self.damaged(no_archive(&start)).hint(NO_ARCHIVE)),
            };
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

/// What is wrong with something that starts like this and is no tar.
fn no_archive(start: &[u8]) -> &'static str {
    match start.is_empty() {
        true => "it is empty",
        false => "it is no archive",
    }
}

/// Whether a tar starts like this: with a header whose checksum is right, or with its end.
fn begins_tar(start: &[u8]) -> bool {
    let Ok(block) = <&[u8; TAR_BLOCK as usize]>::try_from(start) else {
        return false;
    };
    let field = 148..156;
    let bytes = block.iter().enumerate().map(|(at, byte)| match field.contains(&at) {
        true => u32::from(b' '),
        false => u32::from(*byte),
    });
    let stated = tar::Header::from_byte_slice(block).cksum();
    block.iter().all(|byte| *byte == 0) || stated.is_ok_and(|stated| stated == bytes.sum::<u32>())
}

/// What a file that starts like this is packed with, and what unpacks it.
fn packed_with(start: &[u8]) -> Option<(&'static str, &'static str)> {
    match start {
        [0x1f, 0x8b, ..] => Some(("gzip", "gunzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(("zstd", "unzstd")),
        _ => None,
    }
}

/// The images that an `index.json` lists, with their names, and the images that they are based on.
fn listed(index: Index) -> Result<(Images, Vec<Base>)> {
    let mut images = Vec::new();
    let mut bases: Vec<Base> = Vec::new();
    for mut image in index.manifests {
        let name = layout::take_name(&mut image);
        for base in delta::take_bases(&mut image)? {
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        images.push((name, image));
    }
    Ok((images, bases))
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
        format!("archive {}", self.volume.path().display())
    }

    fn extent(&self, blob: &Descriptor) -> Option<source::Extent> {
        match self.blobs.get(&blob.digest)? {
            Place::At(extent) => self.volume.extent(extent.offset),
            Place::Made(_) => None,
        }
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        match self.blobs.get(&blob.digest) {
            Some(Place::At(extent)) => Ok(Box::new(self.read_extent(*extent, offset))),
            Some(Place::Made(bytes)) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(Cursor::new(bytes.get(start..).unwrap_or_default())))
            }
            None => Err(self.lacks(blob, None)),
        }
    }
}

#[cfg(test)]
mod tests;
