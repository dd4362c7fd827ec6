//! An image to a registry: `push`.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster_image::select;
use crate::copy::{Copied, copy};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::graph::{self, Graph};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::remote::{Client, RemoteSink};
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, media_type};
use crate::store::Store;

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
    /// Sends the image `root` of `source` to `name`; with `platform`, that one's image only.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the name has no tag, [`ErrorKind::NotFound`] when a part of the image is not there;
    /// what the registry may meet.
    pub fn push(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        name: &Reference,
        platform: Option<&Platform>,
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
        let root = match platform {
            Some(platform) => select(source, root, platform).context(place)?,
            None => {
                let graph = Graph::read(source, root, self.jobs).context(place)?;
                whole(&graph, source, root).context(place)?;
                root.clone()
            }
        };
        let sink = RemoteSink::new(self.client.clone(), name.clone(), root.clone(), source)
            .resuming_in(self.store.partial_folder())
            .mounting(self.elsewhere(name)?);
        let copied = copy(source, &root, Box::new(sink), self.jobs, progress).context(place)?;
        Ok((root, copied))
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

/// Registries take no index whose members they lack: says so before anything is sent.
fn whole(graph: &Graph, source: &dyn Source, root: &Descriptor) -> Result<()> {
    if !media_type::is_index(&root.media_type) {
        return Ok(());
    }
    let index: Index = spec::parse(&document(source, root)?, &root.digest.to_string())?;
    let there: BTreeSet<Digest> = graph.blobs.iter().map(|blob| blob.digest).collect();
    let (present, absent): (Vec<_>, Vec<_>) = index
        .manifests
        .into_iter()
        .partition(|member| there.contains(&member.digest));
    if absent.is_empty() {
        return Ok(());
    }
    let present = Index::new(present).platforms();
    let absent: Vec<String> = absent
        .iter()
        .map(|member| match &member.platform {
            Some(platform) if platform.os != "unknown" => platform.to_string(),
            // An attestation, for instance.
            _ => member.digest.to_string(),
        })
        .collect();
    let absent = absent.join(", ");
    Err(Error::new(
        ErrorKind::NotFound,
        format!("{} has only a part of the image: {absent} is missing", source.origin()),
    )
    .hint(format!(
        "push one platform with `--platform` ({present}), or pull the image with `--all-platforms` first"
    )))
}
