//! A copy of a chart that is safe to give to helm: no links, all sub-charts as folders, within bounds. A chart is
//! somebody else's work: an archive in it may unpack to any size, and a link may lead to any file of this machine.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Compression, MemberKind, TarReader};
use tempfile::TempDir;
use walkdir::WalkDir;

/// All files of a chart and its sub-charts. helm itself takes 100 MiB.
const MAX_BYTES: u64 = 256 << 20;
const MAX_FILES: usize = 20_000;

/// What may still come.
struct Stage {
    bytes: u64,
    files: usize,
}

/// Copies a chart, a folder or an archive, to the folder `chart` of a temporary one.
pub(super) fn stage(chart: &Path) -> Result<TempDir> {
    let folder = tempfile::tempdir().or_io(|| "cannot make a temporary folder")?;
    let target = folder.path().join("chart");
    let mut stage = Stage {
        bytes: MAX_BYTES,
        files: MAX_FILES,
    };
    match chart.is_dir() {
        true => stage.copy(chart, &target)?,
        false => stage.unpack(chart, &target)?,
    }
    while let Some(archive) = sub_chart(&target)? {
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unpacked = archive.with_file_name(format!("{name}.unpacked"));
        stage
            .unpack(&archive, &unpacked)
            .context(|| format!("cannot unpack the sub-chart {name}"))?;
        fs::remove_file(&archive).or_io(|| "cannot make a temporary folder")?;
    }
    Ok(folder)
}

/// Whether an archive holds a chart.
pub(super) fn is_chart(archive: &Path) -> Result<bool> {
    let mut tar = open(archive)?;
    while let Some(member) = tar.next()? {
        if let MemberKind::File(_) = member.kind
            && below_top(&member.path).is_ok_and(|path| path == Path::new("Chart.yaml"))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An archive among the sub-charts of a chart, and of those.
fn sub_chart(chart: &Path) -> Result<Option<PathBuf>> {
    for entry in WalkDir::new(chart).sort_by_file_name() {
        let entry = entry
            .map_err(io::Error::from)
            .or_io(|| "cannot read a temporary folder")?;
        let path = entry.path();
        let is_sub_chart = path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|folder| folder == "charts");
        if is_sub_chart && entry.file_type().is_file() && path.extension().is_some_and(|end| end == "tgz") {
            return Ok(Some(entry.into_path()));
        }
    }
    Ok(None)
}

fn open(archive: &Path) -> Result<TarReader<Box<dyn Read>>> {
    let place = || format!("cannot read {}", archive.display());
    let file = BufReader::new(File::open(archive).or_read(place)?);
    Ok(TarReader::new(Box::new(Compression::Gzip.inflater(file)?)))
}

/// A path of an archive without its first folder, in which helm has all of a chart.
fn below_top(path: &str) -> Result<PathBuf> {
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    if path.starts_with('/') || parts.clone().any(|part| part == "..") {
        let what = format!("`{}` leads out of the chart", path.escape_debug());
        return Err(Error::new(ErrorKind::Input, what).hint("make the archive with `helm package`"));
    }
    parts.next();
    Ok(parts.collect())
}

impl Stage {
    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        for entry in WalkDir::new(from).sort_by_file_name() {
            let entry = entry.map_err(io::Error::from).or_read(|| "cannot read the chart")?;
            let below = entry.path().strip_prefix(from).unwrap_or(entry.path());
            let kind = entry.file_type();
            if kind.is_dir() {
                fs::create_dir_all(to.join(below)).or_io(|| "cannot make a temporary folder")?;
            } else if kind.is_file() {
                let file = File::open(entry.path()).or_read(|| format!("cannot read `{}`", below.display()))?;
                self.write(&to.join(below), below, file)?;
            } else if !(entry.depth() == 0 && entry.path().is_dir()) {
                return Err(no_file(below));
            }
        }
        Ok(())
    }

    fn unpack(&mut self, archive: &Path, to: &Path) -> Result<()> {
        let mut tar = open(archive)?;
        while let Some(member) = tar.next()? {
            let path = below_top(&member.path)?;
            match member.kind {
                MemberKind::File(_) if !path.as_os_str().is_empty() => {
                    self.write(&to.join(&path), &path, tar.content())?;
                }
                MemberKind::File(_) | MemberKind::Folder => {}
                _ => return Err(no_file(&path)),
            }
        }
        match to.join("Chart.yaml").is_file() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Input, "it holds no Chart.yaml")),
        }
    }

    fn write(&mut self, to: &Path, shown: &Path, content: impl Read) -> Result<()> {
        let place = || format!("cannot write {}", to.display());
        let too_large = || {
            let what = format!(
                "the chart is too large: {} MiB, or {MAX_FILES} files, are taken",
                MAX_BYTES >> 20
            );
            Error::new(ErrorKind::Input, what).hint(format!("`{}` is where it became so", shown.display()))
        };
        self.files = self.files.checked_sub(1).ok_or_else(too_large)?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).or_io(place)?;
        }
        let mut file = File::create(to).or_io(place)?;
        let written = io::copy(&mut content.take(self.bytes + 1), &mut file).or_read(place)?;
        file.flush().or_io(place)?;
        self.bytes = self.bytes.checked_sub(written).ok_or_else(too_large)?;
        Ok(())
    }
}

fn no_file(path: &Path) -> Error {
    let what = format!("`{}` is neither a file nor a folder", path.display());
    Error::new(ErrorKind::Input, what).hint("put what it leads to in its place: links of charts are not followed")
}
