//! What a user's `NAME|FILE` means: an archive file, a name in the store, or the start of a digest.
//!
//! `-` is standard input; `./x`, `/x`, `x.tar` and `x.tar.001` are files. Anything else is looked up in the store first:
//! a folder that holds a program `k3s` must not hide the image `k3s`.

use std::io::Read;
use std::path::Path;

use crate::archive::{Archive, ArchiveStream, Base, Completed, open_stream};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::reference::Reference;
use crate::remote::RemoteImage;
use crate::source::{Extent, Source};
use crate::spec::Descriptor;
use crate::store::Store;
use crate::suggest::nearest_image;

/// An image that was found.
pub struct Located {
    /// Where its blobs are.
    pub source: Box<Place>,
    /// Its manifest or index.
    pub root: Descriptor,
    /// Its name, if it has one.
    pub name: Option<Reference>,
    /// Keeps the store as it is while the image is used; none for an archive that needs no store.
    _lock: Option<Lock>,
}

/// Where an image's blobs are.
#[derive(Debug)]
pub enum Place {
    /// In the store.
    Store(Store),
    /// In an archive.
    Archive(Archive),
    /// In an archive that was saved `--since` another image, and in the store.
    Delta(Completed),
    /// In an archive that comes through a pipe.
    Stream(Box<ArchiveStream>),
    /// In an image layout that is not the store.
    Layout(Layout),
    /// In a registry.
    Registry(Box<RemoteImage>),
}

impl Place {
    fn source(&self) -> &dyn Source {
        match self {
            Self::Store(store) => store,
            Self::Archive(archive) => archive,
            Self::Delta(completed) => completed,
            Self::Stream(stream) => &**stream,
            Self::Layout(layout) => layout,
            Self::Registry(image) => &**image,
        }
    }
}

impl Source for Place {
    fn origin(&self) -> String {
        self.source().origin()
    }

    fn extent(&self, blob: &Descriptor) -> Option<Extent> {
        self.source().extent(blob)
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.source().open(blob, offset)
    }

    fn repository(&self) -> Option<&Reference> {
        self.source().repository()
    }

    fn is_sequential(&self) -> bool {
        self.source().is_sequential()
    }
}

impl Located {
    /// An image in a place that needs no lock.
    pub(crate) fn new(place: Place, root: Descriptor) -> Self {
        Self {
            source: Box::new(place),
            root,
            name: None,
            _lock: None,
        }
    }

    /// The images that the store has to hold besides.
    #[must_use]
    pub fn bases(&self) -> &[Base] {
        match &*self.source {
            Place::Store(_) | Place::Layout(_) | Place::Registry(_) => &[],
            Place::Archive(archive) | Place::Delta(Completed { archive, .. }) => archive.bases(),
            Place::Stream(stream) => stream.bases(),
        }
    }

    /// Makes sure that no blob is missing, before anything is made of them: what can't be known of a pipe's payload is
    /// found when it has come.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming the image that the store has to have, or the blob.
    pub fn check_complete(&self) -> Result<()> {
        match &*self.source {
            Place::Store(_) | Place::Layout(_) | Place::Registry(_) => Ok(()),
            Place::Archive(archive) => archive.check_complete(&self.root, None),
            Place::Delta(Completed { archive, store }) => archive.check_complete(&self.root, Some(store)),
            Place::Stream(stream) => stream.check_bases(),
        }
    }

    /// Says more about a failure, if the place knows more: which part of a split archive is damaged.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match &*self.source {
            Place::Archive(archive) | Place::Delta(Completed { archive, .. }) => archive.explain(error),
            Place::Store(_) | Place::Stream(_) | Place::Layout(_) | Place::Registry(_) => error,
        }
    }

    /// Reads what is left in a pipe, so that whoever writes can finish.
    ///
    /// # Errors
    /// What reading meets.
    pub fn drain(&self) -> Result<()> {
        match &*self.source {
            Place::Stream(stream) => stream.drain(),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Located({} in {})", self.root.digest, self.source.origin())
    }
}

/// Finds the image that `argument` names: a file, or an image of the store below `root`. A file needs no store.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Input`] when it could be several.
pub fn locate(root: &Path, argument: &str) -> Result<Located> {
    let path = Path::new(argument);
    if let Some((input, origin)) = open_stream(path)? {
        let (store, lock) = existing_store(root)?.unzip();
        let stream = ArchiveStream::open(input, origin, store)?;
        let (name, image) = only_image(stream.images(), &stream.origin())?;
        return Ok(Located {
            source: Box::new(Place::Stream(Box::new(stream))),
            root: image,
            name,
            _lock: lock,
        });
    }
    if looks_like_file(argument) {
        if Archive::is_there(path) {
            return in_archive(root, path, None);
        }
        return Err(Error::new(ErrorKind::NotFound, format!("there is no file {argument}"))
            .hint("give the path of an archive made by `sealrs save`, or the name of an image in the store"));
    }
    match by_name(root, argument) {
        Err(error) if error.kind() != ErrorKind::Integrity && path.is_file() => in_archive(root, path, None),
        found => found,
    }
}

