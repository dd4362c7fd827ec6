//! An image of a registry into the store: `pull`, and what FROM names.

use std::collections::BTreeSet;
use std::io::Read;
use std::str::FromStr;

use crate::copy::{BlobSink, Copied, copy};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::graph::Remembering;
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::remote::{Client, RemoteSource};
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, media_type};
use crate::store::Store;

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

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These, each of which has to be there.
    Platforms(Vec<Platform>),
    /// All that the image has.
    All,
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
        let pulled = self.find(name, self.store.resolve(name)?, wanted, progress)?;
        if pulled.copied.is_some() {
            self.store.tag(Some(name), &pulled.root)?;
        }
        Ok(pulled)
    }

    /// Has the blobs of the image `name` in the store, and gives no name to it: until the next `prune` they stay.
    /// `known` is what the name stands for, if that is known without the registry.
    ///
    /// # Errors
    /// As [`Puller::pull`].
    pub fn find(
        &self,
        name: &Reference,
        known: Option<Descriptor>,
        wanted: &Wanted,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        let there = match known {
            Some(root) if self.holds(&root, wanted)? => Some(root),
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

    /// Whether the store has all that is wanted of an image.
    fn holds(&self, root: &Descriptor, wanted: &Wanted) -> Result<bool> {
        if !media_type::is_index(&root.media_type) {
            return Ok(true);
        }
        let Ok(index) = document(self.store, root) else {
            return Ok(false);
        };
        let index: Index = spec::parse(&index, &root.digest.to_string())?;
        let has = |member: &Descriptor| self.store.has(&member.digest);
        Ok(match wanted {
            Wanted::All => index.manifests.iter().all(has),
            Wanted::Platforms(platforms) => platforms.iter().all(|platform| index.select(platform).is_some_and(has)),
        })
    }

    fn fetch(&self, name: &Reference, wanted: &Wanted, progress: &dyn Progress) -> Result<Pulled> {
        progress.event(Event::Message(&format!("pulling {name}")));
        let found = self.client.manifest(name, &name.selector())?;
        let root = found.descriptor;
        let mut hidden = BTreeSet::new();
        if let Wanted::Platforms(platforms) = wanted
            && media_type::is_index(&root.media_type)
        {
            let index: Index = spec::parse(&found.bytes, &format!("the index of {name}"))?;
            hidden.extend(index.manifests.iter().map(|member| member.digest));
            for platform in platforms {
                let member = index.select(platform).ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("{name} has no platform {platform}"))
                        .hint(format!("it has: {}", index.platforms()))
                })?;
                hidden.remove(&member.digest);
            }
        }
        let registry = RemoteSource {
            client: self.client.clone(),
            repository: name.clone(),
        };
        let wanted_ones = Without {
            source: &registry,
            hidden,
        };
        // The tag may move on while the parts come: what it meant at first is what is pulled.
        let source = Remembering::one(&wanted_ones, root.digest, found.bytes);
        let place = || format!("cannot pull {name}");
        let copied = copy(&source, &root, Box::new(BlobSink(self.store)), self.jobs, progress).context(place)?;
        // A registry may list a platform that it lacks. The image counts only with all that is wanted.
        if !self.holds(&root, wanted)? {
            let why = format!("{} lacks an image that its own index lists", name.host());
            return Err(Error::new(ErrorKind::NotFound, place()).because(Error::new(ErrorKind::NotFound, why)))
                .map_err(|error| error.hint("push the image there again, with all its platforms"));
        }
        Ok(Pulled {
            root,
            copied: Some(copied),
        })
    }
}

/// A source that is said to lack some blobs: members of an index that are not wanted.
struct Without<'s> {
    source: &'s dyn Source,
    hidden: BTreeSet<Digest>,
}

impl Source for Without<'_> {
    fn origin(&self) -> String {
        self.source.origin()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if self.hidden.contains(&blob.digest) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} is not wanted", blob.digest),
            ));
        }
        self.source.open(blob, offset)
    }
}
