//! Applies one layer's tar to a tree (layer.md: changesets, whiteouts).

use std::io::Read;

use super::Tally;
use super::tree::Tree;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::layer::{Member, MemberKind, TarReader};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Linux takes no longer path.
const MAX_PATH: usize = 4096;

/// Applies the tar that `input` yields. With `only`, the layer has promised to hold just that file.
pub(super) fn apply(
    input: impl Read,
    only: Option<&str>,
    tree: &mut Tree<'_>,
    tally: &Tally,
) -> Result<()> {
    let mut tar = TarReader::new(input);
    while let Some(member) = tar.next()? {
        let path = clean(&member.path)?;
        if only.is_some_and(|only| only != path || !matches!(member.kind, MemberKind::File(_))) {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("the layer holds `{path}` besides the one file that its descriptor names"),
            ));
        }
        let Some(path) = Some(path).filter(|path| !path.is_empty()) else {
            continue; // the rootfs itself
        };
        let mut place = member.path.clone();
        place.truncate(200);
        entry(&path, &member, &mut tar, tree, tally)
            .context(|| format!("cannot unpack `{}`", place.escape_debug()))?;
    }
    tar.drain()
}

fn entry<R: Read>(
    path: &str,
    member: &Member,
    tar: &mut TarReader<R>,
    tree: &mut Tree<'_>,
    tally: &Tally,
) -> Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == OPAQUE {
        return tree.clear_folder(folder);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::new(
                ErrorKind::Integrity,
                "the whiteout names nothing",
            ));
        }
        return tree.remove(&if folder.is_empty() {
            hidden.to_owned()
        } else {
            format!("{folder}/{hidden}")
        });
    }
    match &member.kind {
        MemberKind::File(size) => {
            tree.file(path, member, &mut tar.content())?;
            tally.count(*size);
        }
        MemberKind::Folder => {
            tree.folder(path, member)?;
            tally.count(0);
        }
        MemberKind::Symlink(target) => {
            if target.is_empty() || target.len() >= MAX_PATH || target.contains('\0') {
                return Err(Error::new(
                    ErrorKind::Integrity,
                    "the link's target can't be one",
                ));
            }
            tree.symlink(path, target, member)?;
            tally.count(0);
        }
        MemberKind::HardLink(target) => {
            let target = clean(target)?;
            tree.hard_link(path, &target)?;
            tally.count(0);
        }
        MemberKind::Other(what) => {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("it is {what}, which has no place in a rootfs"),
            )
            .hint("build the image without it"));
        }
    }
    Ok(())
}

/// A member's path below the rootfs: without a leading `./`, never absolute, never upwards.
fn clean(path: &str) -> Result<String> {
    let refuse = |why: &str| {
        let shown: String = path.chars().take(200).collect();
        Error::new(
            ErrorKind::Integrity,
            format!("the layer holds `{}`, {why}", shown.escape_debug()),
        )
        .hint("the image was built wrongly or tampered with")
    };
    if path.len() >= MAX_PATH {
        return Err(refuse("a path longer than Linux takes"));
    }
    if path.starts_with('/') {
        return Err(refuse("an absolute path"));
    }
    if path.contains('\0') {
        return Err(refuse("a path with a zero byte"));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refuse("a path that leads upwards")),
            part if part.len() > 255 => return Err(refuse("a name longer than Linux takes")),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
