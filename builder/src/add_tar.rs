//! ADD of a local tar: its entries become a layer, in their order, without a temporary copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::time::SystemTime;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Entry, EntryKind, LayerWriter, Member, MemberKind, PackedLayer, TarReader, TarWriter};
use sealrs_image::progress::Task;
use serde::{Deserialize, Serialize};

use crate::cache::describe;
use crate::contents::{Contents, FileSource, OnDisk, refuse_whiteout};
use crate::context::{Ownership, clean, join};
use crate::image_list::LIST_PATHS;
use crate::pack::{Digests, Hashing, Packing, open};

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
    // Opening a named pipe would wait for its other end.
    if !path.symlink_metadata().or_io(place)?.is_file() {
        return Ok(Format::Other);
    }
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

/// A layer made of a tar.
pub(crate) struct Unpacked {
    pub(crate) layer: PackedLayer,
    pub(crate) found: Found,
    pub(crate) cached: bool,
}

/// What was noticed among a tar's entries: the cache keeps it beside the layer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) lists: BTreeMap<String, String>,
    pub(crate) folders: BTreeSet<String>,
}

/// Re-writes a tar, the only file of `contents`, as a layer below `destination`.
pub(crate) fn pack(
    packing: &Packing<'_>,
    contents: &Contents,
    format: Format,
    destination: &str,
    ownership: Ownership,
) -> Result<Unpacked> {
    let Some((name, FileSource::Disk(file))) = contents.files().next() else {
        return Err(Error::new(ErrorKind::Internal, "there is no tar to unpack"));
    };
    let settings = format!(
        "unpacked into {destination}, mode {:?}, {} {}",
        ownership.mode, packing.compression, packing.mtime
    );
    let shape = describe(contents, &settings, None).unwrap_or_else(|| Digest::of(b""));
    if packing.use_cache {
        let read = packing.learn(contents, &shape, name)?;
        if let Some((key, layer)) = packing.cached(contents, &settings, &read)
            && let Some(found) = packing.cache.found(&key)
        {
            return Ok(Unpacked {
                layer,
                found,
                cached: true,
            });
        }
    }
    let started = SystemTime::now();
    let (layer, found, digest) = rewrite(packing, file, format, destination, ownership)?;
    packing.known.remember(file, digest, started);
    let read = Digests::from([((file.identity, file.size), digest)]);
    if let Some(key) = packing.key(contents, &settings, &read) {
        packing.cache.remember_found(&key, &found)?;
        packing.cache.remember_layer(&key, &layer)?;
    }
    packing.cache.remember_shape(&shape)?;
    Ok(Unpacked {
        layer,
        found,
        cached: false,
    })
}

/// Gives the layer, what was found in the tar, and the digest of the tar's file.
fn rewrite(
    packing: &Packing<'_>,
    file: &OnDisk,
    format: Format,
    destination: &str,
    ownership: Ownership,
) -> Result<(PackedLayer, Found, Digest)> {
    let place = || format!("cannot read {}", file.path.display());
    let task = Task::begin(
        packing.progress,
        &format!("packing {}", file.path.display()),
        Some(file.size),
    );
    let mut hashing = Hashing::new(task.reader(open(file)?));
    let mut rewriting = Rewriting {
        tar: TarWriter::new(LayerWriter::new(packing.store, packing.compression)?),
        destination,
        ownership,
        mtime: packing.mtime,
        buffer: vec![0; BUFFER],
        found: Found::default(),
    };
    {
        let reader = BufReader::with_capacity(BUFFER, &mut hashing);
        let input: Box<dyn Read + '_> = match format {
            Format::TarGzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Format::TarZstd => Box::new(zstd::Decoder::with_buffer(reader).or_io(place)?),
            _ => Box::new(reader),
        };
        let mut reader = TarReader::new(Inflating(input));
        while let Some(member) = reader.next().context(place)? {
            rewriting.entry(&member, &mut reader).context(|| {
                format!(
                    "cannot take over `{}` of {}",
                    member.path.escape_debug(),
                    file.path.display()
                )
            })?;
        }
    }
    // What comes after the tar's end belongs to the file as well.
    io::copy(&mut hashing, &mut io::sink()).or_io(place)?;
    Ok((rewriting.tar.finish()?.finish()?, rewriting.found, hashing.finish()))
}

/// Reads what comes out of an inflater. Its own errors mean a damaged file, not a failing disk.
struct Inflating<R>(R);

impl<R: Read> Read for Inflating<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let ours = error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>);
            if ours || error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let damaged = Error::new(ErrorKind::Integrity, "the file is damaged or cut off").because(error);
            damaged.hint("copy it again from where it came").into()
        })
    }
}

struct Rewriting<'p> {
    tar: TarWriter<LayerWriter>,
    destination: &'p str,
    ownership: Ownership,
    mtime: u64,
    buffer: Vec<u8>,
    found: Found,
}

impl Rewriting<'_> {
    fn entry<R: Read>(&mut self, member: &Member, reader: &mut TarReader<R>) -> Result<()> {
        let path = join(self.destination, &clean(&member.path)?);
        if path.is_empty() {
            return Ok(());
        }
        refuse_whiteout(&path)?;
        if LIST_PATHS.contains(&path.as_str()) {
            match member.kind {
                MemberKind::File(size) if size > MAX_LIST => {
                    return Err(Error::new(ErrorKind::Input, "a list of images has at most 1 MiB"));
                }
                MemberKind::Symlink(_) | MemberKind::HardLink(_) => {
                    return Err(Error::new(
                        ErrorKind::Input,
                        "a list of images may not be a link in a tar",
                    ));
                }
                _ => {}
            }
        }
        let target;
        let kind = match &member.kind {
            MemberKind::File(size) => EntryKind::File { size: *size },
            MemberKind::Folder => {
                self.found.folders.insert(path.clone());
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
            EntryKind::File { .. } if LIST_PATHS.contains(&path.as_str()) => {
                let mut text = String::new();
                reader
                    .content()
                    .read_to_string(&mut text)
                    .or_io(|| format!("cannot read `{path}`"))?;
                self.tar.append_file(&entry, &mut text.as_bytes(), &mut self.buffer)?;
                self.found.lists.insert(path, text);
                Ok(())
            }
            EntryKind::File { .. } => self.tar.append_file(&entry, &mut reader.content(), &mut self.buffer),
            _ => self.tar.append(&entry),
        }
    }
}
