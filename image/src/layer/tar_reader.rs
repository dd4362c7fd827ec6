//! Reads a tar that nobody vouches for: ustar with PAX records and GNU long names, everything bounded.
//!
//! The tar crate reads extended headers of any size into memory; here they have a limit.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

const BLOCK: u64 = 512;
/// Extended headers hold names and attributes; a mebibyte is far more than any file system takes.
const MAX_EXTENDED: u64 = 1 << 20;
/// No file system holds a larger file. Positions stay far from what an integer holds.
const MAX_CONTENT: u64 = 1 << 60;

/// An entry of a tar, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name as it stands in the tar.
    pub path: String,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Where the content starts, in bytes from the start of the tar.
    pub offset: u64,
}

/// What a [`Member`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link with its target.
    Symlink(String),
    /// Another name of the entry with this path.
    HardLink(String),
    /// Something else: a device, a pipe, a sparse file. In words.
    Other(&'static str),
}

/// Goes over the entries of a tar.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    position: u64,
    /// Bytes of the current content that were not read yet, and the padding after them.
    content: u64,
    padding: u64,
}

/// What PAX records or GNU's long names say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<u64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    /// Reads the tar that `input` yields.
    pub fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry, after reading over what is left of the current one.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is no tar or ends in the middle.
    #[expect(
        clippy::should_implement_trait,
        reason = "the content of an entry is read between two calls, from the reader itself"
    )]
    pub fn next(&mut self) -> Result<Option<Member>> {
        let rest = self.content + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink()).or_io(|| "cannot read a tar")?;
        if skipped < rest {
            return Err(cut_off());
        }
        self.arrive();
        self.member()
    }

    /// The content of the current entry, to its end.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Reads what follows the tar's end, to let a verifying input see its own end.
    ///
    /// # Errors
    /// What the input meets.
    pub fn drain(&mut self) -> Result<()> {
        io::copy(&mut self.input, &mut io::sink())
            .map(drop)
            .or_io(|| "cannot read a tar")
    }

    fn arrive(&mut self) {
        self.position += self.content + self.padding;
        self.content = 0;
        self.padding = 0;
    }

    fn member(&mut self) -> Result<Option<Member>> {
        let mut extended = Extended::default();
        // One limit for all extended headers of an entry: their number is not bounded otherwise.
        let mut budget = MAX_EXTENDED;
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size, || header.entry_size(), "a size")?;
            let kind = header.entry_type();
            match kind.as_byte() {
                b'x' => pax(&self.extended(size, &mut budget)?, &mut extended)?,
                b'L' => extended.path = Some(long_name(self.extended(size, &mut budget)?)?),
                b'K' => extended.link = Some(long_name(self.extended(size, &mut budget)?)?),
                // Global records say nothing that matters here (git puts a commit there).
                b'g' => drop(self.extended(size, &mut budget)?),
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, size: u64, extended: Extended) -> Result<Member> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|error| broken("a name that is not UTF-8").because(error))
        };
        let old = header.as_old();
        let id = |field: &[u8], value: io::Result<u64>| {
            u32::try_from(number(field, || value, "an owner")?).map_err(|error| broken("an owner").because(error))
        };
        let mode = number(&old.mode, || header.mode().map(u64::from), "a mode")? & 0o7777;
        let path = match extended.path {
            Some(path) => path,
            None => text(&header.path_bytes())?,
        };
        let link = match extended.link {
            Some(link) => link,
            None => text(header.link_name_bytes().as_deref().unwrap_or_default())?,
        };
        let size = extended.size.unwrap_or(size);
        let kind = match header.entry_type().as_byte() {
            // Before POSIX, a folder was a file whose name ends in a slash.
            b'0' | b'\0' | b'7' if !path.ends_with('/') => MemberKind::File(size),
            b'0' | b'\0' | b'7' | b'5' => MemberKind::Folder,
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => MemberKind::Other("a character device"),
            b'4' => MemberKind::Other("a block device"),
            b'6' => MemberKind::Other("a named pipe"),
            b'S' => MemberKind::Other("a sparse file"),
            _ => MemberKind::Other("an entry of unknown type"),
        };
        // Links and folders have no content, whatever the size field says (POSIX).
        self.content = match kind {
            MemberKind::File(_) | MemberKind::Other(_) => size,
            _ => 0,
        };
        if self.content > MAX_CONTENT {
            return Err(broken("an entry larger than any file"));
        }
        self.padding = self.content.next_multiple_of(BLOCK) - self.content;
        Ok(Member {
            path,
            kind,
            mode: u32::try_from(mode).map_err(|error| broken("a mode").because(error))?,
            uid: extended.uid.map_or_else(|| id(&old.uid, header.uid()), Ok)?,
            gid: extended.gid.map_or_else(|| id(&old.gid, header.gid()), Ok)?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => number(&old.mtime, || header.mtime(), "a time")?,
            },
            xattrs: extended.xattrs,
            offset: self.position,
        })
    }

    /// The next header block that is not part of the tar's end.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        let mut filled = 0;
        while let Some(rest) = header.as_mut_bytes().get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_off()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).or_io(|| "cannot read a tar"),
            }
        }
        self.position += BLOCK;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        // The checksum is taken over the header with its own eight bytes as blanks (POSIX).
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(
                |(at, &byte)| {
                    if (148..156).contains(&at) { 32 } else { u32::from(byte) }
                },
            )
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(broken("a header whose checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extended(&mut self, size: u64, budget: &mut u64) -> Result<Vec<u8>> {
        if size > *budget {
            return Err(broken("an extended header of more than a mebibyte"));
        }
        let mut bytes = Vec::new();
        let whole = size.next_multiple_of(BLOCK);
        *budget = budget.saturating_sub(whole);
        (&mut self.input)
            .take(whole)
            .read_to_end(&mut bytes)
            .or_io(|| "cannot read a tar")?;
        if (bytes.len() as u64) < whole {
            return Err(cut_off());
        }
        self.position += whole;
        bytes.truncate(usize::try_from(size).unwrap_or(0));
        Ok(bytes)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// The next entry, seeking over the current content instead of reading it.
    ///
    /// # Errors
    /// As [`TarReader::next`]. Content that lies beyond the end of the input is found by the caller.
    pub fn next_seeking(&mut self) -> Result<Option<Member>> {
        let rest = i64::try_from(self.content + self.padding).map_err(|error| broken("a size").because(error))?;
        self.input.seek(SeekFrom::Current(rest)).or_io(|| "cannot read a tar")?;
        self.arrive();
        self.member()
    }
}

/// Reads the content of one entry.
#[derive(Debug)]
pub struct Content<'t, R> {
    reader: &'t mut TarReader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.reader.content)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.input.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            return Err(cut_off().into());
        }
        self.reader.content -= read as u64;
        self.reader.position += read as u64;
        Ok(read)
    }
}

