//! COPY, ADD and APP: from their sources to layers.

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::remote::{Client, shown};

use crate::add_tar::{self, Format};
use crate::apps;
use crate::build::Done;
use crate::contents::{Contents, FileSource, Item, ItemKind, refuse_whiteout};
use crate::context::{Context, Ownership, join};
use crate::download;
use crate::inside::{Listed, Listing};
use crate::kubefile::{App, Destination, FileCopy, RemoteFile, Span};
use crate::pack::{Packed, Packing};
use crate::remote_layer;
use crate::rootfs::Rootfs;
use crate::sources::Found;

/// The mode of a file that was fetched, unless `--chmod` says otherwise.
const FETCHED_MODE: u32 = 0o644;

/// What an instruction that brings files needs.
pub(crate) struct Transfer<'b> {
    pub(crate) packing: &'b Packing<'b>,
    pub(crate) context: &'b Context,
    pub(crate) client: &'b Client,
    /// What the base and earlier instructions made.
    pub(crate) rootfs: &'b mut Rootfs,
    /// The instruction.
    pub(crate) span: Span,
}

impl Transfer<'_> {
    /// COPY and ADD of the sources that were found.
    pub(crate) fn copy(&mut self, copy: &FileCopy, found: &[Found<'_>]) -> Result<Done> {
        let ownership = Ownership {
            mode: copy.mode,
            uid: copy.owner.map_or(0, |owner| owner.uid),
            gid: copy.owner.map_or(0, |owner| owner.gid),
        };
        let destination = Destination {
            path: self.rootfs.place(&copy.destination.path)?,
            is_directory: copy.destination.is_directory || self.rootfs.is_folder(&copy.destination.path),
        };
        if found.len() > 1 && !destination.is_directory {
            return Err(Error::new(
                ErrorKind::Input,
                format!("{} sources can't all become `{}`", found.len(), copy.destination.path),
            )
            .hint(format!(
                "end the destination with a slash: `{}/`",
                copy.destination.path
            )));
        }
        let mut contents = Contents::default();
        let mut tars = Vec::new();
        let mut remote = Vec::new();
        for source in found {
            match source {
                Found::Local(found, _) if found.is_folder => {
                    self.context
                        .collect(found, &destination.path, ownership, &mut contents)?;
                    self.mark_folder(&destination.path, ownership, &mut contents)?;
                }
                Found::Local(found, Format::Other) => {
                    let path = target(&destination, found.name());
                    self.context.collect(found, &path, ownership, &mut contents)?;
                }
                Found::Local(found, Format::Tar(compression)) => tars.push((found, *compression)),
                Found::Remote(file) => remote.push(*file),
                Found::Inline(name, content) => {
                    let path = target(&destination, name);
                    let source = FileSource::Inline(content.as_bytes().to_vec());
                    contents.put(&path, owned(source, ownership))?;
                }
            }
        }
        let mut done = Done::default();
        if !contents.entries.is_empty() || (tars.is_empty() && remote.is_empty()) {
            self.pack(contents, &destination.path, &mut done)?;
        }
        for file in remote {
            let path = if destination.is_directory {
                join(&destination.path, file_name(file)?)
            } else {
                destination.path.clone()
            };
            refuse_whiteout(&path, "write another name as the destination")?;
            let mode = ownership.mode.unwrap_or(FETCHED_MODE);
            let packed = remote_layer::pack(self.packing, self.client, file, &path, mode, ownership)?;
            let listing = Listing(vec![(path, Listed::File)]);
            self.rootfs.put_layer(packed.layer.clone(), listing, Some(self.span));
            done.add(packed);
        }
        for (found, compression) in tars {
            let mut tar = Contents::default();
            self.context.collect(found, found.name(), ownership, &mut tar)?;
            let place = &destination.path;
            let unpacked = add_tar::pack(self.packing, &tar, compression, place, ownership, self.rootfs)?;
            self.rootfs
                .put_layer(unpacked.layer.clone(), unpacked.listing, Some(self.span));
            done.add(Packed {
                layer: unpacked.layer,
                cached: unpacked.cached,
            });
        }
        Ok(done)
    }

    /// APP, CNI and CSI of the sources that were found.
    pub(crate) fn app(&mut self, app: &App, found: &[Found<'_>]) -> Result<Done> {
        let folder = self.rootfs.place(&apps::folder(&app.name.name))?;
        let mut done = Done::default();
        let mut contents = Contents::default();
        for source in found {
            let mut own = Contents::default();
            match source {
                Found::Local(found, _) if found.is_folder => {
                    self.context.collect(found, &folder, Ownership::default(), &mut own)?;
                }
                Found::Local(found, _) => {
                    let path = join(&folder, found.name());
                    self.context.collect(found, &path, Ownership::default(), &mut own)?;
                }
                Found::Remote(file) => {
                    let name = file_name(file)?;
                    let (digest, size) = download::fetch(self.packing, self.client, file)?;
                    let source = FileSource::Stored { digest, size };
                    own.put(&join(&folder, name), Item::file(source, FETCHED_MODE))?;
                }
                Found::Inline(name, content) => {
                    let source = FileSource::Inline(content.as_bytes().to_vec());
                    own.put(&join(&folder, name), Item::file(source, FETCHED_MODE))?;
                }
            }
            for (path, item) in own.entries {
                if !matches!(item.kind, ItemKind::Folder)
                    && let Some(below) = path.strip_prefix(&folder).map(|below| below.trim_start_matches('/'))
                    && !done.files.iter().any(|file| file == below)
                {
                    done.files.push(below.to_owned());
                }
                contents.put(&path, item)?;
            }
        }
        contents.entries.entry(folder).or_insert_with(|| Item::folder(0o755));
        self.pack(contents, &format!("app {}", app.name.name), &mut done)?;
        Ok(done)
    }

    fn pack(&mut self, mut contents: Contents, what: &str, done: &mut Done) -> Result<()> {
        contents.complete_parents(|path| self.rootfs.is_folder(path));
        contents.refuse_whiteouts()?;
        self.rootfs.put_contents(&contents, self.span);
        contents.link_names();
        let what = if what.is_empty() { "the rootfs" } else { what };
        done.add(self.packing.pack(&contents, what)?);
        Ok(())
    }

    /// A folder that is copied exists afterwards, even when it is empty.
    fn mark_folder(&mut self, path: &str, ownership: Ownership, contents: &mut Contents) -> Result<()> {
        if path.is_empty() || contents.entries.contains_key(path) || self.rootfs.is_folder(path) {
            return Ok(());
        }
        let mut folder = Item::folder(ownership.mode.unwrap_or(0o755));
        folder.uid = ownership.uid;
        folder.gid = ownership.gid;
        contents.put(path, folder)
    }
}

/// Where a file called `name` goes: into the destination if that is a folder, else it becomes the destination.
fn target(destination: &Destination, name: &str) -> String {
    if destination.is_directory {
        join(&destination.path, name)
    } else {
        destination.path.clone()
    }
}

fn owned(source: FileSource, ownership: Ownership) -> Item {
    let mut item = Item::file(source, ownership.mode.unwrap_or(FETCHED_MODE));
    item.uid = ownership.uid;
    item.gid = ownership.gid;
    item
}

fn file_name(file: &RemoteFile) -> Result<&str> {
    file.file_name.as_deref().ok_or_else(|| {
        Error::new(
            ErrorKind::Input,
            format!("{} has no file name to copy it under", shown(&file.url)),
        )
        .hint("the destination is a folder: write the file's name behind it, `FOLDER/NAME`")
    })
}
