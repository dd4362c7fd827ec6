//! Whether the bytes of blobs are still those that their digests say.
//!
//! A blob is hashed once, when somebody first asks for it, whatever part of it and however many clients do. That is remembered
//! for the very file that was read: one that was written since is another one. What was pushed here was hashed as it came.
//! Decay of the disk changes no times, so what is remembered is doubted again after a day.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealrs_image::progress::{Event, Progress};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use crate::digest::BlobDigest;
use crate::layout;
use crate::metrics::Metrics;

/// How long a file is trusted.
const TRUSTED: Duration = Duration::from_secs(24 * 3600);

/// How many files are remembered. Those that are forgotten are read again.
const REMEMBERED: usize = 1 << 16;

/// A blob of at most so many bytes is hashed before it is answered for.
const AT_ONCE: u64 = 1 << 20;

/// What is known of a blob's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They have the digest.
    Whole,
    /// They have another one.
    Damaged,
}

/// What is known of the blobs of a directory.
pub(crate) struct Verdicts {
    known: Mutex<HashMap<Key, Known>>,
    hashing: Arc<Semaphore>,
    progress: Arc<dyn Progress>,
    metrics: Arc<Metrics>,
}

/// A file in a certain state, and what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    digest: BlobDigest,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Key {
    fn of(digest: &BlobDigest, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            digest: *digest,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether nobody wrote to the file between the two. A push of the same blob and a deletion take away the name of a
    /// file that somebody reads, and change no more of it than that.
    fn has_bytes_of(&self, before: &Self) -> bool {
        *self
            == Self {
                changed: self.changed,
                ..*before
            }
    }
}

enum Known {
    Settled(Verdict, Instant),
    Hashing(Arc<watch::Sender<Option<Verdict>>>),
}

/// What there is to say of a blob now.
pub(crate) enum Judged {
    /// Its verdict.
    Settled(Verdict),
    /// It is being found out.
    Pending(Pending),
}

/// A verdict that is still to come.
#[derive(Debug)]
pub(crate) struct Pending(watch::Receiver<Option<Verdict>>);

impl Pending {
    /// What a test decides.
    #[cfg(test)]
    pub(crate) fn of(verdict: watch::Receiver<Option<Verdict>>) -> Self {
        Self(verdict)
    }

    /// The verdict, if it is there.
    pub(crate) fn now(&self) -> Option<Verdict> {
        *self.0.borrow()
    }

    /// The verdict. There is none if the file could not be read.
    pub(crate) async fn wait(&mut self) -> Option<Verdict> {
        let verdict = self.0.wait_for(Option::is_some).await.ok()?;
        *verdict
    }
}

impl Verdicts {
    pub(crate) fn new(progress: Arc<dyn Progress>, metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            known: Mutex::default(),
            hashing: Arc::new(Semaphore::new(cores)),
            progress,
            metrics,
        }
    }

    /// Remembers a file that was hashed as it was written.
    pub(crate) fn vouch(&self, digest: &BlobDigest, file: &File) {
        if let Ok(key) = Key::of(digest, file) {
            self.settle(key, Verdict::Whole);
        }
    }

    /// Whether a file was found to be damaged. Reads nothing.
    pub(crate) fn is_damaged(&self, digest: &BlobDigest, file: &File) -> io::Result<bool> {
        let key = Key::of(digest, file)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(matches!(known.get(&key), Some(Known::Settled(Verdict::Damaged, _))))
    }

    /// Whether a file has the bytes of its digest. A large one that nobody asked for yet is hashed while it is sent.
    pub(crate) fn judge(self: &Arc<Self>, digest: &BlobDigest, file: &Arc<File>) -> io::Result<Judged> {
        let key = Key::of(digest, file)?;
        let (job, pending) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            match known.get(&key) {
                Some(Known::Settled(Verdict::Damaged, _)) => return Ok(Judged::Settled(Verdict::Damaged)),
                Some(Known::Settled(Verdict::Whole, since)) if since.elapsed() < TRUSTED => {
                    return Ok(Judged::Settled(Verdict::Whole));
                }
                Some(Known::Hashing(job)) => return Ok(Judged::Pending(Pending(job.subscribe()))),
                _ => {}
            }
            if known.len() >= REMEMBERED {
                known.retain(|_, known| matches!(known, Known::Hashing(_)));
            }
            let (job, pending) = watch::channel(None);
            let job = Arc::new(job);
            known.insert(key, Known::Hashing(Arc::clone(&job)));
            (job, Pending(pending))
        };
        if key.size <= AT_ONCE {
            self.find_out(key, file, &job);
            return match pending.now() {
                Some(verdict) => Ok(Judged::Settled(verdict)),
                None => Err(io::Error::other("the blob cannot be read")),
            };
        }
        let (verdicts, file) = (Arc::clone(self), Arc::clone(file));
        Handle::current().spawn(async move {
            let _turn = Arc::clone(&verdicts.hashing).acquire_owned().await;
            let _ = spawn_blocking(move || verdicts.find_out(key, &file, &job)).await;
        });
        Ok(Judged::Pending(pending))
    }

    /// Hashes a file and tells those who wait for it.
    fn find_out(&self, key: Key, file: &Arc<File>, job: &Arc<watch::Sender<Option<Verdict>>>) {
        let reader = Reader {
            file,
            offset: 0,
            job,
            metrics: &self.metrics,
        };
        let found = key.digest.same_of_all(reader);
        let path = layout::blob_data(key.digest);
        match found {
            // Whatever was read of a file that changes meanwhile.
            Ok(_) if !Key::of(&key.digest, file).is_ok_and(|now| now.has_bytes_of(&key)) => self.forget(&key),
            Ok(found) if found == key.digest => {
                self.settle(key, Verdict::Whole);
                job.send_replace(Some(Verdict::Whole));
            }
            Ok(found) => {
                self.settle(key, Verdict::Damaged);
                // Counted before anybody is told.
                self.metrics.damaged.add(1);
                job.send_replace(Some(Verdict::Damaged));
                self.progress.event(Event::Warning(&format!(
                    "`{path}` is damaged: its bytes have the digest {found}. It is not served any more: push it again, or unpack the image again"
                )));
            }
            Err(error) => {
                self.forget(&key);
                if !matches!(error.get_ref(), Some(inner) if inner.is::<Abandoned>()) {
                    self.progress
                        .event(Event::Warning(&format!("cannot read `{path}` to verify it: {error}")));
                }
            }
        }
    }

    fn settle(&self, key: Key, verdict: Verdict) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, known| matches!(known, Known::Hashing(_)));
        }
        known.insert(key, Known::Settled(verdict, Instant::now()));
    }

    /// Nothing is known, and those who wait are told so when the last hold on the job goes.
    fn forget(&self, key: &Key) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(key);
    }
}

