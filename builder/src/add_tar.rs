//! ADD of a local tar: its entries become a layer, in their order, without a temporary copy.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{
    Compression, Entry, EntryKind, LayerWriter, Member, MemberKind, PackedLayer, TarReader, TarWriter,
};
use sealrs_image::progress::Task;

use crate::cache::describe;
use crate::contents::{Contents, FileSource, OnDisk, refuse_whiteout};
use crate::context::{Ownership, clean, join};
use crate::inside::{Listed, Listing};
use crate::pack::{Hashing, Packing, open};
use crate::rootfs::Rootfs;

const BUFFER: usize = 256 << 10;

/// What ADD does with a file of the build context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A tar, packed like this: it is unpacked.
    Tar(Compression),
    /// It is copied as it is.
    Other,
}

/// Tells what a file is. ADD unpacks tars, whatever they are called; something else that is packed is copied as it is.
///
/// # Errors
/// [`ErrorKind::Input`] for what may be a tar but can't be read: copied as it is, nobody would notice.
pub(crate) fn format(path: &Path) -> Result<Format> {
    let place = || format!("cannot read {}", path.display());
    // Opening a named pipe would wait for its other end.
    if !path.symlink_metadata().or_read(place)?.is_file() {
        return Ok(Format::Other);
    }
    let start = start_of(&mut File::open(path).or_read(place)?).or_read(place)?;
    let unreadable = |why: &str| {
        Err(Error::new(
            ErrorKind::Input,
            format!("{} is packed with {why}, which can't be unpacked here", path.display()),
        )
        .hint("repack it with zstd or gzip, or use COPY to take it over as it is"))
    };
    match start.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return unreadable("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return unreadable("bzip2"),
        _ => {}
    }
    let compression = Compression::of_start(&start);
    if compression == Compression::None {
        return match (is_tar(&start), called_packed_tar(path)) {
            (true, _) => Ok(Format::Tar(compression)),
            (false, false) => Ok(Format::Other),
            (false, true) => Err(no_tar(path, "it is not packed with gzip or zstd")),
        };
    }
    let file = BufReader::new(File::open(path).or_read(place)?);
    match start_of(&mut compression.inflater(file)?) {
        Ok(start) if is_tar(&start) => Ok(Format::Tar(compression)),
        Ok(_) if called_packed_tar(path) => Err(no_tar(path, "what is packed in it is no tar")),
        Ok(_) => Ok(Format::Other),
        Err(error) => Err(error).or_read(place).map_err(|error| error.hint(USE_COPY)),
    }
}

/// For an archive that holds what an image can't.
pub(crate) const MAKE_WITHOUT: &str = "make the archive without this entry, or unpack it and use COPY";

const USE_COPY: &str = "copy the file again from where it came, or use COPY to take it over as it is";

fn no_tar(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Input, format!("{} is no packed tar", path.display()))
        .because(Error::new(ErrorKind::Input, why))
        .hint(USE_COPY)
}

/// Up to the first header of a tar.
fn start_of(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(512).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether these bytes are a tar's first header. Its check sum tells: not every tar has a magic number.
fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar") || matches!(TarReader::new(start).next(), Ok(Some(_)))
}

