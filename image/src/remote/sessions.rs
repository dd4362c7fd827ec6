//! Uploads that were begun: where each goes on, for the next process to find.
//!
//! A small file per upload, below the store's `partial` folder, where `prune` takes it away. It is readable by its owner
//! only: whoever has the URL can write to the upload.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use reqwest::Url;

use crate::digest::Digest;
use crate::reference::Reference;

/// Where uploads are remembered; nowhere without a folder. Losing one costs a repetition, so no failure here is one
/// of the upload.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(pub(super) Option<PathBuf>);

/// What is remembered of one upload. Only one process at a time goes on with it: another that sends the same blob
/// begins an upload of its own, and remembers nothing.
#[derive(Debug)]
pub(super) struct Remembered(Option<(PathBuf, File)>);

impl Sessions {
    pub(super) fn of(&self, repository: &Reference, blob: &Digest) -> Remembered {
        let key = Digest::of(format!("{} {blob}", repository.repository()).as_bytes());
        let open = |folder: &PathBuf| {
            let path = folder.join(format!("upload-{}", key.hex()));
            let mut options = fs::OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).ok()?;
            file.try_lock().ok()?;
            Some((path, file))
        };
        Remembered(self.0.as_ref().and_then(open))
    }
}

impl Remembered {
    /// Where the upload went on when it was left.
    pub(super) fn recall(&mut self) -> Option<Url> {
        let (_, file) = self.0.as_mut()?;
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(1 << 16).read_to_string(&mut text).ok()?;
        text.parse().ok()
    }

    pub(super) fn remember(&mut self, url: &Url) {
        if let Some((_, file)) = self.0.as_mut() {
            let rewound = file.rewind().and_then(|()| file.set_len(0));
            let _ = rewound.and_then(|()| file.write_all(url.as_str().as_bytes()));
        }
    }

    pub(super) fn forget(&mut self) {
        if let Some((_, file)) = self.0.as_mut() {
            let _ = file.set_len(0);
        }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if let Some((path, file)) = &self.0
            && file.metadata().is_ok_and(|metadata| metadata.len() == 0)
        {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_upload_is_remembered_for_its_repository_and_for_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions(Some(folder.path().to_owned()));
        let (one, two): (Reference, Reference) = ("r.example/a:1".parse().unwrap(), "r.example/b:1".parse().unwrap());
        let urls = [
            "https://r.example/v2/a/blobs/uploads/1?_state=xyz",
            "https://r.example/2",
        ];
        let blob = Digest::of(b"blob");
        let mut held = sessions.of(&one, &blob);
        for url in urls {
            held.remember(&url.parse().unwrap());
            assert_eq!(held.recall().unwrap().as_str(), url);
        }
        assert_eq!(sessions.of(&one, &blob).recall(), None, "somebody goes on with it");
        assert_eq!(sessions.of(&two, &blob).recall(), None);
        drop(held);
        let entry = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut held = sessions.of(&one, &blob);
        assert_eq!(held.recall().unwrap().as_str(), urls[1]);
        held.forget();
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        Sessions::default().of(&one, &blob).remember(&urls[0].parse().unwrap());
    }
}
