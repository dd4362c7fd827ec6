//! Which platforms of an image move.

use std::collections::BTreeSet;
use std::io::Read;

use crate::cluster_image::select;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Remembering};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::source::{Extent, Source, document};
use crate::spec::{self, Config, Descriptor, Index, Manifest, annotation, media_type};
use crate::store::Store;

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These of an index. An image without one leaves no choice, and is taken whatever it is for.
    Fitting(Vec<Platform>),
    /// These, each of which has to be there. An image without an index has to be for all of them.
    Platforms(Vec<Platform>),
    /// All that the image has.
    All,
}

/// What was chosen of an image that goes where an index has all its members.
#[derive(Debug)]
pub struct Chosen {
    /// The index, or the manifest of the one platform.
    pub root: Descriptor,
    graph: Graph,
}

impl Chosen {
    /// The source that it was chosen from, which is not asked again for the documents that are known by now.
    #[must_use]
    pub fn over<'g>(&'g self, source: &'g dyn Source) -> Remembering<'g> {
        self.graph.over(source)
    }
}

impl Wanted {
    /// Chooses what is wanted of the image under `root`, for a place where an index has all its members: one platform's
    /// manifest, or the whole.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when a platform is not there; [`ErrorKind::Input`] when it is no image, or a part of an
    /// index is wanted that is none of its platforms; what reading the documents meets.
    pub fn choose(&self, source: &dyn Source, root: &Descriptor, jobs: usize) -> Result<Chosen> {
        let root = match self {
            Self::All if media_type::is_index(&root.media_type) => root.clone(),
            Self::All => select(source, root, &Platform::host())?,
            Self::Fitting(platforms) | Self::Platforms(platforms) => match platforms.as_slice() {
                [platform] => {
                    let image = select(source, root, platform)?;
                    if matches!(self, Self::Platforms(_)) {
                        check_platform(source, &image, platform)?;
                    }
                    image
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::Input,
                        "only the store keeps several, but not all platforms of an image",
                    )
                    .hint("give one `--platform`, or `--all-platforms`"));
                }
            },
        };
        let graph = Graph::read(source, &root, jobs)?;
        whole(&graph, source, &root)?;
        Ok(Chosen { root, graph })
    }

    /// The source without the members of the index `root` that are not wanted.
    ///
    /// # Errors
    /// As [`Wanted::choose`].
    pub(crate) fn of<'s>(&self, source: &'s dyn Source, root: &Descriptor) -> Result<Part<'s>> {
        let mut hidden = BTreeSet::new();
        if !media_type::is_index(&root.media_type) {
            let image = select(source, root, &Platform::host())?;
            if let Self::Platforms(platforms) = self {
                for platform in platforms {
                    check_platform(source, &image, platform)?;
                }
            }
        } else if *self != Self::All {
            let index: Index = spec::parse(&document(source, root)?, &format!("the index of {}", source.origin()))?;
            hidden.extend(index.manifests.iter().map(|member| member.digest));
            for platform in self.platforms() {
                let member = index.select(platform).ok_or_else(|| {
                    let what = format!("{} has no platform {platform}", source.origin());
                    Error::new(ErrorKind::NotFound, what).hint(format!("it has: {}", index.platforms()))
                })?;
                hidden.remove(&member.digest);
                // What buildx says of it goes with it: without that, an image of this platform alone were not whole.
                let about = |other: &&Descriptor| attests(other) == Some(member.digest);
                for attestation in index.manifests.iter().filter(about) {
                    hidden.remove(&attestation.digest);
                }
            }
        }
        Ok(Part { source, hidden })
    }

    /// Whether the store has all that is wanted of the image under `root`.
    pub(crate) fn is_in(&self, store: &Store, root: &Descriptor) -> Result<bool> {
        if !media_type::is_index(&root.media_type) {
            let fits = |platform| check_platform(store, root, platform).is_ok();
            return Ok(!matches!(self, Self::Platforms(platforms) if !platforms.iter().all(fits)));
        }
        let Ok(index) = document(store, root) else {
            return Ok(false);
        };
        let index: Index = spec::parse(&index, &root.digest.to_string())?;
        let has = |member: &Descriptor| store.has(&member.digest);
        Ok(match self {
            Self::All => index.manifests.iter().all(has),
            _ => self
                .platforms()
                .iter()
                .all(|platform| index.select(platform).is_some_and(has)),
        })
    }

    fn platforms(&self) -> &[Platform] {
        match self {
            Self::Fitting(platforms) | Self::Platforms(platforms) => platforms,
            Self::All => &[],
        }
    }
}

