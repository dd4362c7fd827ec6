//! Keeps apart the sealrs that install or delete different clusters on one host: what they edit of the same file, or take
//! for empty, must not change between a look and a write.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::lock::{self, Lock};

/// What is locked: every host has it, everybody can open it, and nothing has to be made for it.
const FOLDER: &str = "/etc";

/// An edit takes milliseconds; a big file that is copied takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until no other sealrs edits files of this host that clusters share.
///
/// # Errors
/// [`ErrorKind::Conflict`] when one does for a minute.
pub(crate) fn hold() -> Result<Option<Lock>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let busy = || {
            Error::new(
                ErrorKind::Conflict,
                "another sealrs has been changing files of this host for a minute",
            )
            .hint(format!(
                "see who holds the lock on {FOLDER} with `lslocks`, and try again"
            ))
        };
        match lock::try_folder(Path::new(FOLDER), busy) {
            Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            held => return held,
        }
    }
}
