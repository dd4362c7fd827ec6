//! The host's part: asks the registry.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use sealrs_image::copy::in_parallel;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::graph::{Graph, is_document};
use sealrs_image::images_lock::{LOCK_PATH, Lock, Locked};
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Options, RemoteSource};
use sealrs_image::spec::{Descriptor, media_type};
use sealrs_image::{spec, verify};
use sealrs_registry::host::Host;

use super::pods::Pods;
use super::{Found, Gap, Question};
use crate::cluster::ClusterFiles;
use crate::files::is_absent;
use crate::{probe, registry};

/// Documents of an image that are asked for at once.
const JOBS: usize = 4;

/// Finds out what a host is asked.
///
/// # Errors
/// When the host's own files can't be read. What the registry does not give is found, not failed.
pub(crate) fn answer(question: &Question, progress: &dyn Progress) -> Result<Found> {
    let files = ClusterFiles::new(&question.root, &question.cluster);
    let ca = registry::ca(&files);
    if let Err(error) = probe::registry(question.address, &question.domain, &ca) {
        return Ok(Found {
            gaps: vec![Gap::new(question.host, &error)],
            ..Found::default()
        });
    }
    if !question.images {
        return Ok(Found::default());
    }
    let client = Client::new(Options {
        ca_files: vec![ca],
        // It was just there: whoever waits for an answer should not wait long for each blob.
        attempts: 2,
        ..Options::default()
    })?;
    let mut asking = Asking {
        question,
        client,
        blobs: BTreeMap::new(),
        found: Found::default(),
    };
    let lock = lock(&files, progress)?;
    for locked in &lock.images {
        asking.found.images += 1;
        if let Err((blob, error)) = asking.locked(locked) {
            asking.gap(&locked.image, Some(blob), &locked.asked_by, &error);
        }
    }
    match Pods::of(&files) {
        Ok(Some(pods)) => asking.pods(&pods, &lock),
        Ok(None) => {}
        Err(error) => {
            let why = error.causes().join(": ");
            progress.event(Event::Warning(&format!("pods were not looked at: {error}: {why}")));
        }
    }
    asking.read_blobs(progress);
    Ok(asking.found)
}

/// The lock of the images that were unpacked.
fn lock(files: &ClusterFiles, progress: &dyn Progress) -> Result<Lock> {
    let path = files.rootfs().join(LOCK_PATH);
    match fs::read(&path) {
        Ok(bytes) => spec::parse(&bytes, &path.display().to_string()),
        Err(error) if is_absent(&error) => {
            progress.event(Event::Warning(
                "the image has no images.lock: it has no container images, or another tool built it",
            ));
            Ok(Lock::default())
        }
        Err(error) => Err(error).or_read(|| format!("cannot read {}", path.display())),
    }
}

/// A blob, and each repository that has to have it with the image and who named that.
type Wanted = (Descriptor, Vec<(Reference, Reference, Vec<String>)>);

struct Asking<'q> {
    question: &'q Question,
    client: Client,
    blobs: BTreeMap<Digest, Wanted>,
    found: Found,
}

