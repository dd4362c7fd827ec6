//! Names of the store that mean an index: images of one platform each, put together and taken apart again.

use std::collections::BTreeMap;

use crate::cluster_image::members;
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::locate::in_store;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::Puller;
use crate::reference::Reference;
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, annotation, media_type};
use crate::store::Store;
use crate::wanted::{Wanted, attests};

/// An index of the store, by its name.
#[derive(Debug, Clone, Copy)]
pub struct NamedIndex<'s> {
    /// Where it is.
    pub store: &'s Store,
    /// Its name.
    pub name: &'s Reference,
    /// When it is changed, RFC 3339: noted beside the index, not in it.
    pub now: &'s str,
}

/// An index after a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The index.
    pub root: Descriptor,
    /// What is in it.
    pub index: Index,
    /// What is no longer in it.
    pub gone: Vec<Descriptor>,
}

/// How a user names members of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one for this platform.
    Platform(Platform),
    /// The ones whose digest starts with these hex digits.
    Digest(String),
}

impl std::str::FromStr for Which {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if (6..=64).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self::Digest(hex.to_owned()));
        }
        text.parse().map(Self::Platform).map_err(|_| {
            let what = format!("`{}` is neither a digest nor a platform", text.escape_debug());
            Error::new(ErrorKind::Input, what).hint("write the digest, six digits of it or more, or OS/ARCHITECTURE")
        })
    }
}

impl Which {
    fn is(&self, member: &Descriptor) -> bool {
        match self {
            Self::Platform(platform) => member.platform.as_ref().is_some_and(|own| own.is_same(platform)),
            Self::Digest(hex) => member.digest.hex().starts_with(hex),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Platform(platform) => platform.fmt(f),
            Self::Digest(hex) => f.write_str(hex),
        }
    }
}

impl NamedIndex<'_> {
    /// Makes an index of images, each of another platform.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the name is taken, [`ErrorKind::Input`] when two images are for one platform or the
    /// name has a digest.
    pub fn create(&self, images: Vec<Descriptor>) -> Result<Changed> {
        self.name.check_givable()?;
        let mut index = Index::new(Vec::new());
        for image in images {
            let digest = image.digest;
            if let Some(other) = index.put(image).filter(|other| other.digest != digest) {
                let platform = other.platform.as_ref().map(ToString::to_string).unwrap_or_default();
                let what = format!("{} and {digest} are both for {platform}", other.digest);
                return Err(Error::new(ErrorKind::Input, what).hint("give one image for each platform"));
            }
        }
        self.write(None, index, Vec::new())?.ok_or_else(|| {
            let name = self.name.familiar();
            Error::new(
                ErrorKind::Conflict,
                format!("there is an image {name} in the store already"),
            )
            .hint(format!(
                "add to it with `sealrs manifest add {name} IMAGE`, or remove it with `sealrs rmi {name}`"
            ))
        })
    }

    /// Puts images in, each in place of the one that is for the same platform.
    ///
    /// # Errors
    /// As [`read`], and what writing meets.
    pub fn add(&self, images: &[Descriptor]) -> Result<Changed> {
        self.edit(|index| {
            let replaced = images.iter().filter_map(|image| {
                let other = index.put(image.clone())?;
                (other.digest != image.digest).then_some(other)
            });
            Ok(replaced.collect())
        })
    }

    /// Takes members out. Their blobs stay in the store until nothing else uses them and it is pruned.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such member, [`ErrorKind::Input`] when a digest could be several.
    pub fn remove(&self, which: &Which) -> Result<Changed> {
        self.edit(|index| {
            let (gone, kept): (Vec<_>, Vec<_>) = index.manifests.drain(..).partition(|member| which.is(member));
            let listed = || {
                let line = |member: &Descriptor| match &member.platform {
                    Some(platform) => format!("{platform} {}", member.digest),
                    None => member.digest.to_string(),
                };
                let lines: Vec<String> = kept.iter().chain(&gone).map(line).collect();
                match lines.is_empty() {
                    true => "it is empty".to_owned(),
                    false => format!("it has: {}", lines.join(", ")),
                }
            };
            let name = self.name.familiar();
            match gone.as_slice() {
                [] => Err(Error::new(ErrorKind::NotFound, format!("{name} has no member {which}")).hint(listed())),
                [first, others @ ..] if others.iter().all(|other| other.digest == first.digest) => {
                    index.manifests = kept;
                    Ok(gone)
                }
                _ => {
                    let what = match which {
                        Which::Platform(platform) => format!("{name} has several members for {platform}"),
                        Which::Digest(hex) => format!("{hex} is the start of several digests of {name}"),
                    };
                    Err(Error::new(ErrorKind::Input, what).hint(format!("name one by its digest; {}", listed())))
                }
            }
        })
    }

    /// Changes the index. Whoever else changes it at the same time loses nothing.
    fn edit(&self, mut change: impl FnMut(&mut Index) -> Result<Vec<Descriptor>>) -> Result<Changed> {
        self.name.check_givable()?;
        loop {
            let root = self.store.resolve(self.name)?.ok_or_else(|| {
                let name = self.name.familiar();
                Error::new(ErrorKind::NotFound, format!("there is no image {name} in the store"))
                    .hint(format!("make it with `sealrs manifest create {name}`"))
            })?;
            let mut index = read(self.store, &root)?;
            let gone = change(&mut index)?;
            let is_gone = |subject| gone.iter().any(|gone| gone.digest == subject);
            index.manifests.retain(|member| !attests(member).is_some_and(is_gone));
            if let Some(changed) = self.write(Some(root.digest), index, gone)? {
                return Ok(changed);
            }
        }
    }

    /// Writes the index and gives it the name, unless the name means something else than `before` by now.
    fn write(&self, before: Option<Digest>, mut index: Index, gone: Vec<Descriptor>) -> Result<Option<Changed>> {
        // Docker's lists have no room for images of OCI.
        index.media_type = Some(media_type::INDEX.to_owned());
        let root = self.store.put(media_type::INDEX, &spec::canonical(&index)?)?;
        let mut entry = root.clone();
        entry
            .annotations
            .insert(annotation::CREATED.to_owned(), self.now.to_owned());
        let written = self.store.retag(self.name, before, &entry)?;
        Ok(written.then_some(Changed { root, index, gone }))
    }
}

