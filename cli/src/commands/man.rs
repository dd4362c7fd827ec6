//! `sealrs man`

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use sealrs_image::error::{IoResultExt as _, Result};

use crate::arguments::Arguments;

/// Write the man pages of all commands into a folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Folder that the pages go into.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<()> {
        let place = || format!("cannot write man pages into {}", self.folder.display());
        std::fs::create_dir_all(&self.folder).or_io(place)?;
        clap_mangen::generate_to(Arguments::command(), &self.folder).or_io(place)?;
        for entry in std::fs::read_dir(&self.folder).or_io(place)? {
            let path = entry.or_io(place)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("sealrs") && name.ends_with(".1") {
                let page = std::fs::read_to_string(&path).or_io(place)?;
                std::fs::write(&path, with_examples(&page)).or_io(place)?;
            }
        }
        Ok(())
    }
}

/// What clap calls by no name are examples.
fn with_examples(page: &str) -> String {
    let page = page.replacen(".SH EXTRA\nExample:\n", ".SH EXAMPLES\n", 1);
    page.replacen(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n", 1)
}
