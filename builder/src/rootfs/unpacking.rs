//! Whether a layer can be unpacked over the tree. [`sealrs_image::rootfs`] asks the disk; this asks the tree, so that a
//! layer that no host would take is not built.

use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::rootfs::rules;

use super::{MAX_LINKS, Node, Rootfs, split};
use crate::add_tar::MAKE_WITHOUT;
use crate::context::join;
use crate::inside::{Listed, Listing};

/// Why an entry can't be unpacked: a sentence about it.
type Refusal = String;

impl Rootfs {
    /// Says whether unpacking will take a layer of these entries, in their order, over this tree.
    ///
    /// # Errors
    /// [`ErrorKind::Input`], naming the first entry that it will not take.
    pub(crate) fn check_layer(&self, listing: &Listing) -> Result<()> {
        let mut tree = self.clone();
        for (path, listed) in &listing.0 {
            let refused = |why: Refusal| {
                Error::new(ErrorKind::Input, why).hint(format!("no host would unpack it: {MAKE_WITHOUT}"))
            };
            let checked = tree.check_entry(path, listed).map_err(refused);
            let node = checked.context(|| format!("cannot take over `{}`", path.escape_debug()))?;
            tree.put(path, node, None);
        }
        Ok(())
    }

    fn check_entry(&self, path: &str, listed: &Listed) -> Result<Node, Refusal> {
        rules::clean(path).map_err(|why| format!("it has {why}"))?;
        self.enter(split(path).0, true)?;
        match listed {
            Listed::Folder => Ok(Node::Folder),
            Listed::File => Ok(Node::File(super::Origin::Unknown)),
            Listed::Symlink(target) if rules::can_be_target(target) => Ok(Node::Symlink(target.clone())),
            Listed::Symlink(_) => Err("the link's target can't be one".to_owned()),
            Listed::HardLink(target) => self.check_hard_link(path, target),
        }
    }

    fn check_hard_link(&self, path: &str, target: &str) -> Result<Node, Refusal> {
        if let Some(why) = rules::misleads(path, target) {
            return Err(why.to_owned());
        }
        let shown = target.escape_debug();
        let (folder, name) = split(target);
        let real = join(&self.enter(folder, false)?, name);
        match self.node(&real) {
            // What the link replaces is gone before the link is made.
            _ if target.strip_prefix(path).is_some_and(|below| below.starts_with('/')) => {
                Err(format!("it is a hard link to `{shown}`, which lies below it"))
            }
            Some(Node::Folder) => Err(format!("it is a hard link to `{shown}`, a folder")),
            Some(node) => Ok(node.clone()),
            None => Err(format!(
                "it is a hard link to `{shown}`, which is neither in the archive before it nor in the rootfs"
            )),
        }
    }

    /// The real path of a folder as unpacking opens it: links lead to folders that are there, and nowhere out. What is
    /// missing may be made, but not behind a link.
    fn enter(&self, folder: &str, make: bool) -> Result<String, Refusal> {
        let mut real = String::new();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let next = join(&real, part);
            real = match self.node(&next) {
                Some(Node::Folder) => next,
                Some(Node::Symlink(target)) => self.follow(&next, target, &mut 0).map_err(|why| {
                    let (link, target) = (next.escape_debug(), target.escape_debug());
                    format!("it passes through the link `{link}` to `{target}`, which {why}")
                })?,
                Some(Node::File(_)) => {
                    return Err(format!(
                        "it passes through `{}`, which is no folder",
                        next.escape_debug()
                    ));
                }
                None if make => next,
                None => return Err(format!("it leads to `{}`, which is not there", next.escape_debug())),
            };
        }
        Ok(real)
    }

    /// The folder that a link leads to.
    fn follow(&self, link: &str, target: &str, links: &mut usize) -> Result<String, &'static str> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err("leads in circles");
        }
        if target.starts_with('/') {
            return Err("leads out of the rootfs");
        }
        let mut real = split(link).0.to_owned();
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." if real.is_empty() => return Err("leads out of the rootfs"),
                ".." => real.truncate(real.rfind('/').unwrap_or(0)),
                part => {
                    let next = join(&real, part);
                    real = match self.node(&next) {
                        Some(Node::Folder) => next,
                        Some(Node::Symlink(target)) => self.follow(&next, target, links)?,
                        Some(Node::File(_)) => return Err("leads to a file"),
                        None => return Err("leads to nothing in the rootfs"),
                    };
                }
            }
        }
        Ok(real)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{link, rootfs};
    use super::*;

    /// As the tests of unpacking have it (`image/src/rootfs/tests/hostile.rs`).
    #[test]
    fn refuses_what_unpacking_refuses() {
        let below: &[(&str, Listed)] = &[
            ("real/deep", Listed::Folder),
            ("inside", link("real/../real")),
            ("absolute", link("/real")),
            ("out", link("../x")),
            ("real/up", link("../..")),
            ("dangling", link("real/nowhere")),
            ("round", link("round")),
            ("far", link("out/x")),
            ("file", Listed::File),
        ];
        let hard = |target: &str| Listed::HardLink(target.to_owned());
        for (entries, refusal) in [
            (vec![("inside/x", Listed::File)], ""),
            (vec![("inside/deep/x/y", Listed::File)], ""),
            (vec![("new/folder/x", Listed::File)], ""),
            (vec![("absolute/x", Listed::File)], "out of the rootfs"),
            (vec![("out/x", Listed::File)], "out of the rootfs"),
            (vec![("real/up/x", Listed::Folder)], "out of the rootfs"),
            (vec![("far/x", Listed::File)], "out of the rootfs"),
            (vec![("dangling/x", Listed::File)], "leads to nothing"),
            (vec![("round/x", Listed::File)], "in circles"),
            (vec![("file/x", Listed::File)], "no folder"),
            // What replaces the link is passed through instead.
            (vec![("out", Listed::Folder), ("out/x", Listed::File)], ""),
            (
                vec![("l", link("/etc")), ("l/passwd", Listed::File)],
                "out of the rootfs",
            ),
            (vec![("l", link("real")), ("l/x", Listed::File), ("h", hard("l/x"))], ""),
            (vec![("h", hard("file"))], ""),
            (vec![("h", hard("out"))], ""),
            (vec![("h", hard("gone"))], "neither in the archive"),
            (vec![("h", hard("gone/x"))], "not there"),
            (vec![("h", hard("out/x"))], "out of the rootfs"),
            (vec![("h", hard("real"))], "a folder"),
            (vec![("h", hard("h"))], "itself"),
            (vec![("real", hard("real/up"))], "below it"),
            (vec![("l", link(""))], "target"),
            (
                vec![("h", hard("later")), ("later", Listed::File)],
                "neither in the archive",
            ),
        ] {
            let entries = entries.into_iter().map(|(path, listed)| (path.to_owned(), listed));
            let listing = Listing(entries.collect());
            let checked = rootfs(&[below]).check_layer(&listing);
            let said = checked.err().map(|error| format!("{error:?}")).unwrap_or_default();
            assert_eq!(said.is_empty(), refusal.is_empty(), "{listing:?}: {said}");
            assert!(said.contains(refusal), "{listing:?}: {said}");
        }
        let long = Listing(vec![("x".repeat(256), Listed::File)]);
        assert!(rootfs(&[]).check_layer(&long).is_err());
    }
}
