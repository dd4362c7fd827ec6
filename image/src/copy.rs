//! Moving an image: one engine for every pair of source and sink.
//!
//! All blobs of all documents are planned first and each moves once; what the sink has is skipped; several move at
//! once, the largest first; each is verified while it streams. A sink gets its name only after everything is in.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Context as _, Error, Result};
use crate::graph::{self, Graph};
use crate::progress::{Progress, Task};
use crate::reference::Reference;
use crate::source::{Source, document};
use crate::spec::{Descriptor, media_type};
use crate::store::Store;

/// A blob of at least so many bytes has a progress of its own.
const WORTH_SHOWING: u64 = 4 << 20;

/// In which order a sink wants the documents (indexes, manifests).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Before the payload, one blob at a time: a file that is read from its start. Configs come after the documents.
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
    let graph = Graph::read(source, root, jobs)?;
    let source = &graph.over(source);
    let sink_ref = &*sink;
    let missing = missing(&graph.blobs, sink_ref, jobs)?;
    // Sizes come from documents that nobody vouches for.
    let total = missing.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    let copied = Copied {
        blobs: missing.len() as u64,
        bytes: total,
        skipped: (graph.blobs.len() - missing.len()) as u64,
    };
    if !missing.is_empty() {
        let task = Task::begin(progress, &format!("copying from {}", source.origin()), Some(total));
        let take = |blob: Descriptor| {
            let part = (blob.size >= WORTH_SHOWING).then(|| task.part(&blob.digest.short(), blob.size));
            sink_ref
                .take(&blob, source, part.as_ref().unwrap_or(&task))
                .context(|| format!("cannot copy blob {} from {}", blob.digest, source.origin()))
        };
        in_order(missing, &graph, source, sink_ref.order(), jobs, take).map_err(|error| error.needing(total))?;
    }
    sink.commit()?;
    Ok(copied)
}

/// Takes all blobs in the order that a sink needs.
fn in_order(
    missing: Vec<Descriptor>,
    graph: &Graph,
    source: &dyn Source,
    order: Order,
    jobs: usize,
    take: impl Fn(Descriptor) -> Result<()> + Sync,
) -> Result<()> {
    let (documents, mut payload): (Vec<_>, Vec<_>) = missing.into_iter().partition(graph::is_document);
    match order {
        Order::DocumentsFirst => {
            // A document comes before those that it names, then what tells how to read the payload, and the payload
            // in the order of the layers.
            graph.sort_payload(&mut payload);
            in_parallel(documents.into_iter().rev().chain(payload).collect(), 1, take)
        }
        Order::DocumentsLast => {
            let (indexes, manifests): (Vec<_>, Vec<_>) = documents
                .into_iter()
                .partition(|document| media_type::is_index(&document.media_type));
            let (mut lined_up, mut free): (Vec<_>, Vec<_>) =
                payload.into_iter().partition(|blob| source.turn(blob).is_some());
            lined_up.sort_by_key(|blob| source.turn(blob));
            in_parallel(lined_up, 1, &take)?;
            free.sort_by_key(|blob| std::cmp::Reverse(blob.size));
            in_parallel(free, jobs, &take)?;
            in_parallel(manifests, jobs, &take)?;
            // Each after those that it names.
            in_parallel(indexes, 1, take)
        }
    }
}

/// What the sink lacks, in the same order.
fn missing(blobs: &[Descriptor], sink: &dyn Sink, jobs: usize) -> Result<Vec<Descriptor>> {
    let found = Mutex::new(Vec::new());
    in_parallel(blobs.iter().enumerate().collect(), jobs, |(at, blob)| {
        if !sink.has(blob)? {
            found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, blob.clone()));
        }
        Ok(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, blob)| blob).collect())
}

