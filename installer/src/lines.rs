//! Append-only files with one JSON document a line, each synced: what journal and host manifest are written in.
//! A last line that was cut off by a crash was never acted upon, and is dropped.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file that lines are appended to. It is made when the first line is written.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of whole lines; what follows them was cut off.
    whole: u64,
}

impl Lines {
    /// Opens the file at `path` and reads its lines.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when a whole line is no such document; disk errors.
    pub(crate) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>)> {
        let (whole, read) = parse(path)?;
        let lines = Self {
            path: path.to_owned(),
            file: None,
            whole,
        };
        Ok((lines, read))
    }

    /// Stands for a file that is only read.
    pub(crate) fn unopened(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            whole: 0,
        }
    }

    /// Appends a line and syncs it.
    ///
    /// # Errors
    /// Disk errors.
    pub(crate) fn append<T: Serialize>(&mut self, line: &T) -> Result<()> {
        let place = || format!("cannot write {}", self.path.display());
        let mut bytes = serde_json::to_vec(line).or_fail(ErrorKind::Internal, place)?;
        bytes.push(b'\n');
        if self.file.is_none() {
            self.file = Some(open_for_appending(&self.path, self.whole)?);
        }
        if let Some(file) = self.file.as_mut() {
            file.write_all(&bytes)
                .and_then(|()| file.sync_data())
                .or_io(|| format!("cannot write {}", self.path.display()))?;
            self.whole += bytes.len() as u64;
        }
        Ok(())
    }
}

/// The lines of the file at `path`; none when it is not there.
///
/// # Errors
/// As [`Lines::open`].
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    Ok(parse(path)?.1)
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<(u64, Vec<T>)> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, Vec::new())),
        Err(error) => return Err(error).or_io(|| format!("cannot read {}", path.display())),
    };
    let mut whole = 0;
    let mut read = Vec::new();
    for (number, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let Some(document) = line.strip_suffix(b"\n") else {
            break;
        };
        let parsed = serde_json::from_slice(document).map_err(|error| {
            Error::new(
                ErrorKind::Integrity,
                format!(
                    "line {} of {} is not one that sealrs writes",
                    number + 1,
                    path.display()
                ),
            )
            .because(error)
            .hint("it was changed by hand or by a newer sealrs: use that version, or restore the file")
        })?;
        read.push(parsed);
        whole += line.len() as u64;
    }
    Ok((whole, read))
}

fn open_for_appending(path: &Path, whole: u64) -> Result<File> {
    let place = || format!("cannot open {}", path.display());
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .or_io(place)?;
    let length = file.metadata().or_io(place)?.len();
    if length > whole {
        file.set_len(whole).or_io(place)?;
    }
    if let Some(folder) = path.parent() {
        sealrs_image::file::sync_folder(folder)?;
    }
    Ok(file)
}