impl Asking<'_> {
    fn gap(&mut self, image: &Reference, blob: Option<Digest>, asked_by: &[String], error: &Error) {
        self.found.gaps.push(Gap {
            image: Some(image.to_string()),
            blob,
            asked_by: asked_by.to_vec(),
            ..Gap::new(self.question.host, error)
        });
    }

    /// Where the registry has an image.
    fn place(&self, image: &Reference) -> Result<Reference> {
        let registry = format!("{}:{}", self.question.domain, self.question.address.port());
        let path = match image.host() == registry {
            true => image.path().to_owned(),
            false => format!("{}/{}", Host::of(image).folder(), image.path()),
        };
        format!("{registry}/{path}").parse()
    }

    /// Looks for the documents of an image of the lock, and notes its blobs. A failure names the blob.
    fn locked(&mut self, locked: &Locked) -> Result<(), (Digest, Error)> {
        let at_root = |error| (locked.digest, error);
        let at = self.place(&locked.image).map_err(at_root)?;
        let by_digest = self.client.manifest(&at, &locked.digest.to_string()).map_err(at_root)?;
        if let Some(tag) = locked.image.tag() {
            let by_tag = self.client.manifest(&at, tag).map_err(at_root)?;
            if by_tag.descriptor.digest != locked.digest {
                let what = format!("`{tag}` stands for {} there", by_tag.descriptor.digest);
                return Err(at_root(Error::new(ErrorKind::Integrity, what)));
            }
        }
        let manifest = match locked.manifest == locked.digest {
            true => by_digest.descriptor,
            false => {
                self.count(&by_digest.descriptor);
                let manifest = self.client.manifest(&at, &locked.manifest.to_string());
                manifest.map_err(|error| (locked.manifest, error))?.descriptor
            }
        };
        self.graph(&at, &manifest, &locked.image, &locked.asked_by)
            .map_err(|error| (locked.manifest, error))
    }

    /// Reads the documents below `root` and notes all blobs.
    fn graph(&mut self, at: &Reference, root: &Descriptor, image: &Reference, asked_by: &[String]) -> Result<()> {
        let source = RemoteSource {
            client: self.client.clone(),
            repository: at.clone(),
        };
        let graph = Graph::read(&source, root, JOBS)?;
        if !graph.blobs.iter().any(|blob| media_type::is_manifest(&blob.media_type)) {
            let what = format!("{} is an index of which nothing is there", root.digest);
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        for blob in graph.blobs {
            if is_document(&blob) {
                self.count(&blob);
                continue;
            }
            let (_, wanted) = self.blobs.entry(blob.digest).or_insert_with(|| (blob, Vec::new()));
            wanted.push((at.clone(), image.clone(), asked_by.to_vec()));
        }
        Ok(())
    }

    fn count(&mut self, blob: &Descriptor) {
        self.found.blobs += 1;
        self.found.bytes += blob.size;
    }

    /// Looks for what pods name and no lock does. What a node has already, as runtimes bring their own images, need not
    /// come from the registry.
    fn pods(&mut self, pods: &Pods, lock: &Lock) {
        self.found.pod_images = Some(pods.images.len() as u64);
        for (name, image) in &pods.images {
            let reference = match name.parse::<Reference>() {
                Ok(reference) => reference,
                Err(error) => {
                    self.found.gaps.push(Gap {
                        image: Some(name.clone()),
                        asked_by: image.pods.clone(),
                        ..Gap::new(self.question.host, &error)
                    });
                    continue;
                }
            };
            if lock.images.iter().any(|locked| locked.image == reference) {
                continue;
            }
            let asked = self.place(&reference).and_then(|at| {
                let document = self.client.manifest(&at, &reference.selector())?;
                self.graph(&at, &document.descriptor, &reference, &image.pods)
            });
            match asked {
                Err(error) if error.kind() == ErrorKind::NotFound && image.on_all_nodes => {}
                Err(error) => self.gap(&reference, reference.digest(), &image.pods, &error),
                Ok(()) => {}
            }
        }
    }

    /// Reads each blob once, and asks for it in each further repository that has to have it.
    fn read_blobs(&mut self, progress: &dyn Progress) {
        let mut blobs: Vec<Wanted> = std::mem::take(&mut self.blobs).into_values().collect();
        blobs.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
        let bytes = blobs.iter().map(|(blob, _)| blob.size).sum();
        self.found.blobs += blobs.len() as u64;
        self.found.bytes += bytes;
        let task = Task::begin(progress, "reading all blobs", Some(bytes));
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let failures = Mutex::new(Vec::new());
        let client = &self.client;
        let all = in_parallel(blobs, cores, |(blob, wanted)| {
            for (number, (at, image, asked_by)) in wanted.into_iter().enumerate() {
                let found = match number {
                    0 => {
                        let source = RemoteSource {
                            client: client.clone(),
                            repository: at,
                        };
                        verify::read(&source, &blob, &task)
                    }
                    _ => client.has_blob(&at, &blob.digest).and_then(|has| match has {
                        true => Ok(()),
                        false => Err(Error::new(ErrorKind::NotFound, format!("{at} does not have it"))),
                    }),
                };
                if let Err(error) = found {
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.push((image, blob.digest, asked_by, error));
                }
            }
            Ok(())
        });
        debug_assert!(all.is_ok(), "no blob stops the others");
        let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        for (image, blob, asked_by, error) in failures {
            self.gap(&image, Some(blob), &asked_by, &error);
        }
    }
}