/// Takes in PAX records: `LENGTH KEY=VALUE\n` each (POSIX.1-2001, pax).
fn pax(mut records: &[u8], extended: &mut Extended) -> Result<()> {
    let bad = || broken("a PAX record");
    while !records.is_empty() {
        let blank = records.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
        let length: usize = records
            .get(..blank)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .ok_or_else(bad)?;
        let record = records.get(blank + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        records = records.get(length..).unwrap_or_default();
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        let (key, value) = (record.get(..equals), record.get(equals + 1..));
        let (Some(key), Some(value)) = (key, value) else {
            return Err(bad());
        };
        let key = std::str::from_utf8(key).map_err(|error| bad().because(error))?;
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            extended.xattrs.push((name.to_owned(), value.to_vec()));
            continue;
        }
        if key.starts_with("GNU.sparse.") {
            return Err(broken("a sparse file, which image layers may not have"));
        }
        let text = || std::str::from_utf8(value).map_err(|error| bad().because(error));
        match key {
            "path" => extended.path = Some(text()?.to_owned()),
            "linkpath" => extended.link = Some(text()?.to_owned()),
            "size" => extended.size = Some(text()?.parse().map_err(|error| bad().because(error))?),
            "uid" => extended.uid = Some(text()?.parse().map_err(|error| bad().because(error))?),
            "gid" => extended.gid = Some(text()?.parse().map_err(|error| bad().because(error))?),
            // Fractions of a second are not kept; neither do our layers have them.
            "mtime" => {
                extended.mtime = text()?.split('.').next().and_then(|seconds| seconds.parse().ok());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The number in a header's field. Writers leave fields empty that mean nothing to them; tar programs read that as 0.
fn number(field: &[u8], read: impl FnOnce() -> io::Result<u64>, what: &str) -> Result<u64> {
    if field.iter().all(|&byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    read().map_err(|error| broken(what).because(error))
}

fn long_name(mut bytes: Vec<u8>) -> Result<String> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|error| broken("a name that is not UTF-8").because(error))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Integrity, format!("the tar has {what}"))
}

fn cut_off() -> Error {
    Error::new(ErrorKind::Integrity, "the tar ends in the middle of an entry")
        .hint("the source is truncated: copy it again from where it came")
}

#[cfg(test)]
mod tests;
