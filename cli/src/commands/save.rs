//! `sealrs save`

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::archive::ArchiveSink;
use sealrs_image::copy::copy;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::in_store;
use sealrs_image::store::Store;

use crate::printer::Printer;

/// Write an image of the store into one file, an OCI archive.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs save k3s:v1 -o k3s.tar")]
pub(crate) struct Save {
    /// Name of an image in the store, or the start of its digest.
    #[arg(value_name = "NAME")]
    image: String,

    /// File to write.
    #[arg(short, long = "output-file", visible_alias = "file", value_name = "FILE")]
    output_file: PathBuf,

    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

impl Save {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let (descriptor, name) = in_store(&store, &self.image)?;
        let sink = ArchiveSink::create(&self.output_file, &descriptor, name.as_ref(), self.force)?;
        let copied = copy(&store, &descriptor, Box::new(sink), 1, &*printer.progress()).map_err(|error| {
            let what = format!("cannot save {} to {}", self.image, self.output_file.display());
            let failure = Error::new(error.kind(), what);
            match error.kind() {
                ErrorKind::Disk => failure
                    .because(error)
                    .hint("free some space there, or write the file elsewhere with `-o`"),
                _ => failure.because(error),
            }
        })?;
        let document = serde_json::json!({
            "file": self.output_file, "digest": descriptor.digest, "blobs": copied.blobs, "bytes": copied.bytes,
        });
        printer.result(&document, |_| {
            format!(
                "saved {} to {} ({})",
                self.image,
                self.output_file.display(),
                HumanBytes(copied.bytes)
            )
        })
    }
}