/// Reads a file from its start while anybody waits for what comes of it.
struct Reader<'f> {
    file: &'f File,
    offset: u64,
    job: &'f watch::Sender<Option<Verdict>>,
    metrics: &'f Metrics,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A server that stops waits for its threads, and clients may give up.
        if self.job.receiver_count() == 0 {
            return Err(io::Error::other(Abandoned));
        }
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        self.metrics.verified.add(read);
        Ok(read)
    }
}

/// Nobody waits for it any more.
#[derive(Debug)]
struct Abandoned;

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody waits for it")
    }
}

impl std::error::Error for Abandoned {}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verdicts").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use sealrs_image::digest::Digest;
    use sealrs_image::progress::Silent;

    use super::*;

    fn verdicts() -> Arc<Verdicts> {
        Arc::new(Verdicts::new(Arc::new(Silent), Arc::default()))
    }

    async fn judged(verdicts: &Arc<Verdicts>, digest: &BlobDigest, path: &Path) -> Option<Verdict> {
        match verdicts.judge(digest, &Arc::new(File::open(path).unwrap())).unwrap() {
            Judged::Settled(verdict) => Some(verdict),
            Judged::Pending(mut pending) => pending.wait().await,
        }
    }

    fn read_nothing(verdicts: &Verdicts) -> bool {
        verdicts.metrics.text().contains("verified_bytes_total 0\n")
    }

    #[tokio::test]
    async fn a_file_is_read_once_and_again_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        for size in [10, 3 << 20] {
            let verdicts = verdicts();
            let bytes = vec![7; size];
            let digest = BlobDigest::from(Digest::of(&bytes));
            fs::write(&path, &bytes).unwrap();
            for _ in 0..2 {
                assert_eq!(judged(&verdicts, &digest, &path).await, Some(Verdict::Whole));
                let read = format!("verified_bytes_total {size}\n");
                assert!(verdicts.metrics.text().contains(&read), "once: {size}");
            }
            let mut flipped = bytes.clone();
            flipped[size / 2] ^= 1;
            // The clock of files ticks every few milliseconds.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            fs::write(&path, &flipped).unwrap();
            for _ in 0..2 {
                assert_eq!(judged(&verdicts, &digest, &path).await, Some(Verdict::Damaged));
            }
            assert!(verdicts.is_damaged(&digest, &File::open(&path).unwrap()).unwrap());
            assert!(verdicts.metrics.text().contains("damaged_blobs_total 1\n"));
            // Pushed again.
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            verdicts.vouch(&digest, &File::open(&path).unwrap());
            assert_eq!(judged(&verdicts, &digest, &path).await, Some(Verdict::Whole));
        }
    }

    #[test]
    fn a_file_whose_name_goes_while_it_is_read_is_judged_and_one_that_is_written_is_not() {
        type Change = fn(&Path);
        let changes: [(Change, Option<Verdict>); 3] = [
            (|path| fs::remove_file(path).unwrap(), Some(Verdict::Whole)),
            (
                |path| {
                    fs::write(path.with_extension("new"), b"other").unwrap();
                    fs::rename(path.with_extension("new"), path).unwrap();
                },
                Some(Verdict::Whole),
            ),
            (|path| fs::write(path, vec![7; 100]).unwrap(), None),
        ];
        for (change, expected) in changes {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            fs::write(&path, vec![7; 100]).unwrap();
            let file = Arc::new(File::open(&path).unwrap());
            let digest = BlobDigest::from(Digest::of(&[7; 100]));
            let key = Key::of(&digest, &file).unwrap();
            // Times of files have the grain of the kernel's clock.
            std::thread::sleep(Duration::from_millis(20));
            change(&path);
            let (job, pending) = watch::channel(None);
            verdicts().find_out(key, &file, &Arc::new(job));
            assert_eq!(Pending(pending).now(), expected);
        }
    }

    #[tokio::test]
    async fn what_was_pushed_is_not_read() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(8 << 20).unwrap();
        let (verdicts, digest) = (verdicts(), BlobDigest::from(Digest::of(b"of another")));
        verdicts.vouch(&digest, &file);
        assert!(matches!(
            verdicts.judge(&digest, &file).unwrap(),
            Judged::Settled(Verdict::Whole)
        ));
        assert!(read_nothing(&verdicts));
    }

    #[tokio::test]
    async fn nobody_is_hashed_for() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(1 << 40).unwrap();
        let (verdicts, digest) = (verdicts(), BlobDigest::from(Digest::of(b"")));
        drop(verdicts.judge(&digest, &file).unwrap());
        for _ in 0..100 {
            if verdicts.known.lock().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a terabyte is hashed for nobody");
    }
}
