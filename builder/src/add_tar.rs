//! ADD of a local tar: its entries become a layer, in their order, without a temporary copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};

use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Entry, EntryKind, LayerWriter, Member, MemberKind, PackedLayer, TarReader, TarWriter};
use sealrs_image::progress::Task;

use crate::context::{Ownership, clean, join};
use crate::image_list::LIST_PATHS;
use crate::pack::Packing;

const BUFFER: usize = 256 << 10;
/// A list of images is text; more than this is something else.
const MAX_LIST: u64 = 1 << 20;

/// What a file of the build context is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Tar,
    TarGzip,
    TarZstd,
    /// A packed tar that can't be read here, with the name of its packing.
    Unreadable(&'static str),
    /// No tar: it is copied as it is.
    Other,
}

/// Tells what a file is. ADD unpacks tars, whatever they are called.
pub(crate) fn format(path: &std::path::Path) -> Result<Format> {
    let place = || format!("cannot read {}", path.display());
    let start = |reader: &mut dyn Read| -> Result<Vec<u8>> {
        let mut start = Vec::new();
        reader.take(512).read_to_end(&mut start).or_io(place)?;
        Ok(start)
    };
    let bytes = start(&mut File::open(path).or_io(place)?)?;
    let is_tar = |bytes: &[u8]| bytes.get(257..262) == Some(b"ustar");
    // What is packed is a tar only if a tar comes out; anything else is copied as it is.
    let inside = |mut reader: Box<dyn Read>| {
        let mut start = [0u8; 512];
        reader.read_exact(&mut start).is_ok() && is_tar(&start)
    };
    Ok(match bytes.as_slice() {
        bytes if is_tar(bytes) => Format::Tar,
        [0x1f, 0x8b, ..] => {
            let file = File::open(path).or_io(place)?;
            if inside(Box::new(flate2::read::MultiGzDecoder::new(file))) {
                Format::TarGzip
            } else {
                Format::Other
            }
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let file = File::open(path).or_io(place)?;
            if inside(Box::new(zstd::Decoder::new(file).or_io(place)?)) {
                Format::TarZstd
            } else {
                Format::Other
            }
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Unreadable("xz"),
        [b'B', b'Z', b'h', ..] => Format::Unreadable("bzip2"),
        _ => Format::Other,
    })
}

/// A layer made of a tar, and the image lists that were among its entries.
pub(crate) struct Unpacked {
    pub(crate) layer: PackedLayer,
    pub(crate) lists: BTreeMap<String, String>,
    pub(crate) folders: BTreeSet<String>,
}

/// Re-writes the tar at `path` as a layer below `destination`.
pub(crate) fn pack(
    packing: &Packing<'_>,
    path: &std::path::Path,
    format: Format,
    destination: &str,
    ownership: Ownership,
) -> Result<Unpacked> {
    let place = || format!("cannot read {}", path.display());
    let file = File::open(path).or_io(place)?;
    let size = file.metadata().or_io(place)?.len();
    let task = Task::begin(packing.progress, &format!("packing {}", path.display()), Some(size));
    let reader = BufReader::with_capacity(BUFFER, task.reader(file));
    let input: Box<dyn Read + '_> = match format {
        Format::TarGzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Format::TarZstd => Box::new(zstd::Decoder::with_buffer(reader).or_io(place)?),
        _ => Box::new(reader),
    };
    let mut rewriting = Rewriting {
        tar: TarWriter::new(LayerWriter::new(packing.store, packing.compression)?),
        destination,
        ownership,
        mtime: packing.mtime,
        buffer: vec![0; BUFFER],
        lists: BTreeMap::new(),
        folders: BTreeSet::new(),
    };
    let mut reader = TarReader::new(input);
    while let Some(member) = reader.next().context(place)? {
        rewriting
            .entry(&member, &mut reader)
            .context(|| format!("cannot take over `{}` of {}", member.path.escape_debug(), path.display()))?;
    }
    Ok(Unpacked {
        layer: rewriting.tar.finish()?.finish()?,
        lists: rewriting.lists,
        folders: rewriting.folders,
    })
}

struct Rewriting<'p> {
    tar: TarWriter<LayerWriter>,
    destination: &'p str,
    ownership: Ownership,
    mtime: u64,
    buffer: Vec<u8>,
    lists: BTreeMap<String, String>,
    folders: BTreeSet<String>,
}

impl Rewriting<'_> {
    fn entry<R: Read>(&mut self, member: &Member, reader: &mut TarReader<R>) -> Result<()> {
        let path = join(self.destination, &clean(&member.path)?);
        if path.is_empty() {
            return Ok(());
        }
        let target;
        let kind = match &member.kind {
            MemberKind::File(size) => EntryKind::File { size: *size },
            MemberKind::Folder => {
                self.folders.insert(path.clone());
                EntryKind::Folder
            }
            MemberKind::Symlink(to) => EntryKind::Symlink(to),
            MemberKind::HardLink(to) => {
                target = join(self.destination, &clean(to)?);
                EntryKind::HardLink(&target)
            }
            MemberKind::Other(what) => {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("it is {what}, which has no place in an image"),
                ));
            }
        };
        let entry = Entry {
            path: &path,
            kind,
            mode: self.ownership.mode.unwrap_or(member.mode),
            uid: self.ownership.uid,
            gid: self.ownership.gid,
            mtime: self.mtime,
            xattrs: &member.xattrs,
        };
        match kind {
            EntryKind::File { size } if LIST_PATHS.contains(&path.as_str()) && size <= MAX_LIST => {
                let mut text = String::new();
                reader
                    .content()
                    .read_to_string(&mut text)
                    .or_io(|| format!("cannot read `{path}`"))?;
                self.tar.append_file(&entry, &mut text.as_bytes(), &mut self.buffer)?;
                self.lists.insert(path, text);
                Ok(())
            }
            EntryKind::File { .. } => self.tar.append_file(&entry, &mut reader.content(), &mut self.buffer),
            _ => self.tar.append(&entry),
        }
    }
}
