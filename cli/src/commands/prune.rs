//! `sealrs prune`

use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::error::Result;
use sealrs_image::store::Store;

use crate::printer::Printer;

/// Remove what no image in the store reaches: replaced layers, cached layers, leftovers of interrupted work.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs prune")]
pub(crate) struct Prune {}

impl Prune {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let collected = Store::look(root)?.prune()?;
        let document = serde_json::json!({"files": collected.files, "bytes": collected.bytes});
        printer.result(&document, |_| {
            format!("removed {} files, {}", collected.files, HumanBytes(collected.bytes))
        })
    }
}
