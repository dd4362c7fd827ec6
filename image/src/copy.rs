//! Moving an image: one engine for every pair of source and sink.
//!
//! All blobs of all documents are planned first and each moves once; what the sink has is skipped; several move at
//! once, the largest first; each is verified while it streams. A sink gets its name only after everything is in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken>;

    /// Makes what was taken visible under its name.
    ///
    /// # Errors
    /// When it can't be written.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// How a sink came to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Its bytes came from the source.
    Moved,
    /// The place had it elsewhere, and took it over.
    Mounted,
}

/// What a copy moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that moved.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the sink had, or got with another image.
    pub skipped: u64,
    /// Blobs that the sink's place had elsewhere, so that none of their bytes moved.
    pub mounted: u64,
}

/// One image of a copy.
pub struct Item<'i> {
    /// Where it is.
    pub source: &'i dyn Source,
    /// Its manifest or index.
    pub root: &'i Descriptor,
    /// Where it goes.
    pub sink: Box<dyn Sink + 'i>,
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Item({} of {})", self.root.digest, self.source.origin())
    }
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
    let mut copied = copy_all(vec![Item { source, root, sink }], jobs, progress);
    copied.pop().unwrap_or_else(|| Ok(Copied::default()))
}

/// Copies several images as one piece of work, `jobs` blobs at once: a blob that several have moves once. All sinks write
/// to one place, in one order.
///
/// What one image fails of does not hold up the others. Gives what became of each, in their order.
pub fn copy_all(items: Vec<Item<'_>>, jobs: usize, progress: &dyn Progress) -> Vec<Result<Copied>> {
    let what = match items.as_slice() {
        [only] => format!("copying from {}", only.source.origin()),
        several => format!("copying {} images", several.len()),
    };
    let jobs_each = jobs / items.len().max(1);
    let images: Vec<Image<'_>> = each(items, jobs, |item| Image::read(item, jobs_each.max(1)));
    let missing = missing(&images, jobs);
    // Sizes come from documents that nobody vouches for.
    let total = missing.iter().map(|work| work.blob.size).fold(0, u64::saturating_add);
    if let (Some(first), false) = (images.first(), missing.is_empty()) {
        let task = Task::begin(progress, &what, Some(total));
        let run = |works: Vec<Work>, jobs| each(works, jobs, |work| work.run(&images, &task));
        let (documents, mut payload): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|work| graph::is_document(&work.blob));
        match first.item.sink.order() {
            Order::DocumentsFirst => {
                // A document comes before those that it names, then what tells how to read the payload, and the payload
                // in the order of the layers.
                let places = first.graph.as_ref().map(Graph::layer_places).unwrap_or_default();
                payload.sort_by_key(|work| {
                    let place = places.get(&work.blob.digest).copied();
                    (!graph::is_json(&work.blob), place)
                });
                run(documents.into_iter().rev().chain(payload).collect(), 1);
            }
            Order::DocumentsLast => {
                let (indexes, manifests): (Vec<_>, Vec<_>) = documents
                    .into_iter()
                    .partition(|work| media_type::is_index(&work.blob.media_type));
                let (mut lined_up, mut free): (Vec<_>, Vec<_>) =
                    payload.into_iter().partition(|work| work.turn(&images).is_some());
                lined_up.sort_by_key(|work| work.turn(&images));
                run(lined_up, 1);
                free.sort_by_key(|work| std::cmp::Reverse(work.blob.size));
                run(free, jobs);
                run(manifests, jobs);
                // Each after those that it names.
                run(indexes, 1);
            }
        }
    }
    let end = |image: Image<'_>| image.commit().map_err(|error| error.needing(total));
    images.into_iter().map(end).collect()
}

/// An image on its way.
struct Image<'i> {
    item: Item<'i>,
    /// None when it could not be read, which is its outcome then.
    graph: Option<Graph>,
    outcome: Mutex<Result<Copied>>,
}

