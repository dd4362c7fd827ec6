//! `sealrs man`, for packagers.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use sealrs_image::error::{IoResultExt as _, Result};

use crate::arguments::Arguments;

/// Write the man pages into a folder.
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
        clap_mangen::generate_to(Arguments::command(), &self.folder).or_io(place)
    }
}
