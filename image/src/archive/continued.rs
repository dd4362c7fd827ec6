//! A file that is written a second time, after an earlier try was killed in the middle of it.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

/// Writes a file from its start. What it holds already is compared instead of written, as long as it is the same: an
/// archive comes out the same each time, so a save goes on where it was killed. Nothing is believed: after a power cut
/// there may be holes, and from the first difference on everything is written.
#[derive(Debug)]
pub(super) struct Continued {
    file: File,
    position: u64,
    /// Up to here the file's bytes are an earlier try's.
    kept: u64,
    /// What is compared.
    there: Vec<u8>,
}

impl Continued {
    /// Goes on with `file`, whose position is its start.
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            kept: file.metadata()?.len(),
            file,
            position: 0,
            there: Vec::new(),
        })
    }

    /// Writes over bytes that were written before.
    pub(super) fn rewrite(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    /// Ends the file here, and gives it.
    pub(super) fn end(self) -> io::Result<File> {
        if self.position < self.kept {
            self.file.set_len(self.position)?;
        }
        Ok(self.file)
    }

    /// From here on everything is written.
    fn write_on(&mut self) -> io::Result<()> {
        self.file.set_len(self.position)?;
        self.kept = self.position;
        self.file.seek(SeekFrom::Start(self.position)).map(drop)
    }
}

impl Write for Continued {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = usize::try_from(self.kept - self.position).unwrap_or(usize::MAX);
        if left > 0 {
            let bytes = bytes.get(..left).unwrap_or(bytes);
            self.there.resize(bytes.len(), 0);
            self.file.read_exact_at(&mut self.there, self.position)?;
            if self.there == bytes {
                self.position += bytes.len() as u64;
                if self.position == self.kept {
                    self.write_on()?;
                }
                return Ok(bytes.len());
            }
            self.write_on()?;
        }
        let written = self.file.write(bytes)?;
        self.position += written as u64;
        self.kept = self.position;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::noise;

    #[test]
    fn whatever_was_there_the_file_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let bytes = noise(10_000, 1);
        let mut holes = bytes[..8000].to_vec();
        holes[4000..5000].fill(0);
        let longer = [&bytes[..], b"and more"].concat();
        for before in [
            &b""[..],
            &bytes[..1],
            &bytes[..7000],
            &bytes[..],
            &longer[..],
            &holes[..],
            b"another file",
        ] {
            fs::write(&path, before).unwrap();
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let mut continued = Continued::new(file).unwrap();
            for piece in bytes.chunks(3000) {
                continued.write_all(piece).unwrap();
            }
            continued.end().unwrap();
            assert!(fs::read(&path).unwrap() == bytes, "{} bytes were there", before.len());
        }
    }
}