/// Finds the image of the store below `root` that `argument` names, as [`in_store`] does.
///
/// # Errors
/// As [`locate`].
pub(crate) fn by_name(root: &Path, argument: &str) -> Result<Located> {
    let store = Store::look(root)?;
    let lock = store.share()?;
    let (image, name) = in_store(&store, argument)?;
    Ok(Located {
        source: Box::new(Place::Store(store)),
        root: image,
        name,
        _lock: Some(lock),
    })
}

/// Whether `argument` names an archive rather than an image of the store below `root`, as [`locate`] sees it.
///
/// # Errors
/// What reading the store meets.
pub fn names_archive(root: &Path, argument: &str) -> Result<bool> {
    if looks_like_file(argument) {
        return Ok(true);
    }
    if !Path::new(argument).is_file() {
        return Ok(false);
    }
    let Some((store, _lock)) = existing_store(root)? else {
        return Ok(true);
    };
    match in_store(&store, argument) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() != ErrorKind::Integrity => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether an argument is a file rather than a name, by the look of it.
pub(crate) fn looks_like_file(argument: &str) -> bool {
    let whole = match argument.rsplit_once('.') {
        Some((whole, number)) if number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()) => whole,
        _ => argument,
    };
    argument.starts_with(['/', '.']) || whole.ends_with(".tar")
}

/// Finds the image in the store that `argument` names: a reference, or at least six digits of a digest.
///
/// # Errors
/// As [`locate`].
pub fn in_store(store: &Store, argument: &str) -> Result<(Descriptor, Option<Reference>)> {
    let reference = argument.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(root) = store.resolve(reference)?
    {
        return Ok((root, Some(reference.clone())));
    }
    let hex = argument.strip_prefix("sha256:").unwrap_or(argument);
    if hex.len() >= 6 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let found = store.resolve_prefix(hex)?;
        match found.as_slice() {
            [] => {}
            [only] => return Ok((only.clone(), None)),
            _ => {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("`{argument}` is the start of several images' digests"),
                )
                .hint("give more digits; `sealrs images --digests` shows them"));
            }
        }
    }
    let reference = reference?;
    let error = Error::new(
        ErrorKind::NotFound,
        format!("there is no image {} in the store", reference.familiar()),
    );
    let more = "`sealrs images` lists what is there; `sealrs load -i FILE` brings in an archive";
    Err(match near(store, &reference)? {
        Some(near) => error.hint(format!("did you mean `{}`? {more}", near.familiar())),
        None => error.hint(more),
    })
}

/// The image of the store that is likely meant by a name that it lacks.
///
/// # Errors
/// What reading the store meets.
pub fn near(store: &Store, name: &Reference) -> Result<Option<Reference>> {
    let names: Vec<Reference> = store.list()?.into_iter().filter_map(|(name, _)| name).collect();
    Ok(nearest_image(name, &names).cloned())
}

/// The store below `root` and a lock that keeps it as it is, if there is one.
fn existing_store(root: &Path) -> Result<Option<(Store, Lock)>> {
    if !Store::is_there(root) {
        return Ok(None);
    }
    let store = Store::open(root)?;
    let lock = store.share()?;
    Ok(Some((store, lock)))
}

/// Finds an image in an archive: the one under `tag`, or the only one. `root` has the store for what it may lack.
pub(crate) fn in_archive(root: &Path, path: &Path, tag: Option<&str>) -> Result<Located> {
    let archive = Archive::open(path)?;
    let (name, image) = match tag {
        Some(tag) => (None, archive.find(tag)?),
        None => only_image(archive.images(), &archive.origin())?,
    };
    let store = match archive.bases() {
        [] => None,
        _ => existing_store(root)?,
    };
    let (source, lock) = match store {
        Some((store, lock)) => (Place::Delta(Completed { archive, store }), Some(lock)),
        None => (Place::Archive(archive), None),
    };
    Ok(Located {
        source: Box::new(source),
        root: image,
        name,
        _lock: lock,
    })
}

