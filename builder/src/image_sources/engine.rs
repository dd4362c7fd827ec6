//! Docker and podman: what they have of the wanted images, saved by themselves into a file that goes when it was read.
//! They keep images unpacked, so what they save has digests of its own: an image that is named by its digest is not there.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use sealrs_image::archive::Archive;
use sealrs_image::error::{Context as _, IoResultExt as _, Result};
use sealrs_image::platform::Platform;
use sealrs_image::progress::Task;
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use tempfile::NamedTempFile;

use super::{Local, Opening, cannot_run, failed, output};

/// An archive that goes with its last use.
struct Passing {
    archive: Archive,
    _file: NamedTempFile,
}

impl Source for Passing {
    fn origin(&self) -> String {
        self.archive.origin()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.archive.open(blob, offset)
    }
}

/// The wanted images of `program`; none if it has none of them.
pub(super) fn open(program: &'static str, save: &[&str], opening: &Opening<'_>) -> Result<Option<Local>> {
    // That an image is not there and that nothing answers would look the same below.
    output(Command::new(program).args(["image", "ls", "--quiet"]))?;
    let mut names = Vec::new();
    for image in opening.wanted.iter().filter(|image| image.digest().is_none()) {
        let name = image.to_string();
        let inspect = ["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", &name];
        let done = Command::new(program).args(inspect).output();
        let done = done.map_err(|error| cannot_run(program, error))?;
        let platform = String::from_utf8_lossy(&done.stdout).trim().parse::<Platform>();
        if done.status.success() && platform.is_ok_and(|platform| opening.platform.accepts(&platform)) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let what = format!("{program} saves {} container images", names.len());
    let _task = Task::begin(opening.progress, &what, None);
    let folder = opening.store.partial_folder();
    let place = || format!("cannot write into {}", folder.display());
    let file = NamedTempFile::new_in(&folder).or_io(place)?;
    let into: File = file.as_file().try_clone().or_io(place)?;
    let done = Command::new(program)
        .args(save)
        .args(&names)
        .stdin(Stdio::null())
        .stdout(into)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| cannot_run(program, error))?;
    if !done.status.success() {
        return Err(failed(program, String::from_utf8_lossy(&done.stderr).trim()));
    }
    let archive = Archive::open(file.path()).context(|| format!("what {program} saved can't be read"))?;
    Ok(Some(Local {
        names: archive
            .images()
            .iter()
            .filter_map(|(name, image)| Some((name.clone()?, image.clone())))
            .collect(),
        source: Box::new(Passing { archive, _file: file }),
    }))
}
