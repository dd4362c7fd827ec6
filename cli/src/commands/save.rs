//! `sealrs save`

use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::archive::{ArchiveSink, Delta, Output};
use sealrs_image::copy::copy;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::locate::{in_store, locate};
use sealrs_image::progress::{Event, Progress as _};
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;

use super::size::size;
use crate::printer::Printer;

/// Write an image of the store into one file, an OCI archive.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs save k3s:v1 -o k3s.tar
  sealrs save k3s:v2 -o update.tar --since k3s:v1
  sealrs save k3s:v1 -o k3s.tar --split 4GiB
  sealrs save k3s:v1 -o - | ssh HOST sealrs load -i -")]
pub(crate) struct Save {
    /// Name of an image in the store, or the start of its digest.
    #[arg(value_name = "NAME")]
    image: String,

    /// File to write, or `-` for a pipe.
    #[arg(short, long = "output-file", visible_alias = "file", value_name = "FILE")]
    output_file: PathBuf,

    /// Leave out what this image has, because the other side has it: a name in the store, the start of a digest, or an
    /// archive file. May be given several times.
    #[arg(long, value_name = "NAME|FILE")]
    since: Vec<String>,

    /// Write numbered parts of this size at most (FILE.001, FILE.002), and their digests (FILE.sha256).
    #[arg(long, value_name = "SIZE", value_parser = size)]
    split: Option<u64>,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl Save {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::look(root)?;
        let _lock = store.share()?;
        let (descriptor, name) = in_store(&store, &self.image)?;
        let delta = self.delta(root, &store, &descriptor)?;
        let bases = delta.bases().to_vec();
        let copied = self
            .output()
            .and_then(|output| ArchiveSink::new(output, &descriptor, name.as_ref(), delta))
            .and_then(|sink| copy(&store, &descriptor, Box::new(sink), 1, &*printer.progress()))
            .map_err(|error| self.failure(error))?;
        let text = format!(
            "saved {} to {} ({})",
            self.image,
            self.target(),
            HumanBytes(copied.bytes)
        );
        if self.to_pipe() {
            // Standard output is the archive's.
            printer.progress().event(Event::Message(&text));
            return Ok(());
        }
        let document = serde_json::json!({
            "file": self.output_file, "digest": descriptor.digest, "blobs": copied.blobs, "bytes": copied.bytes,
            "skipped": copied.skipped, "bases": bases,
        });
        printer.result(&document, |_| match bases.as_slice() {
            [] => text,
            _ => {
                let bases: Vec<String> = bases.iter().map(ToString::to_string).collect();
                format!("{text}; the other side has to have {}", bases.join(" and "))
            }
        })
    }

    /// What the other side has.
    fn delta(&self, root: &Path, store: &Store, image: &Descriptor) -> Result<Delta> {
        let mut delta = Delta::default();
        for base in &self.since {
            let place = || format!("cannot save what is new since {base}");
            let located = locate(root, base).context(place)?;
            delta
                .since(store, image, &*located.source, &located.root, located.name.clone())
                .context(place)?;
        }
        Ok(delta)
    }

    fn target(&self) -> String {
        match self.to_pipe() {
            true => "standard output".to_owned(),
            false => self.output_file.display().to_string(),
        }
    }

    fn to_pipe(&self) -> bool {
        self.output_file == Path::new("-")
    }

    fn output(&self) -> Result<Output> {
        match self.split {
            Some(_) if self.to_pipe() => Err(Error::new(ErrorKind::Input, "`--split` and `-o -` exclude each other")
                .hint("write to a file, or split what comes out of the pipe")),
            Some(size) => Output::parts(&self.output_file, size, self.force),
            None if self.to_pipe() => Ok(Output::stream(pipe()?)),
            None => Output::file(&self.output_file, self.force),
        }
    }

    fn failure(&self, error: Error) -> Error {
        let what = format!("cannot save {} to {}", self.image, self.target());
        let failure = Error::new(error.kind(), what);
        match error.kind() {
            ErrorKind::Disk if self.to_pipe() => failure
                .because(error)
                .hint("look why the reading end of the pipe ended"),
            ErrorKind::Disk => failure
                .because(error)
                .hint("free some space there, or write the file elsewhere with `-o`"),
            // It says all there is to say.
            ErrorKind::Conflict | ErrorKind::Input => error,
            _ => failure.because(error),
        }
    }
}

/// Standard output, past the standard library's small buffer.
fn pipe() -> Result<Box<dyn Write + Send>> {
    let out = io::stdout();
    if out.is_terminal() {
        return Err(
            Error::new(ErrorKind::Input, "an archive can't be written to a terminal")
                .hint("put a command behind, for instance `| ssh HOST sealrs load -i -`, or name a file with `-o`"),
        );
    }
    let file = out
        .as_fd()
        .try_clone_to_owned()
        .or_io(|| "cannot write to standard output")?;
    Ok(Box::new(std::fs::File::from(file)))
}
