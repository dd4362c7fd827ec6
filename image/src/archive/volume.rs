//! The bytes of an archive: one file, or the parts that `save --split` wrote, read as if they were one.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::parts;
use crate::copy::in_parallel;
use crate::digest::{Digest, HashingWriter};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::source::Extent;

/// What an archive is read from.
#[derive(Debug)]
pub(super) struct Volume {
    /// What the user calls it: the name without a number.
    path: PathBuf,
    parts: Vec<Part>,
    /// The parts' digests, if `save` left them beside.
    digests: Option<Vec<Digest>>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    start: u64,
    size: u64,
}

impl Volume {
    /// Opens the file `path`, or the parts that it is the first of or the common name of.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and [`ErrorKind::Integrity`], naming the part, when one is missing or short.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let Some(whole) = parts::common_name(path) else {
            let mut volume = Self {
                path: path.to_owned(),
                parts: Vec::new(),
                digests: None,
            };
            volume.push(path.to_owned())?;
            return Ok(volume);
        };
        let mut volume = Self {
            digests: parts::read_digests(&whole)?,
            path: whole,
            parts: Vec::new(),
        };
        let last = volume.digests.as_ref().map(Vec::len);
        for number in 1.. {
            let path = parts::part_name(&volume.path, number);
            let wanted = last.map_or_else(|| path.exists(), |last| number <= last);
            if !wanted {
                break;
            }
            if !path.exists() {
                return Err(missing(&path));
            }
            volume.push(path)?;
        }
        volume.refuse_gap()?;
        volume.refuse_short()?;
        Ok(volume)
    }

    fn push(&mut self, path: PathBuf) -> Result<()> {
        let place = || format!("cannot open {}", path.display());
        let file = File::open(&path).or_io(place)?;
        let size = file.metadata().or_io(place)?.len();
        let start = self.len();
        self.parts.push(Part {
            path,
            file,
            start,
            size,
        });
        Ok(())
    }

    /// Without the digests nobody knows how many parts there are, but one beyond a gap tells of the gap.
    fn refuse_gap(&self) -> Result<()> {
        let first_absent = self.parts.len() + 1;
        for number in first_absent + 1..=first_absent + 3 {
            if parts::part_name(&self.path, number).exists() && self.digests.is_none() {
                return Err(missing(&parts::part_name(&self.path, first_absent)));
            }
        }
        Ok(())
    }

    /// All parts have the same size, but the last one, which may be smaller.
    fn refuse_short(&self) -> Result<()> {
        let full = self.parts.iter().map(|part| part.size).max().unwrap_or(0);
        let all_but_last = self.parts.split_last().map_or(&[][..], |(_, rest)| rest);
        match all_but_last.iter().find(|part| part.size < full) {
            Some(part) => Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "{} is cut off: it has {} bytes where the others have {full}",
                    part.path.display(),
                    part.size
                ),
            )
            .hint("copy this part again from where it came")),
            None => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start + part.size)
    }

    /// The last part, for messages, if there are several.
    pub(super) fn last_part(&self) -> Option<&Path> {
        match self.parts.as_slice() {
            [_, .., last] => Some(&last.path),
            _ => None,
        }
    }

    /// Reads without moving a cursor, so that several can read at once.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let next = self.parts.partition_point(|part| part.start <= position);
        let part = next.checked_sub(1).and_then(|at| self.parts.get(at));
        let Some(part) = part.filter(|part| position < part.start + part.size || self.parts.len() == 1) else {
            return Ok(0);
        };
        let within = position - part.start;
        // Not beyond the size that was seen first: a file that grows would shift what follows.
        let left = usize::try_from(part.size.saturating_sub(within)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        part.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), within)
    }

    /// The file that the bytes from `position` on lie in, if all of the volume is in one.
    pub(super) fn extent(&self, position: u64) -> Option<Extent> {
        let [only] = self.parts.as_slice() else { return None };
        let file = only.file.try_clone().ok()?;
        Some(Extent { file, offset: position })
    }

    /// The bytes from `position` on, `size` of them at most.
    pub(super) fn reader(&self, position: u64, size: u64) -> VolumeReader<'_> {
        VolumeReader {
            volume: self,
            position,
            end: position.saturating_add(size),
        }
    }

    /// Which parts are not what `save` wrote, by their digests: nothing for a single file.
    ///
    /// # Errors
    /// What reading them meets.
    pub(super) fn damaged_parts(&self) -> Result<Vec<&Path>> {
        let Some(digests) = &self.digests else {
            return Ok(Vec::new());
        };
        let found = std::sync::Mutex::new(Vec::new());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pairs = self.parts.iter().zip(digests).collect();
        in_parallel(pairs, cores, |(part, digest): (&Part, &Digest)| {
            let place = || format!("cannot read {}", part.path.display());
            let mut hashing = HashingWriter::new(io::sink());
            let mut file = fs::File::open(&part.path).or_io(place)?;
            io::copy(&mut file, &mut hashing).or_io(place)?;
            if hashing.into_parts().1.finish() != *digest {
                let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                found.push(part.path.as_path());
            }
            Ok(())
        })?;
        let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.sort();
        Ok(found)
    }
}

fn missing(part: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("the part {} is missing", part.display()))
        .hint("put all parts of the archive and their `.sha256` file into one folder")
}

/// Reads a stretch of a [`Volume`].
#[derive(Debug)]
pub(super) struct VolumeReader<'v> {
    volume: &'v Volume,
    position: u64,
    end: u64,
}

impl Read for VolumeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let read = self
            .volume
            .read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for VolumeReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.end, by),
        };
        self.position = from
            .checked_add_signed(by)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
