//! The sink that unpacks: layer upon layer into an empty folder, in one verified pass.
//!
//! Nothing of an image is trusted. Paths are resolved below the folder whatever links lie there, devices are
//! refused, and the caller gives the folder its real name only after every digest held.

mod apply;
pub mod rules;
mod shared;
mod stream;
mod tree;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;

use crate::cluster_image::{ClusterImage, unpacked_size};
use crate::copy::in_parallel;
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Context as _, IoResultExt as _, Result};
use crate::layer::annotation;
use crate::progress::{Progress, Task};
use crate::source::Source;
use crate::spec::Descriptor;

pub use stream::unpacked;
use tree::{Folders, Tree};

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of file content.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Counts while several threads unpack.
#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    entries: AtomicU64,
}

/// A layer and the digest of its unpacked tar.
struct Pair<'i> {
    layer: &'i Descriptor,
    diff_id: Digest,
}

impl Pair<'_> {
    /// The only file of a layer that says it has just one: such layers can be unpacked side by side.
    fn only_file(&self) -> Option<&str> {
        self.layer.annotations.get(annotation::FILE).map(String::as_str)
    }
}

/// Unpacks `image` into `into`, an empty folder, and syncs it.
///
/// # Errors
/// [`crate::error::ErrorKind::Integrity`], naming the blob, when anything is not what its digest says or a layer
/// holds what it may not; disk errors. What was unpacked so far is left for the caller to remove.
pub fn unpack(source: &dyn Source, image: &ClusterImage, into: &Path, progress: &dyn Progress) -> Result<Footprint> {
    let root = tree::open_root(into)?;
    let task = Task::begin(progress, "unpacking the rootfs", Some(image.packed_size()));
    let pairs: Vec<Pair<'_>> = image
        .manifest
        .layers
        .iter()
        .zip(&image.config.rootfs.diff_ids)
        .map(|(layer, &diff_id)| Pair { layer, diff_id })
        .collect();
    let tally = Tally::default();
    let folders = Folders::default();
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    let mut rest = pairs.as_slice();
    while !rest.is_empty() {
        let run;
        (run, rest) = rest.split_at(side_by_side(rest));
        let jobs = if source.is_sequential() { 1 } else { cores };
        in_parallel(run.iter().collect(), jobs, |pair: &Pair<'_>| {
            let mut tree = Tree::new(&root, &folders)?;
            apply_layer(source, pair, &mut tree, &tally, &task)
                .context(|| format!("cannot unpack layer {}", pair.layer.digest))
        })?;
    }
    folders.settle(&root)?;
    tree::sync(&root).or_io(|| format!("cannot sync {}", into.display()))?;
    Ok(Footprint {
        bytes: tally.bytes.into_inner(),
        entries: tally.entries.into_inner(),
    })
}

/// How many of the next layers can be unpacked at once. Layers are applied in their order; but neighbours that hold
/// one file each don't disturb one another, unless their paths meet.
fn side_by_side(pairs: &[Pair<'_>]) -> usize {
    let mut taken = BTreeSet::new();
    let apart = |path: &str, taken: &BTreeSet<&str>| {
        let below = format!("{path}/");
        !taken.contains(path)
            && !path
                .match_indices('/')
                .any(|(at, _)| path.get(..at).is_some_and(|folder| taken.contains(folder)))
            && !taken
                .range(below.as_str()..)
                .next()
                .is_some_and(|other| other.starts_with(&below))
    };
    pairs
        .iter()
        .map_while(Pair::only_file)
        .take_while(|path| apart(path, &taken) && taken.insert(path))
        .count()
        .max(1)
}

fn apply_layer(
    source: &dyn Source,
    pair: &Pair<'_>,
    tree: &mut Tree<'_>,
    tally: &Tally,
    task: &Task<'_>,
) -> Result<()> {
    let only = pair.only_file();
    let bound = unpacked_size(pair.layer);
    let packed = VerifyingReader::new(
        task.reader(source.open(pair.layer, 0)?),
        pair.layer.digest,
        pair.layer.size,
    );
    if pair.layer.digest == pair.diff_id {
        // An unpacked layer: its own digest is all there is to check.
        let extent = source.extent(pair.layer);
        return apply::apply(packed, only, extent.as_ref(), tree, tally);
    }
    stream::unpacked(
        packed,
        &pair.layer.media_type,
        pair.diff_id,
        bound,
        |tar: &mut dyn Read| apply::apply(tar, only, None, tree, tally),
    )
}

impl Tally {
    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