/// The index under `root`.
///
/// # Errors
/// [`ErrorKind::Input`] when it is an image of one platform; [`ErrorKind::Integrity`] when it is damaged.
pub fn read(source: &dyn Source, root: &Descriptor) -> Result<Index> {
    if !media_type::is_index(&root.media_type) {
        let what = format!(
            "{} of {} is one image and no index of several",
            root.digest,
            source.origin()
        );
        return Err(Error::new(ErrorKind::Input, what)
            .hint("`sealrs inspect` shows it; `sealrs manifest create NEW IMAGE` makes an index of it"));
    }
    spec::parse(&document(source, root)?, &format!("index {}", root.digest))
}

/// The images of one platform each that `image` means, an image of the store or of a registry: all that it has, or the
/// one for `platform`. What the store lacks of them is pulled.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such image, or not for that platform; what registries meet.
pub fn find(
    puller: &Puller<'_>,
    image: &str,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Vec<Descriptor>> {
    let wanted = platform.map_or(Wanted::All, |platform| Wanted::Platforms(vec![platform.clone()]));
    let name = match in_store(puller.store, image) {
        Ok((root, None)) => Err(root),
        Ok((root, Some(name))) => Ok((name, Some(root))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((image.parse()?, None)),
        Err(error) => return Err(error),
    };
    let root = match name {
        Ok((name, known)) => {
            let found = puller.fetch(&name, known, &wanted, progress);
            found.context(|| format!("cannot find {image}"))?.root
        }
        // A digest has no name that a registry would know.
        Err(root) => root,
    };
    // What is noted beside an image in the store, the time for instance, is no part of an index.
    let root = Descriptor {
        annotations: BTreeMap::new(),
        ..root
    };
    let mut found = members(puller.store, &root)?;
    let has: Vec<String> = found
        .iter()
        .filter_map(|member| Some(member.platform.as_ref()?.to_string()))
        .collect();
    if let Some(platform) = platform {
        found.retain(|member| member.platform.as_ref().is_some_and(|own| platform.accepts(own)));
    }
    if found.is_empty() {
        let what = match platform {
            Some(platform) => format!("image {image} has no platform {platform}"),
            None => format!("image {image} holds nothing that is for a platform"),
        };
        return Err(Error::new(ErrorKind::NotFound, what).hint(format!("it has: {}", has.join(", "))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_by_platform_or_digest() {
        let which = |text: &str| text.parse::<Which>();
        let digest = Digest::of(b"x");
        assert_eq!(which(&digest.to_string()).unwrap(), Which::Digest(digest.hex()));
        assert_eq!(which("abc123").unwrap(), Which::Digest("abc123".to_owned()));
        assert_eq!(
            which("linux/arm64").unwrap(),
            Which::Platform("linux/arm64".parse().unwrap())
        );
        for bad in ["", "abc12", "linux", "sha256:xyz", "ABCDEF"] {
            assert!(which(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn those_who_change_an_index_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let name: Reference = "many:1".parse().unwrap();
        let index = NamedIndex {
            store: &store,
            name: &name,
            now: "now",
        };
        let member = |number: usize| {
            let mut member = Descriptor::of(media_type::MANIFEST, &number.to_le_bytes());
            member.platform = Some(format!("linux/arm/v{number}").parse().unwrap());
            member
        };
        let created = index.create(Vec::new()).unwrap();
        assert_eq!(index.create(Vec::new()).unwrap_err().kind(), ErrorKind::Conflict);
        std::thread::scope(|scope| {
            for number in 0..16 {
                scope.spawn(move || index.add(&[member(number)]).unwrap());
            }
        });
        let root = store.resolve(&name).unwrap().unwrap();
        assert_eq!(read(&store, &root).unwrap().manifests.len(), 16);
        for number in 0..16 {
            let platform = member(number).platform.unwrap();
            let changed = index.remove(&Which::Platform(platform)).unwrap();
            assert_eq!(changed.gone, [member(number)]);
        }
        let error = index.remove(&Which::Digest("abcdef".to_owned())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(store.resolve(&name).unwrap().unwrap().digest, created.root.digest);
    }
}
