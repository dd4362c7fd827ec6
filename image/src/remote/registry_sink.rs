//! Several images into the repositories of one registry, as one sink.
//!
//! A blob that several repositories lack is sent to one of them; the registry is asked to take it over for the others,
//! and from a repository that has it already. The images get their names when all of them are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::copy::{Order, Sink, Taken, in_parallel};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::graph::is_document;
use crate::progress::{Silent, Task};
use crate::reference::Reference;
use crate::remote::client::Client;
use crate::remote::sessions::Sessions;
use crate::remote::upload::Upload;
use crate::source::{Source, document};
use crate::spec::Descriptor;

/// An image that goes to a registry beside others.
#[derive(Debug, Clone)]
pub struct Shipment {
    /// What it is called where it comes from.
    pub image: Reference,
    /// What it is called at the registry. Without a tag it answers to its digest only.
    pub name: Reference,
    /// Its manifest or index.
    pub root: Descriptor,
    /// All that it is made of, `root` as well.
    pub blobs: Vec<Descriptor>,
    /// Of an index whose other platforms are missing, the manifest that is there. Many registries refuse such an index;
    /// then this gets the tag, unless the name has the digest of the index.
    pub instead: Option<Descriptor>,
}

/// The repositories of a registry that images go to.
pub struct RegistrySink<'s> {
    client: Client,
    /// Where the documents are read from that get names at the end.
    source: &'s dyn Source,
    shipments: Vec<Shipment>,
    repositories: Vec<Reference>,
    /// The repositories that need a blob.
    needed_by: BTreeMap<Digest, BTreeSet<usize>>,
    found: Mutex<BTreeMap<Digest, Found>>,
    /// What the registry said of indexes that it does not take.
    refused: Mutex<BTreeMap<Digest, String>>,
    sessions: Sessions,
    jobs: usize,
}

/// Where a blob is at the registry, and where it is not.
#[derive(Debug, Default)]
struct Found {
    there: Option<usize>,
    lacking: Vec<usize>,
}

impl fmt::Debug for RegistrySink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistrySink({} images)", self.shipments.len())
    }
}

impl<'s> RegistrySink<'s> {
    /// The repositories of `shipments`, whose names are all of one registry. `jobs` names are given at once.
    #[must_use]
    pub fn new(client: Client, source: &'s dyn Source, shipments: Vec<Shipment>, jobs: usize) -> Self {
        let mut repositories: Vec<Reference> = Vec::new();
        let mut needed_by: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
        for shipment in &shipments {
            let same = |repository: &Reference| repository.repository() == shipment.name.repository();
            let at = repositories.iter().position(same).unwrap_or_else(|| {
                repositories.push(shipment.name.clone());
                repositories.len() - 1
            });
            for blob in &shipment.blobs {
                needed_by.entry(blob.digest).or_default().insert(at);
            }
        }
        Self {
            client,
            source,
            shipments,
            repositories,
            needed_by,
            found: Mutex::default(),
            refused: Mutex::default(),
            sessions: Sessions::default(),
            jobs,
        }
    }

    /// Remembers unfinished uploads in `folder`, so that the next process goes on with them.
    #[must_use]
    pub fn resuming_in(mut self, folder: PathBuf) -> Self {
        self.sessions = Sessions(Some(folder));
        self
    }

    /// The indexes that the registry did not take.
    pub fn refused(&self) -> BTreeSet<Digest> {
        held(&self.refused).keys().copied().collect()
    }

    fn repository(&self, at: usize) -> Result<&Reference> {
        self.repositories
            .get(at)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a blob for no repository"))
    }

    /// Whether an index may be refused, since not all that it names is there.
    fn is_incomplete(&self, document: &Descriptor) -> bool {
        self.shipments
            .iter()
            .any(|shipment| shipment.instead.is_some() && shipment.root.digest == document.digest)
    }

    /// Names an image that a blob is a part of.
    fn sending(&self, blob: &Descriptor) -> String {
        let part_of = |shipment: &&Shipment| shipment.blobs.iter().any(|part| part.digest == blob.digest);
        match self.shipments.iter().find(part_of) {
            Some(shipment) => format!("cannot send {}", shipment.image),
            None => "cannot send an image".to_owned(),
        }
    }

