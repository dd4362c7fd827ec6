//! Applies one layer's tar to a tree (layer.md: changesets, whiteouts).

use std::io::Read;

use super::shared::Blocks;
use super::tree::Tree;
use super::{Tally, rules};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::layer::{Member, MemberKind, TarReader};
use crate::source::Extent;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Applies the tar that `input` yields. With `only`, the layer has promised to hold just that file. `extent` is where the
/// tar lies in a file, if it does.
pub(super) fn apply(
    input: impl Read,
    only: Option<&str>,
    extent: Option<&Extent>,
    tree: &mut Tree<'_>,
    tally: &Tally,
) -> Result<()> {
    let mut tar = TarReader::new(input);
    let mut seen = false;
    while let Some(member) = tar.next()? {
        let path = clean(&member.path)?;
        if only.is_some_and(|only| only != path || !matches!(member.kind, MemberKind::File(_))) {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "the layer holds `{}` besides the one file that its descriptor names",
                    shown(&path)
                ),
            ));
        }
        if path.is_empty() && member.kind == MemberKind::Folder {
            continue; // the rootfs itself
        }
        seen = true;
        entry(&path, &member, &mut tar, extent, tree, tally)
            .context(|| format!("cannot unpack `{}`", shown(&member.path)))?;
    }
    if let (Some(only), false) = (only, seen) {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!(
                "the layer lacks `{}`, the one file that its descriptor names",
                shown(only)
            ),
        ));
    }
    tar.drain()
}

fn entry<R: Read>(
    path: &str,
    member: &Member,
    tar: &mut TarReader<R>,
    extent: Option<&Extent>,
    tree: &mut Tree<'_>,
    tally: &Tally,
) -> Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Integrity, "it has no name"));
    }
    if name == OPAQUE {
        return tree.hide_all(folder);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(Error::new(ErrorKind::Integrity, "the whiteout names nothing"));
        }
        return tree.hide(&if folder.is_empty() {
            hidden.to_owned()
        } else {
            format!("{folder}/{hidden}")
        });
    }
    match &member.kind {
        MemberKind::File(size) => {
            let blocks = extent.map(|extent| Blocks::of(extent, member.offset, *size));
            tree.file(path, member, &mut tar.content(), blocks)?;
        }
        MemberKind::Folder => tree.folder(path, member)?,
        MemberKind::Symlink(target) => {
            if !rules::can_be_target(target) {
                return Err(Error::new(ErrorKind::Integrity, "the link's target can't be one"));
            }
            tree.symlink(path, target, member)?;
        }
        MemberKind::HardLink(target) => tree.hard_link(path, &clean(target)?)?,
        MemberKind::Other(what) => {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("it is {what}, which has no place in a rootfs"),
            )
            .hint("build the image without it"));
        }
    }
    tree.note_made(path);
    tally.count(match member.kind {
        MemberKind::File(size) => size,
        _ => 0,
    });
    Ok(())
}

/// A member's path below the rootfs.
fn clean(path: &str) -> Result<String> {
    rules::clean(path).map_err(|why| {
        Error::new(
            ErrorKind::Integrity,
            format!("the layer holds `{}`, {why}", shown(path)),
        )
        .hint("the image was built wrongly or tampered with")
    })
}

/// The start of a path, fit for a message.
fn shown(path: &str) -> String {
    let start: String = path.chars().take(200).collect();
    start.escape_debug().to_string()
}
