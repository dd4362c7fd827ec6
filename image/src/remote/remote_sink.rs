//! A repository of a registry as a sink: what `push` writes to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::copy::{Order, Sink, Taken};
use crate::digest::Digest;
use crate::error::Result;
use crate::graph::is_document;
use crate::progress::Task;
use crate::reference::Reference;
use crate::remote::client::Client;
use crate::remote::sessions::Sessions;
use crate::remote::upload::Upload;
use crate::source::{Source, document};
use crate::spec::Descriptor;

/// A repository that an image goes to.
pub struct RemoteSink<'s> {
    client: Client,
    name: Reference,
    root: Descriptor,
    /// Where `root` is read from, for its name at the end.
    source: &'s dyn Source,
    /// Repositories of the same registry that may have blobs already.
    elsewhere: BTreeMap<Digest, String>,
    sessions: Sessions,
}

impl fmt::Debug for RemoteSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteSink({})", self.name)
    }
}

impl<'s> RemoteSink<'s> {
    /// The repository of `name`, for the image `root` of `source`. It gets the name's tag when all of it is there.
    #[must_use]
    pub fn new(client: Client, name: Reference, root: Descriptor, source: &'s dyn Source) -> Self {
        Self {
            client,
            name,
            root,
            source,
            elsewhere: BTreeMap::new(),
            sessions: Sessions::default(),
        }
    }

    /// Remembers unfinished uploads in `folder`, so that the next process goes on with them.
    #[must_use]
    pub fn resuming_in(mut self, folder: PathBuf) -> Self {
        self.sessions = Sessions(Some(folder));
        self
    }

    /// Blobs that other repositories of the registry (paths, without its host) are likely to have: it is asked to
    /// take them from there.
    #[must_use]
    pub fn mounting(mut self, elsewhere: BTreeMap<Digest, String>) -> Self {
        self.elsewhere = elsewhere;
        self
    }
}

impl Sink for RemoteSink<'_> {
    fn order(&self) -> Order {
        Order::DocumentsLast
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.client.has(&self.name, blob)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        if is_document(blob) {
            let bytes = document(source, blob)?;
            self.client
                .put_manifest(&self.name, &blob.digest.to_string(), blob, &bytes)?;
            task.advance(blob.size);
            return Ok(Taken::Moved);
        }
        let here = source.repository().filter(|source| source.host() == self.name.host());
        let mount_from = here
            .map(Reference::path)
            .or_else(|| self.elsewhere.get(&blob.digest).map(String::as_str));
        let upload = Upload {
            client: &self.client,
            repository: &self.name,
            blob,
            source,
            mount_from: mount_from.filter(|from| *from != self.name.path()),
            sessions: &self.sessions,
            task,
        };
        upload.run()
    }

    fn commit(self: Box<Self>) -> Result<()> {
        // Under its digest it is there; a name it gets only now, when nobody can meet half of it.
        let Some(tag) = self.name.tag() else {
            return Ok(());
        };
        let bytes = document(self.source, &self.root)?;
        self.client.put_manifest(&self.name, tag, &self.root, &bytes)
    }
}
