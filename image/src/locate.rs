//! What a user's `NAME|FILE` means: an archive file, a name in the store, or the start of a digest.
//!
//! `./x`, `/x` and `x.tar` are files. Anything else is looked up in the store first: a folder that holds a program
//! `k3s` must not hide the image `k3s`.

use std::path::Path;

use crate::archive::Archive;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::Descriptor;
use crate::store::Store;

/// An image that was found.
pub struct Located {
    /// Where its blobs are.
    pub source: Box<dyn Source>,
    /// Its manifest or index.
    pub root: Descriptor,
    /// Its name, if it has one.
    pub name: Option<Reference>,
    /// Keeps the store as it is while the image is used; none for an archive.
    _lock: Option<Lock>,
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
    let looks_like_file = argument.starts_with(['/', '.']) || argument.ends_with(".tar");
    if looks_like_file {
        if path.exists() {
            return in_archive(path);
        }
        return Err(Error::new(ErrorKind::NotFound, format!("there is no file {argument}"))
            .hint("give the path of an archive made by `sealrs save`, or the name of an image in the store"));
    }
    let store = Store::open(root)?;
    let lock = store.share()?;
    match in_store(&store, argument) {
        Ok((root, name)) => Ok(Located {
            source: Box::new(store),
            root,
            name,
            _lock: Some(lock),
        }),
        Err(error) if error.kind() != ErrorKind::Integrity && path.is_file() => in_archive(path),
        Err(error) => Err(error),
    }
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
    Err(Error::new(
        ErrorKind::NotFound,
        format!("there is no image {} in the store", reference.familiar()),
    )
    .hint("`sealrs images` lists what is there; `sealrs load -i FILE` brings in an archive"))
}

fn in_archive(path: &Path) -> Result<Located> {
    let archive = Archive::open(path)?;
    let (name, root) = match archive.images() {
        [(name, root)] => (name.clone(), root.clone()),
        several => {
            // One image under several names is still one image.
            let first = several.first().map(|(_, root)| root.digest);
            match several {
                [(name, root), ..] if several.iter().all(|(_, root)| Some(root.digest) == first) => {
                    (name.clone(), root.clone())
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::Input,
                        format!("{} holds {} images", archive.origin(), several.len()),
                    )
                    .hint("load it with `sealrs load -i`, then use one of the names"));
                }
            }
        }
    };
    Ok(Located {
        source: Box::new(archive),
        root,
        name,
        _lock: None,
    })
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
