//! An image to a registry: `push`.

use std::collections::BTreeMap;

use crate::copy::{Copied, copy};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::graph;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::remote::{Client, RemoteSink};
use crate::source::Source;
use crate::spec::Descriptor;
use crate::store::Store;
use crate::wanted::Wanted;

/// Sends images to registries.
#[derive(Debug, Clone, Copy)]
pub struct Pusher<'p> {
    /// Remembers unfinished uploads, and which repositories are likely to have a blob.
    pub store: &'p Store,
    /// Who talks to the registries.
    pub client: &'p Client,
    /// How many blobs move at once.
    pub jobs: usize,
}

impl Pusher<'_> {
    /// Sends what is `wanted` of the image `root` of `source` to `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the name has no tag, [`ErrorKind::NotFound`] when a part of the image is not there;
    /// what the registry may meet.
    pub fn push(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        name: &Reference,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<(Descriptor, Copied)> {
        if name.digest().is_some() || name.tag().is_none() {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{name}` is no name to push to: it has no tag, or a digest"),
            )
            .hint("give a name with a tag, for instance `registry.example.com/edge/k3s:v1`"));
        }
        let place = || format!("cannot push to {name}");
        let chosen = wanted.choose(source, root, self.jobs).context(place)?;
        let (source, root) = (&chosen.over(source), &chosen.root);
        let sink = RemoteSink::new(self.client.clone(), name.clone(), root.clone(), source)
            .resuming_in(self.store.partial_folder())
            .mounting(self.elsewhere(name)?);
        let copied = copy(source, root, Box::new(sink), self.jobs, progress).context(place)?;
        Ok((root.clone(), copied))
    }

    /// The blobs of images that were pulled from, or pushed to, other repositories of the same registry.
    fn elsewhere(&self, name: &Reference) -> Result<BTreeMap<Digest, String>> {
        let mut found = BTreeMap::new();
        for (other, root) in self.store.list()? {
            let Some(other) = other.filter(|other| other.host() == name.host() && other.path() != name.path()) else {
                continue;
            };
            // A damaged image is nothing to this one.
            for blob in graph::blobs(self.store, &root).unwrap_or_default() {
                found.entry(blob.digest).or_insert_with(|| other.path().to_owned());
            }
        }
        Ok(found)
    }
}
