//! What a user's `NAME|FILE` means: an archive file, a name in the store, or the start of a digest.

use std::path::Path;

use crate::archive::Archive;
use crate::error::{Error, ErrorKind, Result};
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
}

impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Located({} in {})",
            self.root.digest,
            self.source.origin()
        )
    }
}

/// Finds the image that `argument` names.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Input`] when it could be several.
pub fn locate(store: &Store, argument: &str) -> Result<Located> {
    let path = Path::new(argument);
    if path.is_file() {
        return in_archive(path);
    }
    let looks_like_file = argument.starts_with(['/', '.']) || argument.ends_with(".tar");
    if looks_like_file {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no file {argument}"))
            .hint("give the path of an archive made by `sealrs save`, or the name of an image in the store"));
    }
    in_store(store, argument).map(|(root, name)| Located {
        source: Box::new(store.clone()),
        root,
        name,
    })
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
                [(name, root), ..]
                    if several.iter().all(|(_, root)| Some(root.digest) == first) =>
                {
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
    })
}
