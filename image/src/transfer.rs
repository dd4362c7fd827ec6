//! An image from anywhere to anywhere: `copy`.

use std::path::Path;

use crate::archive::{ArchiveSink, Delta, DockerArchiveSink, Output};
use crate::copy::{Copied, Sink, copy};
use crate::error::Result;
use crate::layout::LayoutSink;
use crate::locate::Located;
use crate::progress::Progress;
use crate::pull::{Arrival, take_in};
use crate::push::Pusher;
use crate::reference::Reference;
use crate::remote::Client;
use crate::spec::Descriptor;
use crate::store::Store;
use crate::transport::{Transport, needed};
use crate::wanted::Wanted;

/// Copies an image to a place.
#[derive(Debug)]
pub struct Transfer<'t> {
    /// The folder that the store is in.
    pub root: &'t Path,
    /// Who meets registries; only needed when there is one.
    pub client: Option<&'t Client>,
    /// Which platforms go.
    pub wanted: Wanted,
    /// How many blobs move at once.
    pub jobs: usize,
    /// Whether a file that is there may be replaced.
    pub replace: bool,
}

impl Transfer<'_> {
    /// Copies `image` to `to`. Gives what it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a file is there already; [`ErrorKind::NotFound`] when a part or a platform of the
    /// image is not there; what the source and the place may meet.
    pub fn run(&self, image: &Located, to: &Transport, progress: &dyn Progress) -> Result<(Descriptor, Copied)> {
        image.check_complete()?;
        let copied = self.copy(image, to, progress);
        copied.map_err(|error| image.explain(error))
    }

    fn copy(&self, image: &Located, to: &Transport, progress: &dyn Progress) -> Result<(Descriptor, Copied)> {
        match to {
            Transport::Store(name) => self.to_store(image, &whole_name(name)?, progress),
            Transport::Registry(name) => self.to_registry(image, name, progress),
            Transport::Layout { folder, tag } => self.to_sink(image, progress, |root| {
                Ok(Box::new(LayoutSink::new(folder, root, tag.as_deref())?))
            }),
            Transport::OciArchive { file, tag } => self.to_sink(image, progress, |root| {
                let output = Output::file(file, self.replace)?;
                Ok(Box::new(ArchiveSink::tagged(
                    output,
                    root,
                    tag.as_deref(),
                    Delta::default(),
                )?))
            }),
            Transport::DockerArchive { file, name } => self.to_sink(image, progress, |root| {
                let names: Vec<Reference> = name.iter().cloned().collect();
                Ok(Box::new(DockerArchiveSink::create(file, root, &names, self.replace)?))
            }),
        }
    }

    fn to_store(&self, image: &Located, name: &Reference, progress: &dyn Progress) -> Result<(Descriptor, Copied)> {
        let store = Store::open(self.root)?;
        let _lock = store.share()?;
        let arrival = Arrival {
            source: &*image.source,
            root: &image.root,
            name: Some(name),
        };
        let copied = take_in(&store, &[arrival], &self.wanted, self.jobs, progress);
        let copied: Result<Vec<Copied>> = copied.into_iter().collect();
        Ok((image.root.clone(), copied?.pop().unwrap_or_default()))
    }

    fn to_registry(&self, image: &Located, name: &Reference, progress: &dyn Progress) -> Result<(Descriptor, Copied)> {
        // Uploads are remembered in the store if there is one; for that alone nobody needs to make it.
        let store = Store::look(self.root)?;
        let _lock = store.share()?;
        let pusher = Pusher {
            store: &store,
            client: needed(self.client)?,
            jobs: self.jobs,
        };
        pusher.push(&*image.source, &image.root, name, &self.wanted, progress)
    }

    fn to_sink(
        &self,
        image: &Located,
        progress: &dyn Progress,
        sink: impl FnOnce(&Descriptor) -> Result<Box<dyn Sink>>,
    ) -> Result<(Descriptor, Copied)> {
        let chosen = self.wanted.choose(&*image.source, &image.root, self.jobs)?;
        let root = &chosen.root;
        let copied = copy(&chosen.over(&*image.source), root, sink(root)?, self.jobs, progress)?;
        Ok((root.clone(), copied))
    }
}

/// A name that an image can be given.
fn whole_name(text: &str) -> Result<Reference> {
    let name: Reference = text.parse()?;
    name.check_givable()?;
    Ok(name)
}