/// The manifest that a member of an index is an attestation of, as buildx marks it: SBOM and provenance.
pub(crate) fn attests(member: &Descriptor) -> Option<Digest> {
    member.annotations.get(annotation::ATTESTED)?.parse().ok()
}

/// Makes sure that the image whose manifest is `image` is for `platform`. Where its descriptor does not tell, its
/// config does.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is for another one; what reading it meets.
pub fn check_platform(source: &dyn Source, image: &Descriptor, platform: &Platform) -> Result<()> {
    let found = match &image.platform {
        Some(found) => found.clone(),
        None => {
            let name = image.digest.to_string();
            let manifest: Manifest = spec::parse(&document(source, image)?, &name)?;
            let config: Config = spec::parse(
                &document(source, &manifest.config)?,
                &format!("config {} of {name}", manifest.config.digest),
            )?;
            config.platform
        }
    };
    if platform.accepts(&found) {
        return Ok(());
    }
    let what = format!(
        "image {} of {} is for {found}, not for {platform}",
        image.digest,
        source.origin()
    );
    Err(Error::new(ErrorKind::NotFound, what).hint("it has this one platform: leave `--platform` out to take it"))
}

/// An index whose members are missing is taken by no registry, and is no whole image anywhere: says so before anything
/// moves.
fn whole(graph: &Graph, source: &dyn Source, root: &Descriptor) -> Result<()> {
    if !media_type::is_index(&root.media_type) {
        return Ok(());
    }
    let bytes = document(&graph.over(source), root)?;
    let index: Index = spec::parse(&bytes, &root.digest.to_string())?;
    let told = |member: &Descriptor| match (&member.platform, attests(member)) {
        (_, Some(image)) => format!("the attestation of {image}"),
        (Some(platform), None) if platform.os != "unknown" => platform.to_string(),
        _ => member.digest.to_string(),
    };
    let there: BTreeSet<Digest> = graph.blobs.iter().map(|blob| blob.digest).collect();
    let (present, absent): (Vec<_>, Vec<_>) = index
        .manifests
        .into_iter()
        .partition(|member| there.contains(&member.digest));
    if absent.is_empty() {
        return Ok(());
    }
    let present = Index::new(present).platforms();
    let absent: Vec<String> = absent.iter().map(told).collect();
    let absent = absent.join(", ");
    Err(Error::new(
        ErrorKind::NotFound,
        format!("{} has only a part of the image: {absent} is missing", source.origin()),
    )
    .hint(format!(
        "take one platform with `--platform` ({present}), or pull the image with `--all-platforms` first"
    )))
}

/// A source that is said to lack some blobs: members of an index that are not wanted.
pub(crate) struct Part<'s> {
    source: &'s dyn Source,
    hidden: BTreeSet<Digest>,
}

impl Source for Part<'_> {
    fn origin(&self) -> String {
        self.source.origin()
    }

    fn repository(&self) -> Option<&Reference> {
        self.source.repository()
    }

    fn is_sequential(&self) -> bool {
        self.source.is_sequential()
    }

    fn turn(&self, blob: &Descriptor) -> Option<u64> {
        self.source.turn(blob)
    }

    fn extent(&self, blob: &Descriptor) -> Option<Extent> {
        self.source.extent(blob)
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