/// Whether a file's name says that it is a packed tar.
fn called_packed_tar(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    [".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// A layer made of a tar.
pub(crate) struct Unpacked {
    pub(crate) layer: PackedLayer,
    pub(crate) listing: Listing,
    pub(crate) cached: bool,
}

/// Re-writes a tar, the only file of `contents`, as a layer below `destination` of `rootfs`.
pub(crate) fn pack(
    packing: &Packing<'_>,
    contents: &Contents,
    compression: Compression,
    destination: &str,
    ownership: Ownership,
    rootfs: &Rootfs,
) -> Result<Unpacked> {
    let Some((name, FileSource::Disk(file))) = contents.files().next() else {
        return Err(Error::new(ErrorKind::Internal, "there is no tar to unpack"));
    };
    let settings = format!(
        "unpacked into {destination}, mode {:?}, {} {}",
        ownership.mode, packing.compression, packing.mtime
    );
    let shape = || describe(contents, &settings, None).unwrap_or_else(|| Digest::of(b""));
    if let Some(layer) = packing.find(contents, &settings, shape, name)? {
        let listing = packing.layers().listing(&layer)?;
        // It was made over another tree, perhaps.
        rootfs.check_layer(&listing).context(|| unpacking(file))?;
        return Ok(Unpacked {
            layer,
            listing,
            cached: true,
        });
    }
    let started = SystemTime::now();
    let (layer, listing, digest) = rewrite(packing, file, compression, destination, ownership, rootfs)?;
    packing.remember_file(file, digest, started);
    packing.cache.remember_listing(&layer.descriptor.digest, &listing)?;
    packing.remember(contents, &settings, &shape(), &layer)?;
    Ok(Unpacked {
        layer,
        listing,
        cached: false,
    })
}

/// Gives the layer, what it holds, and the digest of the tar's file.
fn rewrite(
    packing: &Packing<'_>,
    file: &OnDisk,
    compression: Compression,
    destination: &str,
    ownership: Ownership,
    rootfs: &Rootfs,
) -> Result<(PackedLayer, Listing, Digest)> {
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
        listing: Listing::default(),
    };
    rewriting
        .all(compression.inflater(BufReader::with_capacity(BUFFER, &mut hashing))?)
        .and_then(|()| rootfs.check_layer(&rewriting.listing))
        .context(|| unpacking(file))
        .map_err(|error| match error.kind() {
            ErrorKind::Integrity => error.hint(USE_COPY),
            _ => error,
        })?;
    Ok((rewriting.tar.finish()?.finish()?, rewriting.listing, hashing.finish()))
}

fn unpacking(file: &OnDisk) -> String {
    format!("cannot unpack {}", file.path.display())
}

struct Rewriting<'p> {
    tar: TarWriter<LayerWriter>,
    destination: &'p str,
    ownership: Ownership,
    mtime: u64,
    buffer: Vec<u8>,
    listing: Listing,
}

impl Rewriting<'_> {
    fn all(&mut self, tar: impl Read) -> Result<()> {
        let mut reader = TarReader::new(tar);
        while let Some(member) = reader.next()? {
            self.entry(&member, &mut reader)
                .context(|| format!("cannot take over `{}`", member.path.escape_debug()))?;
        }
        // What comes after the tar's end belongs to the file as well, and so do the check sums of its packing.
        reader.drain()
    }

    /// The place of an entry in the rootfs.
    fn below(&self, path: &str) -> Result<String> {
        let inside = clean(path).map_err(|_| {
            let what = format!("`{}` leads out of the destination", path.escape_debug());
            Error::new(ErrorKind::Input, what).hint(MAKE_WITHOUT)
        })?;
        Ok(join(self.destination, &inside))
    }

    fn entry<R: Read>(&mut self, member: &Member, reader: &mut TarReader<R>) -> Result<()> {
        let path = self.below(&member.path)?;
        if path.is_empty() {
            return Ok(());
        }
        refuse_whiteout(&path, MAKE_WITHOUT)?;
        let target;
        let kind = match &member.kind {
            MemberKind::File(size) => EntryKind::File { size: *size },
            MemberKind::Folder => EntryKind::Folder,
            MemberKind::Symlink(to) => EntryKind::Symlink(to),
            MemberKind::HardLink(to) => {
                target = self.below(to)?;
                EntryKind::HardLink(&target)
            }
            MemberKind::Other(what) => {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("it is {what}, which has no place in an image"),
                )
                .hint(MAKE_WITHOUT));
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
            EntryKind::File { .. } => self.tar.append_file(&entry, &mut reader.content(), &mut self.buffer)?,
            _ => self.tar.append(&entry)?,
        }
        self.listing.0.push(match kind {
            EntryKind::File { .. } => (path, Listed::File),
            EntryKind::Folder => (path, Listed::Folder),
            EntryKind::Symlink(target) => (path, Listed::Symlink(target.to_owned())),
            EntryKind::HardLink(target) => {
                let target = Listed::HardLink(target.to_owned());
                (path, target)
            }
        });
        Ok(())
    }
}
