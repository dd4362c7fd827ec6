//! Moving an image: one engine for every pair of source and sink.
//!
//! All blobs of all documents are planned first and each moves once; what the sink has is skipped; several move at
//! once, the largest first; each is verified while it streams. A sink gets its name only after everything is in.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Context as _, Error, Result};
use crate::graph;
use crate::progress::{Progress, Task};
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::Descriptor;
use crate::store::Store;

/// In which order a sink wants the documents (indexes, manifests).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Before the payload, one blob at a time: a file that is read from its start.
    DocumentsFirst,
    /// After everything that they name: nobody ever sees a manifest whose layers are missing.
    DocumentsLast,
}

/// A place that blobs are written to.
pub trait Sink: Send + Sync {
    /// The order it needs.
    fn order(&self) -> Order;

    /// Whether it holds the blob already.
    ///
    /// # Errors
    /// When it can't tell.
    fn has(&self, blob: &Descriptor) -> Result<bool>;

    /// Takes a blob in and verifies it.
    ///
    /// # Errors
    /// What reading or writing may meet; an integrity error when the bytes are not the blob's.
    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()>;

    /// Makes what was taken visible under its name.
    ///
    /// # Errors
    /// When it can't be written.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// What a copy moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that moved.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the sink had.
    pub skipped: u64,
}

/// Copies the image under `root`, `jobs` blobs at once.
///
/// # Errors
/// The first failure, naming the blob; what the sink has taken so far stays for the next try.
pub fn copy(
    source: &dyn Source,
    root: &Descriptor,
    sink: Box<dyn Sink + '_>,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Copied> {
    let blobs = graph::blobs(source, root)?;
    let (documents, mut payload): (Vec<_>, Vec<_>) =
        blobs.into_iter().partition(graph::is_document);
    let mut copied = Copied::default();
    match sink.order() {
        Order::DocumentsFirst => {
            // A document comes before those that it names, the payload in the order of the layers.
            let ordered: Vec<_> = documents.into_iter().rev().chain(payload).collect();
            move_all(&ordered, source, &*sink, 1, progress, &mut copied)?;
        }
        Order::DocumentsLast => {
            payload.sort_by_key(|blob| std::cmp::Reverse(blob.size));
            move_all(&payload, source, &*sink, jobs, progress, &mut copied)?;
            move_all(&documents, source, &*sink, 1, progress, &mut copied)?;
        }
    }
    sink.commit()?;
    Ok(copied)
}

fn move_all(
    blobs: &[Descriptor],
    source: &dyn Source,
    sink: &dyn Sink,
    jobs: usize,
    progress: &dyn Progress,
    copied: &mut Copied,
) -> Result<()> {
    let mut missing = Vec::new();
    for blob in blobs {
        if sink.has(blob)? {
            copied.skipped += 1;
        } else {
            missing.push(blob);
        }
    }
    let total = missing.iter().map(|blob| blob.size).sum();
    copied.blobs += missing.len() as u64;
    copied.bytes += total;
    if missing.is_empty() {
        return Ok(());
    }
    let task = Task::begin(
        progress,
        &format!("copying from {}", source.origin()),
        Some(total),
    );
    in_parallel(missing, jobs, |blob| {
        sink.take(blob, source, &task)
            .context(|| format!("cannot copy blob {} from {}", blob.digest, source.origin()))
    })
}

/// Works on `items` in their order, `jobs` at once, and stops taking new ones after the first failure.
///
/// # Errors
/// The first failure.
pub fn in_parallel<T: Send>(
    items: Vec<T>,
    jobs: usize,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let jobs = jobs.clamp(1, items.len().max(1));
    let queue = Mutex::new(VecDeque::from(items));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        loop {
            if failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
            {
                return;
            }
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(item) = next else { return };
            if let Err(error) = work(item) {
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                return;
            }
        }
    };
    if jobs == 1 {
        worker();
    } else {
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(worker);
            }
        });
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The store as a sink. The image gets all `names`, or is kept under its digest if there are none.
#[derive(Debug)]
pub struct StoreSink<'s> {
    /// The store.
    pub store: &'s Store,
    /// What is copied.
    pub root: Descriptor,
    /// Its names afterwards.
    pub names: Vec<Reference>,
}

impl Sink for StoreSink<'_> {
    fn order(&self) -> Order {
        Order::DocumentsLast
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.store.has(&blob.digest))
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        self.store.fetch(blob, source, task)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        if self.names.is_empty() {
            return self.store.tag(None, &self.root);
        }
        for name in &self.names {
            self.store.tag(Some(name), &self.root)?;
        }
        Ok(())
    }
}
