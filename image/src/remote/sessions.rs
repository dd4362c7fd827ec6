//! Uploads that were begun: where each goes on, for the next process to find.
//!
//! A small file per upload, below the store's `partial` folder, where `prune` takes it away. It is readable by its owner
//! only: whoever has the URL can write to the upload.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use reqwest::Url;

use crate::digest::Digest;
use crate::reference::Reference;

/// Where uploads are remembered; nowhere without a folder. Losing one costs a repetition, so no failure here is one
/// of the upload.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(pub(super) Option<PathBuf>);

impl Sessions {
    pub(super) fn recall(&self, repository: &Reference, blob: &Digest) -> Option<Url> {
        let text = fs::read_to_string(self.path(repository, blob)?).ok()?;
        text.parse().ok()
    }

    pub(super) fn remember(&self, repository: &Reference, blob: &Digest, url: &Url) {
        let Some(path) = self.path(repository, blob) else {
            return;
        };
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        let _ = file.and_then(|mut file| file.write_all(url.as_str().as_bytes()));
    }

    pub(super) fn forget(&self, repository: &Reference, blob: &Digest) {
        if let Some(path) = self.path(repository, blob) {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, repository: &Reference, blob: &Digest) -> Option<PathBuf> {
        let key = Digest::of(format!("{} {blob}", repository.repository()).as_bytes());
        Some(self.0.as_ref()?.join(format!("upload-{}", key.hex())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_upload_is_remembered_for_its_repository_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions(Some(folder.path().to_owned()));
        let (one, two): (Reference, Reference) = ("r.example/a:1".parse().unwrap(), "r.example/b:1".parse().unwrap());
        let url: Url = "https://r.example/v2/a/blobs/uploads/1?_state=x".parse().unwrap();
        let blob = Digest::of(b"blob");
        sessions.remember(&one, &blob, &url);
        assert_eq!(sessions.recall(&one, &blob), Some(url));
        assert_eq!(sessions.recall(&two, &blob), None);
        let entry = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        sessions.forget(&one, &blob);
        assert_eq!(sessions.recall(&one, &blob), None);
        Sessions::default().remember(&one, &blob, &"https://r.example/".parse().unwrap());
    }
}