/// Works on `items` in their order, `jobs` at once, and stops taking new ones after the first failure.
///
/// # Errors
/// The first failure.
pub fn in_parallel<T: Send>(items: Vec<T>, jobs: usize, work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let jobs = jobs.clamp(1, items.len().max(1));
    let queue = Mutex::new(VecDeque::from(items));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        loop {
            if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
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

/// The store as a sink for blobs that get no name of their own: parts of something that will have one.
#[derive(Debug)]
pub struct BlobSink<'s>(pub &'s Store);

impl Sink for BlobSink<'_> {
    fn order(&self) -> Order {
        Order::DocumentsLast
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        if self.0.size(&blob.digest) != Some(blob.size) {
            return Ok(false);
        }
        // A document is small enough to look at. A damaged one is replaced: it would hide everything that it names.
        if graph::is_document(blob) && document(self.0, blob).is_err() {
            self.0.forget(&blob.digest)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        self.0.fetch(blob, source, task)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
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
        BlobSink(self.store).has(blob)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        BlobSink(self.store).take(blob, source, task)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::ErrorKind;
    use crate::progress::{Event, Silent};
    use crate::testing::{Memory, noise};

    /// Writes down what it is told to take.
    struct Notes {
        order: Order,
        has: Vec<Descriptor>,
        taken: Mutex<Vec<Descriptor>>,
        committed: std::sync::Arc<AtomicUsize>,
    }

    impl Sink for &Notes {
        fn order(&self) -> Order {
            self.order
        }

        fn has(&self, blob: &Descriptor) -> Result<bool> {
            Ok(self.has.contains(blob))
        }

        fn take(&self, blob: &Descriptor, source: &dyn Source, _: &Task<'_>) -> Result<()> {
            source.open(blob, 0)?;
            self.taken.lock().unwrap().push(blob.clone());
            Ok(())
        }

        fn commit(self: Box<Self>) -> Result<()> {
            self.committed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn notes(order: Order) -> Notes {
        Notes {
            order,
            has: Vec::new(),
            taken: Mutex::default(),
            committed: std::sync::Arc::default(),
        }
    }

    fn image(memory: &mut Memory) -> Descriptor {
        let layers = [10, 3000, 200]
            .map(|size| memory.add(media_type::LAYER, noise(size, 1)))
            .map(|layer| (layer.clone(), layer.digest));
        memory.image(layers.into())
    }

    #[test]
    fn documents_come_first_or_last_and_large_blobs_before_small_ones() {
        let mut memory = Memory::default();
        let root = image(&mut memory);
        for (order, expected) in [(Order::DocumentsFirst, 0), (Order::DocumentsLast, 4)] {
            let sink = notes(order);
            let copied = copy(&memory, &root, Box::new(&sink), 1, &Silent).unwrap();
            assert_eq!((copied.blobs, copied.skipped), (5, 0));
            let taken = sink.taken.into_inner().unwrap();
            assert_eq!(copied.bytes, taken.iter().map(|blob| blob.size).sum::<u64>());
            assert_eq!(taken[expected], root);
            let layers: Vec<u64> = taken
                .iter()
                .filter(|blob| blob.media_type == media_type::LAYER)
                .map(|blob| blob.size)
                .collect();
            match order {
                Order::DocumentsFirst => assert_eq!(layers, [10, 3000, 200]),
                Order::DocumentsLast => assert_eq!(layers, [3000, 200, 10]),
            }
            assert_eq!(sink.committed.load(Ordering::Relaxed), 1);
        }
    }

    /// A packed layer is unpacked once when its files are asked for in their order.
    #[test]
    fn blobs_with_turns_come_in_their_order() {
        struct Packed(Memory);
        impl Source for Packed {
            fn origin(&self) -> String {
                self.0.origin()
            }

            fn turn(&self, blob: &Descriptor) -> Option<u64> {
                [200, 3000]
                    .iter()
                    .position(|size| *size == blob.size)
                    .map(|at| at as u64)
            }

            fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn std::io::Read + Send + 'a>> {
                self.0.open(blob, offset)
            }
        }
        let mut memory = Memory::default();
        let root = image(&mut memory);
        let sink = notes(Order::DocumentsLast);
        copy(&Packed(memory), &root, Box::new(&sink), 4, &Silent).unwrap();
        let taken = sink.taken.into_inner().unwrap();
        assert_eq!((taken[0].size, taken[1].size), (200, 3000));
        assert_eq!(taken.last(), Some(&root));
    }

    #[test]
    fn what_the_sink_has_is_not_moved() {
        let mut memory = Memory::default();
        let root = image(&mut memory);
        let mut sink = notes(Order::DocumentsLast);
        sink.has = graph::blobs(&memory, &root).unwrap();
        sink.has.retain(|blob| blob.size != 10);
        let copied = copy(&memory, &root, Box::new(&sink), 4, &Silent).unwrap();
        assert_eq!(
            copied,
            Copied {
                blobs: 1,
                bytes: 10,
                skipped: 4
            }
        );
        assert_eq!(sink.taken.into_inner().unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_committed_when_a_blob_fails() {
        let mut memory = Memory::default();
        let root = image(&mut memory);
        let lost = Descriptor::of(media_type::LAYER, &noise(200, 1));
        memory.forget(lost.digest);
        for jobs in [1, 4] {
            let sink = notes(Order::DocumentsLast);
            let error = copy(&memory, &root, Box::new(&sink), jobs, &Silent).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains(&lost.digest.to_string()));
            assert_eq!(sink.committed.load(Ordering::Relaxed), 0);
            let taken = sink.taken.into_inner().unwrap();
            assert!(taken.iter().all(|blob| *blob != root), "the manifest went ahead");
        }
    }

    /// Sizes in documents are anybody's: their sum must not be more than a number holds.
    #[test]
    fn absurd_sizes_are_borne() {
        struct Totals(Mutex<Vec<Option<u64>>>);
        impl Progress for Totals {
            fn event(&self, event: Event<'_>) {
                if let Event::Begin { total, .. } = event {
                    self.0.lock().unwrap().push(total);
                }
            }
        }
        let mut memory = Memory::default();
        let layers = [1, 2].map(|at| {
            let mut layer = memory.add(media_type::LAYER, noise(100, at));
            layer.size = u64::MAX;
            (layer.clone(), layer.digest)
        });
        let root = memory.image(layers.into());
        let totals = Totals(Mutex::default());
        let sink = notes(Order::DocumentsLast);
        let copied = copy(&memory, &root, Box::new(&sink), 1, &totals).unwrap();
        assert_eq!(copied.bytes, u64::MAX);
        assert_eq!(totals.0.into_inner().unwrap().first(), Some(&Some(u64::MAX)));
        assert_eq!(memory.read(&root).packed_size(), u64::MAX);
        assert_eq!(memory.read(&root).unpacked_size(), u64::MAX);
    }

    #[test]
    fn no_new_work_begins_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let error = in_parallel((0..1000).collect(), 4, |at: usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if at == 5 {
                return Err(Error::new(ErrorKind::Network, "five"));
            }
            thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "five");
        assert!(begun.load(Ordering::Relaxed) < 50);
        in_parallel(Vec::<u8>::new(), 4, |_| Ok(())).unwrap();
    }
}
