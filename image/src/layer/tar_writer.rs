//! Writes a tar: ustar headers, PAX records (POSIX.1-2001) for what ustar can't hold, nothing that depends on
//! the machine. Never sparse: the image specification advises against it, and holes depend on the source's disk.

use std::io::{self, Read, Write};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

const BLOCK: usize = 512;
/// Where a file system can share the content of a large file, which is the size of its own blocks.
const ALIGNMENT: u64 = 4096;
/// Files of so many bytes are large: the few kilobytes in front of them don't count.
const LARGE: u64 = 256 << 10;
/// Two empty blocks end a tar.
pub(super) const END: usize = 2 * BLOCK;

/// One entry of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Path below the rootfs, slash separated, without a leading slash.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, sorted by name.
    pub xattrs: &'a [(String, Vec<u8>)],
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy)]
pub enum EntryKind<'a> {
    /// A regular file of `size` bytes.
    File {
        /// Bytes.
        size: u64,
    },
    /// A folder.
    Folder,
    /// A symbolic link with this target.
    Symlink(&'a str),
    /// Another name of an earlier entry of the same layer.
    HardLink(&'a str),
}

/// Writes entries one after another; the caller gives them in order.
///
/// The content of a large file begins at a multiple of 4096 bytes, so that [`crate::rootfs::unpack`] can share its blocks.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    position: u64,
}

impl<W: Write> TarWriter<W> {
    /// A tar that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, position: 0 }
    }

    /// Writes an entry that has no content of its own.
    ///
    /// # Errors
    /// When the path can't be written in a tar, or `out` fails.
    pub fn append(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.header(entry)
    }

    /// Writes a file: exactly the `size` of its [`EntryKind::File`] bytes of `content`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when `content` has fewer or more bytes: the file changed while it was read.
    pub fn append_file(&mut self, entry: &Entry<'_>, content: &mut dyn Read, buffer: &mut [u8]) -> Result<()> {
        let EntryKind::File { size } = entry.kind else {
            return self.header(entry);
        };
        self.header(entry)?;
        let place = || format!("cannot write {} into the layer", entry.path);
        let mut left = size;
        loop {
            let read = match content.read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).or_io(|| format!("cannot read {}", entry.path)),
            };
            if read as u64 > left || (read == 0 && left > 0) {
                return Err(
                    Error::new(ErrorKind::Conflict, format!("{} changed while it was read", entry.path))
                        .hint("build again when nothing writes to the build context"),
                );
            }
            if read == 0 {
                break;
            }
            self.out
                .write_all(buffer.get(..read).unwrap_or_default())
                .or_io(place)?;
            left -= read as u64;
        }
        let zeros = [0u8; BLOCK];
        self.out
            .write_all(zeros.get(..padding(size)).unwrap_or_default())
            .or_io(place)?;
        self.position += size.next_multiple_of(BLOCK as u64);
        Ok(())
    }

    /// Ends the tar.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0u8; END]).or_io(|| "cannot end the layer")?;
        Ok(self.out)
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }

    pub(super) fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        let mut path = entry.path.to_owned();
        if matches!(entry.kind, EntryKind::Folder) && !path.ends_with('/') {
            path.push('/');
        }
        let mut header = tar::Header::new_ustar();
        let mut records = Vec::new();

        if fits_ascii(&path) && header.set_path(&path).is_ok() {
            // ustar splits long paths at a slash by itself.
        } else {
            record(&mut records, "path", path.as_bytes());
            // Readers without PAX see a short stand-in.
            let stand_in: String = path.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
            header
                .set_path(if stand_in.is_empty() { "long-name" } else { &stand_in })
                .or_io(|| format!("cannot write {path} into a layer"))?;
        }
        let (kind, size, target) = match entry.kind {
            EntryKind::File { size } => (tar::EntryType::Regular, size, None),
            EntryKind::Folder => (tar::EntryType::Directory, 0, None),
            EntryKind::Symlink(target) => (tar::EntryType::Symlink, 0, Some(target)),
            EntryKind::HardLink(target) => (tar::EntryType::Link, 0, Some(target)),
        };
        header.set_entry_type(kind);
        if let Some(target) = target
            && !(fits_ascii(target) && header.set_link_name_literal(target).is_ok())
        {
            record(&mut records, "linkpath", target.as_bytes());
        }
        // The widest number that an octal field of ustar holds.
        if size >= 1 << 33 {
            record(&mut records, "size", size.to_string().as_bytes());
            header.set_size(0);
        } else {
            header.set_size(size);
        }
        for (name, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            let fits = id < 1 << 21;
            if !fits {
                record(&mut records, name, id.to_string().as_bytes());
            }
            let id = u64::from(if fits { id } else { 0 });
            if name == "uid" {
                header.set_uid(id);
            } else {
                header.set_gid(id);
            }
        }
        header.set_mode(entry.mode & 0o7777);
        if entry.mtime >= 1 << 33 {
            record(&mut records, "mtime", entry.mtime.to_string().as_bytes());
            header.set_mtime(0);
        } else {
            header.set_mtime(entry.mtime);
        }
        for (name, value) in entry.xattrs {
            record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        header.set_cksum();

        let place = || format!("cannot write {} into the layer", entry.path);
        if size >= LARGE {
            self.align(&mut records);
        }
        if !records.is_empty() {
            self.extended_header(&records).or_io(place)?;
        }
        self.position += BLOCK as u64;
        self.out.write_all(header.as_bytes()).or_io(place)
    }

    /// Adds a comment, which readers skip (POSIX.1-2001, pax), of such a length that what follows the headers is aligned.
    fn align(&self, records: &mut Vec<u8>) {
        let headers = if records.is_empty() { 1 } else { 2 } * BLOCK as u64;
        let content = self.position + headers + (records.len() as u64).next_multiple_of(BLOCK as u64);
        if content.is_multiple_of(ALIGNMENT) {
            return;
        }
        // The shortest comment is `12 comment=\n`; with that much in front, whole blocks of it are added.
        let least = records.len() as u64 + 12;
        let before = self.position + 2 * BLOCK as u64;
        let wanted = (before + least).next_multiple_of(ALIGNMENT) - before - records.len() as u64;
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let blanks = |value: usize| {
            let mut comment = Vec::new();
            record(&mut comment, "comment", &vec![b' '; value]);
            comment
        };
        // The digits of its length belong to the length, so that some lengths don't exist: one byte less is padded.
        let comment = (0..wanted).rev().map(blanks).find(|comment| comment.len() <= wanted);
        records.extend(comment.unwrap_or_default());
    }

    fn extended_header(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path("PaxHeaders/0")?;
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.position += (BLOCK + records.len() + padding(records.len() as u64)) as u64;
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(records)?;
        let zeros = [0u8; BLOCK];
        self.out
            .write_all(zeros.get(..padding(records.len() as u64)).unwrap_or_default())
    }
}

