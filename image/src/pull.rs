//! An image of a registry into the store: `pull`, and what FROM names.

use std::str::FromStr;

use crate::copy::{BlobSink, Copied, Item, copy_all, each};
use crate::error::{Error, ErrorKind, Result};
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
        let mut pulled = self.pull_all(std::slice::from_ref(name), wanted, progress);
        let lost = || Err(Error::new(ErrorKind::Internal, "a pull came to no end"));
        pulled.pop().unwrap_or_else(lost)
    }

    /// Has all these images in the store, as one piece of work: a blob that several have comes once, and the largest
    /// ones come first. One that fails holds up no other. Gives what became of each, in their order.
    pub fn pull_all(&self, names: &[Reference], wanted: &Wanted, progress: &dyn Progress) -> Vec<Result<Pulled>> {
        let found = each(names.iter().collect(), self.jobs, |name| {
            self.find(name, self.store.resolve(name)?, wanted, progress)
        });
        let remote = |found: &Result<Found>| found.as_ref().is_ok_and(|found| found.remote.is_some());
        let arrivals = names.iter().zip(&found).filter_map(|(name, found)| {
            let source = found.as_ref().ok()?.remote.as_ref()?;
            Some(Arrival {
                source,
                root: source.root(),
                name: Some(name),
            })
        });
        let arrivals: Vec<Arrival<'_>> = arrivals.collect();
        let mut taken = take_in(self.store, &arrivals, wanted, self.jobs, progress).into_iter();
        let taken: Vec<Option<Result<Copied>>> = found
            .iter()
            .map(|found| remote(found).then(|| taken.next()).flatten())
            .collect();
        let ends = names.iter().zip(found.into_iter().zip(taken));
        ends.map(|(name, (found, taken))| self.end(name, found?, taken, progress))
            .collect()
    }

    /// Has the blobs of the image `name` in the store, and gives no name to it: until the next `prune` they stay.
    /// `known` is what the name stands for, if that is known without the registry.
    ///
    /// # Errors
    /// As [`Puller::pull`].
    pub fn fetch(
        &self,
        name: &Reference,
        known: Option<Descriptor>,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        let found = self.find(name, known, wanted, progress)?;
        let arrival = found.remote.as_ref().map(|source| Arrival {
            source,
            root: source.root(),
            name: None,
        });
        let taken = arrival.and_then(|arrival| take_in(self.store, &[arrival], wanted, self.jobs, progress).pop());
        self.end(name, found, taken, progress)
    }

    /// What the store has of an image, and what the registry has, as far as it is asked.
    fn find(
        &self,
        name: &Reference,
        known: Option<Descriptor>,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<Found> {
        let there = match known {
            Some(root) if wanted.is_in(self.store, &root)? => Some(root),
            _ => None,
        };
        match (&there, self.policy) {
            (Some(_), PullPolicy::Missing | PullPolicy::Never) => return Ok(Found { there, remote: None }),
            (None, PullPolicy::Never) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("the store has no image {}, or not for this platform", name.familiar()),
                )
                .hint("load it with `sealrs load -i FILE`, or allow pulling with `--pull missing`"));
            }
            _ => {}
        }
        progress.event(Event::Message(&format!("pulling {name}")));
        match RemoteImage::find(self.client, name) {
            Ok(image) => Ok(Found {
                there,
                remote: Some(image),
            }),
            Err(error) => self.without(name, there, error, progress).map(|root| Found {
                there: Some(root),
                remote: None,
            }),
        }
    }

    fn end(
        &self,
        name: &Reference,
        found: Found,
        taken: Option<Result<Copied>>,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        let Found { there, remote } = found;
        match (taken, remote, there) {
            (Some(Ok(copied)), Some(image), _) => Ok(Pulled {
                root: image.root().clone(),
                copied: Some(copied),
            }),
            (Some(Err(error)), _, there) => {
                let error = Error::new(error.kind(), format!("cannot pull {name}")).because(error);
                let root = self.without(name, there, error, progress)?;
                Ok(Pulled { root, copied: None })
            }
            (_, _, Some(root)) => Ok(Pulled { root, copied: None }),
            _ => Err(Error::new(ErrorKind::Internal, format!("nothing became of {name}"))),
        }
    }

    /// What is in the store, where the policy lets it do when the registry can't be reached.
    fn without(
        &self,
        name: &Reference,
        there: Option<Descriptor>,
        error: Error,
        progress: &dyn Progress,
    ) -> Result<Descriptor> {
        match there {
            Some(root) if self.policy == PullPolicy::IfNewer && error.kind() == ErrorKind::Network => {
                let what = format!("using {} as it is in the store: {error}", name.familiar());
                progress.event(Event::Warning(&what));
                Ok(root)
            }
            _ => Err(error),
        }
    }
}

/// What is known of an image before anything moves.
struct Found {
    there: Option<Descriptor>,
    remote: Option<RemoteImage>,
}

/// An image that comes into the store.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// Where it comes from.
    pub source: &'a dyn Source,
    /// Its manifest or index there.
    pub root: &'a Descriptor,
    /// Its name afterwards; none if it gets none.
    pub name: Option<&'a Reference>,
}

impl std::fmt::Debug for Arrival<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrival({:?} of {})", self.name, self.source.origin())
    }
}

/// Has what is `wanted` of these images in the store, `jobs` blobs at once, and gives them their names. Gives what became
/// of each, in their order.
///
/// A name stays with the index that the image has at its source, whichever platforms are wanted.
pub fn take_in(
    store: &Store,
    arrivals: &[Arrival<'_>],
    wanted: &Wanted,
    jobs: usize,
    progress: &dyn Progress,
) -> Vec<Result<Copied>> {
    let parts: Vec<_> = arrivals
        .iter()
        .map(|arrival| wanted.of(arrival.source, arrival.root))
        .collect();
    let items = arrivals.iter().zip(&parts).filter_map(|(arrival, part)| {
        let source = part.as_ref().ok()?;
        Some(Item {
            source,
            root: arrival.root,
            sink: Box::new(BlobSink(store)),
        })
    });
    let mut copied = copy_all(items.collect(), jobs, progress).into_iter();
    let ends = arrivals.iter().zip(parts).map(|(arrival, part)| {
        part?;
        let copied = copied.next().unwrap_or_else(|| Ok(Copied::default()))?;
        // A source may list a platform that it lacks. The image gets its name only with all that is wanted.
        if !wanted.is_in(store, arrival.root)? {
            let what = format!("{} lacks an image that its own index lists", arrival.source.origin());
            let hint = "copy or push the image there again, with all its platforms";
            return Err(Error::new(ErrorKind::NotFound, what).hint(hint));
        }
        if let Some(name) = arrival.name {
            store.tag(Some(name), arrival.root)?;
        }
        Ok(copied)
    });
    ends.collect()
}
