//! Where an image is copied from or to, written as skopeo writes it: `docker://NAME`, `oci:DIR[:TAG]`,
//! `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`. Anything else is a name in the store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::Layout;
use crate::locate::{Located, Place, by_name, in_archive, looks_like_file};
use crate::reference::Reference;
use crate::remote::{Client, RemoteImage};

/// Kinds of skopeo's that sealrs has not. A name in the store that begins like one is written whole.
const FOREIGN: [&str; 7] = [
    "containers-storage",
    "dir",
    "docker",
    "docker-daemon",
    "ostree",
    "sif",
    "tarball",
];

/// The place of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `oci:DIR[:TAG]`: an image layout in a folder.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// The image's tag there.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an OCI archive.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// The image's tag there.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes and `docker load` reads.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// The image's name there.
        name: Option<Reference>,
    },
    /// A name in the store, or the start of a digest.
    Store(String),
}

impl Transport {
    /// Whether it is in a registry, so that a client is needed for it.
    #[must_use]
    pub fn is_registry(&self) -> bool {
        matches!(self, Self::Registry(_))
    }

    /// Finds the image there. The store is the one below `root`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Input`] when it could be several; what reading meets.
    pub fn locate(&self, root: &Path, client: Option<&Client>) -> Result<Located> {
        match self {
            Self::Registry(name) => {
                let image = RemoteImage::find(needed(client)?, name)?;
                let found = image.root().clone();
                Ok(Located::new(Place::Registry(Box::new(image)), found))
            }
            Self::Layout { folder, tag } => {
                let layout = Layout::open(folder)?;
                let found = layout.find(tag.as_deref())?;
                Ok(Located::new(Place::Layout(layout), found))
            }
            Self::OciArchive { file, tag } => in_archive(root, file, tag.as_deref()),
            Self::DockerArchive { file, name } => {
                in_archive(root, file, name.as_ref().map(ToString::to_string).as_deref())
            }
            Self::Store(name) => by_name(root, name),
        }
    }
}

/// The client, which whoever meets a registry has given.
pub(crate) fn needed(client: Option<&Client>) -> Result<&Client> {
    client.ok_or_else(|| Error::new(ErrorKind::Internal, "a registry is asked without a client"))
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, tag) = match self {
            Self::Registry(name) => return write!(f, "docker://{name}"),
            Self::Store(name) => return f.write_str(name),
            Self::Layout { folder, tag } => ("oci", folder, tag.clone()),
            Self::OciArchive { file, tag } => ("oci-archive", file, tag.clone()),
            Self::DockerArchive { file, name } => ("docker-archive", file, name.as_ref().map(Reference::familiar)),
        };
        write!(f, "{kind}:{}", path.display())?;
        tag.map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse()?));
        }
        let bad = |why: String| {
            Error::new(ErrorKind::Input, format!("`{}`: {why}", text.escape_debug())).hint(
                "write docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], or a name in the store",
            )
        };
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        match kind {
            "oci" | "oci-archive" | "docker-archive" => {}
            kind if FOREIGN.contains(&kind) => {
                return Err(bad(format!(
                    "`{kind}:` is no kind of place here; a name in the store that begins with it is written \
                     docker.io/library/{kind}:TAG"
                )));
            }
            _ if looks_like_file(text) => {
                let hint = format!("say what it holds: `oci-archive:{text}`, `docker-archive:{text}` or `oci:{text}`");
                let what = format!("`{}` is a file or a folder", text.escape_debug());
                return Err(Error::new(ErrorKind::Input, what).hint(hint));
            }
            _ if text.is_empty() => return Err(bad("it is empty".to_owned())),
            _ => return Ok(Self::Store(text.to_owned())),
        }
        // As skopeo reads it: what follows the first colon is the tag, though a path might have one.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(bad("it names no file or folder".to_owned()));
        }
        if path == "-" {
            let what = "`copy` reads and writes no pipes".to_owned();
            return Err(Error::new(ErrorKind::Input, what).hint("use `sealrs save -o -` and `sealrs load -i -`"));
        }
        let path = PathBuf::from(path);
        if kind == "docker-archive" {
            let name = tag.map(str::parse::<Reference>).transpose()?;
            return Ok(Self::DockerArchive { file: path, name });
        }
        // What a reference may have (image-layout's annotations.md): nothing that a terminal or a script trips over.
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/+".contains(&byte);
        if let Some(tag) = tag.filter(|tag| tag.is_empty() || !tag.bytes().all(letter)) {
            return Err(bad(format!("`{}` is no tag", tag.escape_debug())));
        }
        let tag = tag.map(str::to_owned);
        Ok(match kind {
            "oci" => Self::Layout { folder: path, tag },
            _ => Self::OciArchive { file: path, tag },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_skopeo_writes_them() {
        let whole = "docker.io/library/nginx:1.27";
        for (text, shown) in [
            ("docker://nginx:1.27", "docker://docker.io/library/nginx:1.27"),
            ("oci:a/layout", "oci:a/layout"),
            ("oci:/a/layout:v1", "oci:/a/layout:v1"),
            (
                "oci:layout:docker.io/library/nginx:1.27",
                "oci:layout:docker.io/library/nginx:1.27",
            ),
            ("oci-archive:a.tar", "oci-archive:a.tar"),
            ("oci-archive:a.tar:v1", "oci-archive:a.tar:v1"),
            ("docker-archive:a.tar", "docker-archive:a.tar"),
            (
                "docker-archive:a.tar:docker.io/library/nginx:1.27",
                "docker-archive:a.tar:nginx:1.27",
            ),
            ("nginx:1.27", "nginx:1.27"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("sha256:0123456789", "sha256:0123456789"),
            (whole, whole),
        ] {
            let place: Transport = text.parse().unwrap();
            assert_eq!(place.to_string(), shown);
            assert_eq!(place.to_string().parse::<Transport>().unwrap(), place);
            let stored = !text.contains("oci") && !text.contains("docker://") && !text.contains("-archive:");
            assert_eq!(matches!(place, Transport::Store(_)), stored, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_told_so() {
        for (text, said) in [
            ("", "is empty"),
            ("oci:", "no file or folder"),
            ("oci::v1", "no file or folder"),
            ("oci:layout:", "is no tag"),
            ("oci:layout:a b", "is no tag"),
            ("oci-archive:-", "no pipes"),
            ("docker-archive:a.tar:UPPER", "not an image reference"),
            ("docker://", "not an image reference"),
            ("dir:/tmp/x", "`dir:` is no kind"),
            ("docker-daemon:nginx:1", "`docker-daemon:` is no kind"),
            ("docker:nginx", "`docker:` is no kind"),
            ("./layout", "is a file or a folder"),
            ("k3s.tar", "is a file or a folder"),
        ] {
            let error = text.parse::<Transport>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(error.remedy().is_some(), "{text}");
        }
    }
}