    fn take_document(&self, blob: &Descriptor, bytes: &[u8], lacking: &[usize]) -> Result<()> {
        let selector = blob.digest.to_string();
        for at in lacking {
            let repository = self.repository(*at)?;
            if !self.is_incomplete(blob) {
                self.client.put_manifest(repository, &selector, blob, bytes)?;
            } else if let Some(refusal) = self.client.offer_manifest(repository, &selector, blob, bytes)? {
                let said = [vec![refusal.to_string()], refusal.causes()].concat().join(": ");
                held(&self.refused).insert(blob.digest, said);
            }
        }
        Ok(())
    }

    /// Gives an image its name.
    fn name(&self, shipment: &Shipment) -> Result<()> {
        let Some(tag) = shipment.name.tag() else {
            return Ok(());
        };
        let refused = held(&self.refused).contains_key(&shipment.root.digest);
        let named = match &shipment.instead {
            Some(_) if refused && shipment.name.digest().is_some() => return Ok(()),
            Some(manifest) if refused => manifest,
            _ => &shipment.root,
        };
        let bytes = document(self.source, named)?;
        self.client.put_manifest(&shipment.name, tag, named, &bytes)
    }

    /// Images that are asked for by a digest that the registry did not take.
    fn check_pinned(&self) -> Result<()> {
        let refused = held(&self.refused);
        let pinned = self.shipments.iter().filter_map(|shipment| {
            let said = refused.get(&shipment.root.digest)?;
            shipment.name.digest()?;
            let manifest = shipment.instead.as_ref()?.digest;
            Some(format!(
                "{} (its one platform inside is {manifest}): {said}",
                shipment.image
            ))
        });
        let pinned: Vec<String> = pinned.collect();
        if pinned.is_empty() {
            return Ok(());
        }
        let what = format!(
            "the registry does not take the index of {} images that are asked for by its digest",
            pinned.len()
        );
        Err(Error::new(ErrorKind::NotFound, what)
            .because(Error::new(ErrorKind::NotFound, pinned.join("\n")))
            .hint(
                "all others are there; let the registry take indexes whose platforms are missing (docker-registry 3: \
                 `validation.manifests.indexes.platforms: none`, sealrs: `--allow-sparse`), or ask for the digest of the \
                 one platform in the image list",
            ))
    }
}

impl Sink for &RegistrySink<'_> {
    fn order(&self) -> Order {
        Order::DocumentsLast
    }

    /// What no image needs only holds them together, and goes nowhere.
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let mut found = Found::default();
        for at in self.needed_by.get(&blob.digest).into_iter().flatten() {
            if self.client.has(self.repository(*at)?, blob)? {
                found.there = Some(*at);
            } else {
                found.lacking.push(*at);
            }
        }
        let everywhere = found.lacking.is_empty();
        held(&self.found).insert(blob.digest, found);
        Ok(everywhere)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        let Found { there, lacking } = held(&self.found).remove(&blob.digest).unwrap_or_default();
        if is_document(blob) {
            let bytes = document(source, blob)?;
            self.take_document(blob, &bytes, &lacking)
                .context(|| self.sending(blob))?;
            task.advance(blob.size);
            return Ok(Taken::Moved);
        }
        let (mut from, mut taken) = (there, Taken::Mounted);
        for (round, at) in lacking.into_iter().enumerate() {
            // Its bytes count once.
            let further = Task::begin(&Silent, "", None);
            let repository = self.repository(at)?;
            let upload = Upload {
                client: &self.client,
                repository,
                blob,
                source,
                mount_from: from.map(|from| self.repository(from)).transpose()?.map(Reference::path),
                sessions: &self.sessions,
                task: if round == 0 { task } else { &further },
            };
            if upload.run().context(|| self.sending(blob))? == Taken::Moved {
                taken = Taken::Moved;
            }
            from.get_or_insert(at);
        }
        Ok(taken)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        in_parallel(self.shipments.iter().collect(), self.jobs, |shipment| {
            self.name(shipment)
                .context(|| format!("cannot give {} its name {}", shipment.image, shipment.name))
        })?;
        self.check_pinned()
    }
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