/// The image that is meant where only one can be. One image under several names is still one image.
fn only_image(images: &[(Option<Reference>, Descriptor)], origin: &str) -> Result<(Option<Reference>, Descriptor)> {
    match images {
        [(name, root), rest @ ..] if rest.iter().all(|(_, other)| other.digest == root.digest) => {
            Ok((name.clone(), root.clone()))
        }
        several => Err(
            Error::new(ErrorKind::Input, format!("{origin} holds {} images", several.len()))
                .hint("load it with `sealrs load -i`, then use one of the names"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ArchiveSink;
    use crate::copy::{StoreSink, copy};
    use crate::progress::Silent;
    use crate::testing::Memory;

    fn image(memory: &mut Memory, label: &str) -> Descriptor {
        let layer = memory.add("x", label.as_bytes());
        memory.image(vec![(layer.clone(), layer.digest)])
    }

    #[test]
    fn a_name_a_digest_and_a_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut memory = Memory::default();
        let (stored, saved) = (image(&mut memory, "stored"), image(&mut memory, "saved"));
        let names = vec!["edge/k3s:v1".parse().unwrap()];
        let sink = StoreSink {
            store: &store,
            root: stored.clone(),
            names,
        };
        copy(&memory, &stored, Box::new(sink), 1, &Silent).unwrap();
        let tar = folder.path().join("k3s");
        let sink = ArchiveSink::create(&tar, &saved, None, false).unwrap();
        copy(&memory, &saved, Box::new(sink), 1, &Silent).unwrap();

        let find = |argument: &str| locate(folder.path(), argument);
        let hex = stored.digest.hex();
        for argument in [
            "edge/k3s:v1",
            "docker.io/edge/k3s:v1",
            &hex,
            &hex[..6],
            &stored.digest.to_string(),
        ] {
            let found = find(argument).unwrap();
            assert_eq!(found.root.digest, stored.digest, "{argument}");
        }
        assert_eq!(find("edge/k3s:v1").unwrap().name, Some("edge/k3s:v1".parse().unwrap()));
        assert_eq!(find(tar.to_str().unwrap()).unwrap().root.digest, saved.digest);
        for (argument, kind) in [
            ("edge/k3s:v2", ErrorKind::NotFound),
            (&hex[..5], ErrorKind::NotFound),
            ("/absent", ErrorKind::NotFound),
            ("absent.tar", ErrorKind::NotFound),
            ("Not A Name", ErrorKind::Input),
            (folder.path().to_str().unwrap(), ErrorKind::Disk),
        ] {
            let error = find(argument).unwrap_err();
            assert_eq!(error.kind(), kind, "{argument}: {error:?}");
            assert!(kind == ErrorKind::Disk || error.remedy().is_some(), "{argument}");
        }
    }

    /// A build context holds programs with the names of images.
    #[test]
    fn a_file_of_the_same_name_does_not_hide_an_image() {
        const NAME: &str = "locate::tests::a_file_of_the_same_name_does_not_hide_an_image";
        let Some(folder) = crate::testing::given() else {
            // The working folder belongs to the process.
            let folder = tempfile::tempdir().unwrap();
            let mut child = crate::testing::again(NAME, folder.path().to_str().unwrap());
            let status = child.current_dir(folder.path()).status();
            return assert!(status.unwrap().success());
        };
        let root = Path::new(&folder);
        let store = Store::open(root).unwrap();
        let mut memory = Memory::default();
        let (stored, saved) = (image(&mut memory, "stored"), image(&mut memory, "saved"));
        std::fs::write("k3s", "a program").unwrap();
        assert_eq!(locate(root, "k3s").unwrap_err().kind(), ErrorKind::Integrity);
        let names = vec!["k3s".parse().unwrap()];
        let sink = StoreSink {
            store: &store,
            root: stored.clone(),
            names,
        };
        copy(&memory, &stored, Box::new(sink), 1, &Silent).unwrap();
        assert_eq!(locate(root, "k3s").unwrap().root.digest, stored.digest);
        assert_eq!(locate(root, "./k3s").unwrap_err().kind(), ErrorKind::Integrity);

        let sink = ArchiveSink::create(Path::new("An Archive"), &saved, None, false).unwrap();
        copy(&memory, &saved, Box::new(sink), 1, &Silent).unwrap();
        assert_eq!(locate(root, "An Archive").unwrap().root.digest, saved.digest);
    }

    #[test]
    fn the_start_of_two_digests_is_asked_to_be_longer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut alike = std::collections::BTreeMap::new();
        let (one, two) = (0u32..)
            .find_map(|at| {
                let descriptor = Descriptor::of("x", &at.to_le_bytes());
                let start: String = descriptor.digest.hex().chars().take(6).collect();
                let earlier = alike.insert(start, descriptor.clone())?;
                Some((earlier, descriptor))
            })
            .unwrap();
        store.tag(None, &one).unwrap();
        store.tag(None, &two).unwrap();
        let start = &one.digest.hex()[..6];
        let error = in_store(&store, start).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(in_store(&store, &one.digest.hex()).unwrap().0.digest, one.digest);
    }
}
