//! An image of a registry into the store: `pull`, and what FROM names.

use std::str::FromStr;

use crate::copy::{BlobSink, Copied, copy};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::remote::{Client, RemoteImage};
use crate::source::Source;
use crate::spec::Descriptor;
use crate::store::Store;
use crate::wanted::Wanted;

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// When the store lacks the image.
    #[default]
    Missing,
    /// Always; what the store has is not moved again.
    Always,
    /// Always, but an image that the store has stays usable when the registry can't be reached.
    IfNewer,
    /// Never.
    Never,
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "ifnewer" => Ok(Self::IfNewer),
            "never" => Ok(Self::Never),
            _ => Err(Error::new(ErrorKind::Input, format!("`{text}` is not a pull policy"))
                .hint("write missing, always, ifnewer or never")),
        }
    }
}

/// Brings images into the store.
#[derive(Debug, Clone, Copy)]
pub struct Puller<'p> {
    /// Where they go.
    pub store: &'p Store,
    /// Who asks the registries.
    pub client: &'p Client,
    /// When they are asked.
    pub policy: PullPolicy,
    /// How many blobs move at once.
    pub jobs: usize,
}

/// What a pull led to.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image's index or manifest.
    pub root: Descriptor,
    /// What moved; none when the registry was not asked.
    pub copied: Option<Copied>,
}

impl Puller<'_> {
    /// Has the image `name` in the store.
    ///
    /// Its name stays with the index that it has in the registry, whichever platforms are wanted: a digest of that
    /// index goes on meaning this image. The other platforms are simply not there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such image, or it lacks a platform; what the registry and the disk may meet.
    pub fn pull(&self, name: &Reference, wanted: &Wanted, progress: &dyn Progress) -> Result<Pulled> {
        let there = match self.store.resolve(name)? {
            Some(root) if wanted.is_in(self.store, &root)? => Some(root),
            _ => None,
        };
        match (there, self.policy) {
            (Some(root), PullPolicy::Missing | PullPolicy::Never) => Ok(Pulled { root, copied: None }),
            (None, PullPolicy::Never) => Err(Error::new(
                ErrorKind::NotFound,
                format!("the store has no image {}, or not for this platform", name.familiar()),
            )
            .hint("load it with `sealrs load -i FILE`, or allow pulling with `--pull missing`")),
            (Some(root), PullPolicy::IfNewer) => match self.fetch(name, wanted, progress) {
                Err(error) if error.kind() == ErrorKind::Network => {
                    let what = format!("using {} as it is in the store: {error}", name.familiar());
                    progress.event(Event::Warning(&what));
                    Ok(Pulled { root, copied: None })
                }
                fetched => fetched,
            },
            _ => self.fetch(name, wanted, progress),
        }
    }

    fn fetch(&self, name: &Reference, wanted: &Wanted, progress: &dyn Progress) -> Result<Pulled> {
        progress.event(Event::Message(&format!("pulling {name}")));
        let image = RemoteImage::find(self.client, name)?;
        let root = image.root();
        let copied = take_in(self.store, &image, root, name, wanted, self.jobs, progress)
            .context(|| format!("cannot pull {name}"))?;
        Ok(Pulled {
            root: root.clone(),
            copied: Some(copied),
        })
    }
}

/// Has what is `wanted` of the image `root` of a source in the store, `jobs` blobs at once, and gives it a name.
///
/// The name stays with the index that the image has at the source, whichever platforms are wanted.
///
/// # Errors
/// [`ErrorKind::NotFound`] when a platform is not there; what source and disk may meet.
pub fn take_in(
    store: &Store,
    source: &dyn Source,
    root: &Descriptor,
    name: &Reference,
    wanted: &Wanted,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Copied> {
    let part = wanted.of(source, root)?;
    let copied = copy(&part, root, Box::new(BlobSink(store)), jobs, progress)?;
    // A source may list a platform that it lacks. The image gets its name only with all that is wanted.
    if !wanted.is_in(store, root)? {
        let what = format!("{} lacks an image that its own index lists", source.origin());
        return Err(
            Error::new(ErrorKind::NotFound, what).hint("copy or push the image there again, with all its platforms")
        );
    }
    store.tag(Some(name), root)?;
    Ok(copied)
}
