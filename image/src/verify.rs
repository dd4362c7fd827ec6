//! Re-reads every blob of images and tells which ones are not what they should be. Goes on after what it finds: a
//! damaged document hides what it names, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use crate::copy::in_parallel;
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::graph::{self, MAX_DEPTH};
use crate::progress::{Progress, Task};
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, Manifest, media_type};
use crate::store::BLOCK;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many images were looked at.
    pub images: u64,
    /// How many blobs, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the source need not hold, because another image does.
    pub left_out: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// A blob that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The blob.
    pub digest: Digest,
    /// Bytes that it should have.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// What is wrong with it.
    pub problem: Problem,
    /// The same in words.
    pub detail: String,
    /// The images that need it.
    pub images: Vec<String>,
}

/// What can be wrong with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// It is not there.
    Missing,
    /// Its bytes are others.
    Damaged,
    /// Its bytes can't be read.
    Unreadable,
}

impl Problem {
    /// What a failure to read a blob means.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::Integrity => Self::Damaged,
            _ => Self::Unreadable,
        }
    }
}

/// Verifies `images`, each with what users call it. What `may_lack` says yes to is no fault when it is not there.
#[must_use]
pub fn verify(
    source: &dyn Source,
    images: &[(String, Descriptor)],
    may_lack: impl Fn(&Descriptor) -> bool,
    progress: &dyn Progress,
) -> Report {
    let mut walk = Walk {
        source,
        children: BTreeMap::new(),
        payload: BTreeMap::new(),
        needed_by: BTreeMap::new(),
        faults: BTreeMap::new(),
        report: Report::default(),
    };
    let distinct: BTreeSet<Digest> = images.iter().map(|(_, image)| image.digest).collect();
    walk.report.images = distinct.len() as u64;
    for (name, image) in images {
        walk.visit(image, name, 0);
    }
    walk.read_payload(&may_lack, progress);
    walk.finish()
}

/// Blobs are told apart by digest and size: a document that lies about a size is wrong, another one may be right.
type Key = (Digest, u64);

struct Walk<'s> {
    source: &'s dyn Source,
    /// What each document names, so that it is read once.
    children: BTreeMap<Key, Vec<Descriptor>>,
    payload: BTreeMap<Key, Descriptor>,
    needed_by: BTreeMap<Key, BTreeSet<String>>,
    faults: BTreeMap<Key, (Descriptor, Error)>,
    report: Report,
}

impl Walk<'_> {
    fn visit(&mut self, blob: &Descriptor, image: &str, depth: usize) {
        let key = (blob.digest, blob.size);
        if !self.needed_by.entry(key).or_default().insert(image.to_owned()) {
            return;
        }
        if !graph::is_document(blob) {
            self.payload.entry(key).or_insert_with(|| blob.clone());
            return;
        }
        if depth > MAX_DEPTH {
            let error = Error::new(ErrorKind::Integrity, "it nests too deep");
            self.faults.insert(key, (blob.clone(), error));
            return;
        }
        if let std::collections::btree_map::Entry::Vacant(entry) = self.children.entry(key) {
            match children(self.source, blob) {
                Ok(children) => {
                    entry.insert(children);
                    self.report.blobs += 1;
                    self.report.bytes += blob.size;
                }
                Err(error) => {
                    self.faults.insert(key, (blob.clone(), error));
                    return;
                }
            }
        }
        let mut children = self.children.get(&key).cloned().unwrap_or_default();
        if media_type::is_index(&blob.media_type) {
            // A platform that was not shipped is no fault; an index of which nothing was shipped is.
            let shipped = |member: &Descriptor| match self.source.open(member, 0) {
                Err(error) => error.kind() != ErrorKind::NotFound,
                Ok(_) => true,
            };
            if children.iter().any(shipped) {
                children.retain(shipped);
            }
        }
        for child in &children {
            self.visit(child, image, depth + 1);
        }
    }

    fn read_payload(&mut self, may_lack: &impl Fn(&Descriptor) -> bool, progress: &dyn Progress) {
        let mut blobs: Vec<Descriptor> = std::mem::take(&mut self.payload).into_values().collect();
        let all = blobs.len();
        blobs.retain(|blob| !may_lack(blob));
        self.report.left_out = (all - blobs.len()) as u64;
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let total = blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        let task = Task::begin(progress, &format!("verifying {}", self.source.origin()), Some(total));
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let found = Mutex::new(Vec::new());
        let source = self.source;
        let read = in_parallel(blobs.iter().collect(), cores, |blob: &Descriptor| {
            if let Err(error) = read(source, blob, &task) {
                found.lock().unwrap_or_else(PoisonError::into_inner).push((blob, error));
            }
            Ok(())
        });
        debug_assert!(read.is_ok(), "no blob stops the others");
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let faulty: BTreeSet<Key> = found.iter().map(|(blob, _)| (blob.digest, blob.size)).collect();
        for blob in blobs.iter().filter(|blob| !faulty.contains(&(blob.digest, blob.size))) {
            self.report.blobs += 1;
            self.report.bytes = self.report.bytes.saturating_add(blob.size);
        }
        for (blob, error) in found {
            self.faults.insert((blob.digest, blob.size), (blob.clone(), error));
        }
    }

    fn finish(self) -> Report {
        let mut report = self.report;
        for (key, (blob, error)) in self.faults {
            let mut words = vec![error.to_string()];
            words.extend(error.causes());
            report.faults.push(Fault {
                digest: blob.digest,
                size: blob.size,
                media_type: blob.media_type,
                problem: Problem::of(&error),
                detail: words.join(": "),
                images: self
                    .needed_by
                    .get(&key)
                    .map(|names| names.iter().cloned().collect())
                    .unwrap_or_default(),
            });
        }
        report
    }
}