impl<'i> Image<'i> {
    fn read(item: Item<'i>, jobs: usize) -> Self {
        let (graph, outcome) = match Graph::read(item.source, item.root, jobs) {
            Ok(graph) => (Some(graph), Ok(Copied::default())),
            Err(error) => (None, Err(error)),
        };
        Self {
            item,
            graph,
            outcome: Mutex::new(outcome),
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Result<Copied>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.outcome().is_err()
    }

    fn fail(&self, error: Error) {
        let mut outcome = self.outcome();
        if outcome.is_ok() {
            *outcome = Err(error);
        }
    }

    fn count(&self, count: impl FnOnce(&mut Copied)) {
        if let Ok(copied) = &mut *self.outcome() {
            count(copied);
        }
    }

    fn take(&self, blob: &Descriptor, task: &Task<'_>) -> Result<Taken> {
        let (graph, source) = (self.graph.as_ref(), self.item.source);
        let part = (blob.size >= WORTH_SHOWING).then(|| task.part(&blob.digest.short(), blob.size));
        let task = part.as_ref().unwrap_or(task);
        let taken = match graph {
            Some(graph) => self.item.sink.take(blob, &graph.over(source), task),
            None => self.item.sink.take(blob, source, task),
        };
        taken.context(|| format!("cannot copy blob {} from {}", blob.digest, source.origin()))
    }

    fn commit(self) -> Result<Copied> {
        let copied = self.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        self.item.sink.commit()?;
        Ok(copied)
    }
}

/// A blob that has to move, and the images that it is for.
struct Work {
    blob: Descriptor,
    owners: Vec<usize>,
}

impl Work {
    /// When it has to be read, of what is best read one after the other.
    fn turn(&self, images: &[Image<'_>]) -> Option<u64> {
        let first = self.owners.first().and_then(|owner| images.get(*owner))?;
        first.item.source.turn(&self.blob)
    }

    /// Moves the blob out of the first image that can give it.
    fn run(self, images: &[Image<'_>], task: &Task<'_>) {
        let mut owners = self.owners.iter().filter_map(|owner| images.get(*owner));
        let taken = owners.by_ref().filter(|image| !image.has_failed()).find_map(|image| {
            let taken = image.take(&self.blob, task);
            taken
                .map(|taken| (image, taken))
                .map_err(|error| image.fail(error))
                .ok()
        });
        let Some((image, taken)) = taken else { return };
        image.count(|copied| match taken {
            Taken::Moved => {
                copied.blobs += 1;
                copied.bytes = copied.bytes.saturating_add(self.blob.size);
            }
            Taken::Mounted => copied.mounted += 1,
        });
        for other in owners {
            other.count(|copied| copied.skipped += 1);
        }
    }
}

/// What the sinks lack, each blob once, in the order of the images and their blobs.
fn missing(images: &[Image<'_>], jobs: usize) -> Vec<Work> {
    let blobs = images.iter().enumerate().flat_map(|(owner, image)| {
        let blobs = image.graph.iter().flat_map(|graph| &graph.blobs);
        blobs.map(move |blob| (owner, image, blob))
    });
    let lacking = each(blobs.collect(), jobs, |(owner, image, blob)| {
        if image.has_failed() {
            return None;
        }
        match image.item.sink.has(blob) {
            Ok(true) => image.count(|copied| copied.skipped += 1),
            Ok(false) => return Some((owner, blob)),
            Err(error) => image.fail(error),
        }
        None
    });
    let mut works: Vec<Work> = Vec::new();
    let mut places = BTreeMap::new();
    for (owner, blob) in lacking.into_iter().flatten() {
        // One image's wrong words about a blob are not to be another's.
        let key = (blob.digest, blob.size, graph::is_document(blob));
        let place = *places.entry(key).or_insert(works.len());
        match works.get_mut(place) {
            Some(work) => work.owners.push(owner),
            None => works.push(Work {
                blob: blob.clone(),
                owners: vec![owner],
            }),
        }
    }
    works
}

/// Works on all `items`, `jobs` at once. Gives what came of each, in their order.
pub(crate) fn each<T: Send, R: Send>(items: Vec<T>, jobs: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let done = Mutex::new(BTreeMap::new());
    // Nothing fails here: what may fail is in the results.
    let _ = in_parallel(items.into_iter().enumerate().collect(), jobs, |(at, item)| {
        let result = work(item);
        done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
        Ok(())
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
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

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        self.0.fetch(blob, source, task)?;
        Ok(Taken::Moved)
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

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
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

        fn take(&self, blob: &Descriptor, source: &dyn Source, _: &Task<'_>) -> Result<Taken> {
            source.open(blob, 0)?;
            self.taken.lock().unwrap().push(blob.clone());
            Ok(Taken::Moved)
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
                skipped: 4,
                mounted: 0
            }
        );
        assert_eq!(sink.taken.into_inner().unwrap().len(), 1);
    }

    #[test]
    fn a_blob_of_several_images_moves_once_and_one_failure_is_no_others() {
        let (mut one, mut two) = (Memory::default(), Memory::default());
        let shared = noise(4000, 9);
        let build = |memory: &mut Memory, own: u64| {
            let layers = [shared.clone(), noise(300, own)].map(|bytes| memory.add(media_type::LAYER, bytes));
            memory.image(layers.map(|layer| (layer.clone(), layer.digest)).into())
        };
        let (first, second) = (build(&mut one, 1), build(&mut two, 2));
        let sink = notes(Order::DocumentsLast);
        let run = |one: &Memory, two: &Memory| {
            let item = |source, root| Item {
                source,
                root,
                sink: Box::new(&sink),
            };
            copy_all(vec![item(one, &first), item(two, &second)], 1, &Silent)
        };
        let copied = run(&one, &two);
        let (a, b) = (copied[0].as_ref().unwrap(), copied[1].as_ref().unwrap());
        assert_eq!((a.blobs, a.skipped, b.blobs, b.skipped), (4, 0, 3, 1));
        let taken = std::mem::take(&mut *sink.taken.lock().unwrap());
        assert_eq!((taken.len(), taken[0].size), (7, 4000), "the largest first, and once");
        assert_eq!(sink.committed.load(Ordering::Relaxed), 2);

        // What the first can't give, the second does.
        one.forget(crate::digest::Digest::of(&shared));
        let copied = run(&one, &two);
        let error = copied[0].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(copied[1].as_ref().unwrap().blobs, 4);
        assert_eq!(sink.taken.lock().unwrap().len(), 4, "nothing more of the first");
        assert_eq!(sink.committed.load(Ordering::Relaxed), 3);
        one.forget(first.digest);
        let copied = run(&one, &two);
        assert!(copied[0].is_err() && copied[1].is_ok());
    }

    #[test]
    fn a_wrong_size_of_one_image_is_no_others() {
        let bytes = noise(4000, 9);
        let build = |size: u64| {
            let mut memory = Memory::default();
            let layer = memory.add(media_type::LAYER, bytes.clone());
            let digest = layer.digest;
            let root = memory.image(vec![(Descriptor { size, ..layer }, digest)]);
            (memory, root)
        };
        let ((lying, first), (honest, second)) = (build(3999), build(4000));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for jobs in [1, 4] {
            let item = |source, root: &'static str, descriptor| Item {
                source,
                root: descriptor,
                sink: Box::new(StoreSink {
                    store: &store,
                    root: Descriptor::clone(descriptor),
                    names: vec![root.parse().unwrap()],
                }),
            };
            let items = vec![item(&lying, "lying:1", &first), item(&honest, "honest:1", &second)];
            let copied = copy_all(items, jobs, &Silent);
            assert_eq!(copied[0].as_ref().unwrap_err().kind(), ErrorKind::Integrity);
            copied[1].as_ref().unwrap();
        }
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
