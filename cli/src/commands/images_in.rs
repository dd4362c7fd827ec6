//! `sealrs images-in`

use std::path::PathBuf;

use clap::Args;
use sealrs_builder::{Discovered, discover};
use sealrs_image::error::{Error, Result};

use crate::printer::Printer;

/// List the container images that manifests and image lists name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs images-in manifests/
  sealrs images-in manifests/ imageList --why
  helm template charts/app > app.yaml && sealrs images-in app.yaml")]
pub(crate) struct ImagesIn {
    /// File or folder. Charts are not rendered: they are an error.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Say of each image how sure it is, and the file, line and field that name it.
    #[arg(long)]
    why: bool,
}

impl ImagesIn {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let mut all = Discovered::default();
        for path in &self.paths {
            let Discovered { images, wrong } = discover(path)?;
            all.images.extend(images);
            all.wrong.extend(wrong);
        }
        let mut lines: Vec<String> = Vec::new();
        for found in &all.images {
            let line = if self.why {
                let (kind, file, at) = (found.kind.word(), &found.file, found.line);
                format!("{}  {kind}  {file}:{at}  {}", found.image, found.path)
                    .trim_end()
                    .to_owned()
            } else {
                found.image.to_string()
            };
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        printer.result(&all.images, |_| lines.join("\n"))?;
        if all.wrong.is_empty() {
            return Ok(());
        }
        Err(Error::together(
            "images may be missing: not everything can be understood",
            all.wrong,
        ))
    }
}