/// How many zero bytes follow `size` bytes of content.
pub(super) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

fn fits_ascii(text: &str) -> bool {
    text.is_ascii()
}

/// A PAX record is `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(path: &'a str, kind: EntryKind<'a>) -> Entry<'a> {
        Entry {
            path,
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: &[],
        }
    }

    #[test]
    fn long_names_links_and_attributes_come_back() {
        let long = format!("{}/{}", "d".repeat(160), "f".repeat(250));
        let target = "t".repeat(300);
        let attributes = [("user.a".to_owned(), b"1 = 2".to_vec())];
        let mut tar = TarWriter::new(Vec::new());
        let mut with_attributes = entry(&long, EntryKind::File { size: 3 });
        with_attributes.xattrs = &attributes;
        tar.append_file(&with_attributes, &mut &b"abc"[..], &mut [0; 2])
            .unwrap();
        tar.append(&entry("ü/link", EntryKind::Symlink(&target))).unwrap();
        tar.append(&entry("dir", EntryKind::Folder)).unwrap();
        let bytes = tar.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);

        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entries = archive.entries().unwrap();
        let mut first = entries.next().unwrap().unwrap();
        assert_eq!(first.path_bytes(), long.as_bytes());
        let records: Vec<_> = first
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| record.unwrap().value_bytes().to_vec())
            .collect();
        assert!(records.contains(&b"1 = 2".to_vec()));
        assert_eq!(io::read_to_string(&mut first).unwrap(), "abc");
        let second = entries.next().unwrap().unwrap();
        assert_eq!(second.path_bytes(), "ü/link".as_bytes());
        assert_eq!(second.link_name_bytes().unwrap(), target.as_bytes());
        assert_eq!(entries.next().unwrap().unwrap().path_bytes().as_ref(), b"dir/");
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_an_error() {
        for content in [&b"ab"[..], b"abcd"] {
            let mut tar = TarWriter::new(Vec::new());
            let error = tar
                .append_file(&entry("f", EntryKind::File { size: 3 }), &mut &*content, &mut [0; 8])
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
    }

    #[test]
    fn the_content_of_large_files_is_aligned_and_that_of_small_ones_not() {
        let large = vec![7; usize::try_from(LARGE).unwrap()];
        for length in 1..800 {
            let name = "n".repeat(length);
            let mut tar = TarWriter::new(Vec::new());
            for (content, padded) in [(&large[..], true), (b"small", false), (&large, true)] {
                let file = entry(
                    &name,
                    EntryKind::File {
                        size: content.len() as u64,
                    },
                );
                let before = tar.position;
                tar.append_file(&file, &mut &*content, &mut vec![0; 1 << 20]).unwrap();
                assert!(tar.position - before < content.len() as u64 + ALIGNMENT + 4 * BLOCK as u64);
                assert!(padded || tar.position - before <= 5 * BLOCK as u64);
            }
            let bytes = tar.finish().unwrap();
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut seen = Vec::new();
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                assert_eq!(entry.path_bytes(), name.as_bytes());
                if entry.size() == LARGE {
                    assert_eq!(entry.raw_file_position() % ALIGNMENT, 0, "{length}");
                }
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                seen.push(content.len());
            }
            assert_eq!(seen, [large.len(), 5, large.len()]);
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for size in 0..1200 {
            let mut records = Vec::new();
            record(&mut records, "k", &vec![b'v'; size]);
            let text = String::from_utf8(records).unwrap();
            let stated: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(stated, text.len());
        }
    }
}