fn children(source: &dyn Source, blob: &Descriptor) -> Result<Vec<Descriptor>> {
    let bytes = document(source, blob)?;
    let origin = blob.digest.to_string();
    if media_type::is_index(&blob.media_type) {
        return Ok(spec::parse::<Index>(&bytes, &origin)?.manifests);
    }
    let manifest: Manifest = spec::parse(&bytes, &origin)?;
    Ok([manifest.config].into_iter().chain(manifest.layers).collect())
}

/// Reads a blob to its end, where its size and digest are checked.
///
/// # Errors
/// [`ErrorKind::Integrity`] when it has other bytes; what opening and reading it meets.
pub fn read(source: &dyn Source, blob: &Descriptor, task: &Task<'_>) -> Result<()> {
    let place = || format!("cannot read blob {} of {}", blob.digest, source.origin());
    let reader = task.reader(source.open(blob, 0)?);
    let mut reader = VerifyingReader::new(reader, blob.digest, blob.size);
    let mut buffer = vec![0u8; BLOCK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).or_io(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::testing::{Memory, noise};

    fn image(memory: &mut Memory, seeds: &[u64]) -> Descriptor {
        let layers = seeds.iter().map(|&seed| {
            let layer = memory.add(media_type::LAYER, noise(5000, seed));
            (layer.clone(), layer.digest)
        });
        let layers = layers.collect();
        memory.image(layers)
    }

    fn layer(seed: u64) -> Digest {
        Digest::of(&noise(5000, seed))
    }

    fn check(memory: &Memory, images: &[(&str, &Descriptor)]) -> Report {
        let images: Vec<_> = images
            .iter()
            .map(|(name, image)| ((*name).to_owned(), (*image).clone()))
            .collect();
        verify(memory, &images, |_| false, &Silent)
    }

    #[test]
    fn what_is_whole_is_read_once() {
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, &[1, 2]), image(&mut memory, &[2, 3]));
        let report = check(&memory, &[("one", &one), ("two", &two), ("same", &one)]);
        assert_eq!((report.images, report.blobs, report.faults.len()), (2, 7, 0));
        for blob in [one.digest, layer(2)] {
            assert_eq!(memory.offsets(blob), [0]);
        }
    }

    #[test]
    fn every_fault_is_named_with_the_images_that_need_the_blob() {
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, &[1, 2]), image(&mut memory, &[2, 3]));
        memory.damage(layer(1), |bytes| bytes[7] ^= 1);
        memory.damage(layer(2), |bytes| bytes.truncate(100));
        memory.forget(layer(3));
        let report = check(&memory, &[("one", &one), ("two", &two)]);
        let mut found: Vec<_> = report
            .faults
            .iter()
            .map(|fault| (fault.digest, fault.problem, fault.images.join(" ")))
            .collect();
        found.sort_by_key(|(_, _, images)| images.len());
        let mut expected = vec![
            (layer(1), Problem::Damaged, "one".to_owned()),
            (layer(3), Problem::Missing, "two".to_owned()),
            (layer(2), Problem::Damaged, "one two".to_owned()),
        ];
        expected.sort_by_key(|(digest, _, images)| (images.len(), *digest));
        assert_eq!(found, expected);
        assert_eq!(report.blobs, 4, "two manifests, two configs");
        let lacking = verify(
            &memory,
            &[("two".to_owned(), two)],
            |blob| blob.digest == layer(3),
            &Silent,
        );
        assert_eq!((lacking.left_out, lacking.faults.len()), (1, 1));
    }

    #[test]
    fn a_damaged_document_hides_only_what_it_names() {
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, &[1]), image(&mut memory, &[2]));
        let bytes = spec::canonical(&Index::new(vec![one.clone(), two.clone()])).unwrap();
        let root = memory.add(media_type::INDEX, bytes);
        memory.damage(one.digest, |bytes| bytes[0] ^= 1);
        memory.damage(layer(2), |bytes| bytes[0] ^= 1);
        let faulty: BTreeSet<_> = check(&memory, &[("x", &root)])
            .faults
            .iter()
            .map(|fault| fault.digest)
            .collect();
        assert_eq!(faulty, BTreeSet::from([one.digest, layer(2)]));
        // A platform that was not shipped is no fault; none at all is.
        memory.forget(one.digest);
        assert_eq!(check(&memory, &[("x", &root)]).faults.len(), 1);
        memory.forget(two.digest);
        assert_eq!(check(&memory, &[("x", &root)]).faults.len(), 2);
        memory.forget(root.digest);
        let faults = check(&memory, &[("x", &root)]).faults;
        assert_eq!((faults.len(), faults[0].problem), (1, Problem::Missing));
    }
}
