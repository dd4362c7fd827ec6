//! COPY, ADD and APP: from their sources to layers.

use std::collections::BTreeSet;
use std::fs;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::PackedLayer;
use sealrs_image::remote::Client;

use crate::add_tar::{self, Format};
use crate::apps;
use crate::base;
use crate::build::Done;
use crate::contents::{Contents, FileSource, Item, ItemKind, refuse_whiteout};
use crate::context::{Context, Match, Ownership, join};
use crate::download;
use crate::image_list::LIST_PATHS;
use crate::kubefile::{App, Destination, FileCopy, RemoteFile, Source, SourceKind};
use crate::pack::Packing;
use crate::remote_layer;

/// The mode of a file that was fetched, unless `--chmod` says otherwise.
const FETCHED_MODE: u32 = 0o644;

/// What an instruction that brings files needs.
pub(crate) struct Transfer<'b> {
    pub(crate) packing: &'b Packing<'b>,
    pub(crate) context: &'b Context,
    pub(crate) client: &'b Client,
    pub(crate) base: Option<&'b ClusterImage>,
    /// Folders that earlier instructions made.
    pub(crate) folders: &'b mut BTreeSet<String>,
    /// Folders of the base, once somebody needed to know.
    pub(crate) base_folders: &'b mut Option<BTreeSet<String>>,
}

/// A source with its patterns resolved.
enum Found<'s> {
    Local(Match),
    Remote(&'s RemoteFile),
    Inline(&'s str, &'s str),
}

impl Transfer<'_> {
    /// COPY and ADD.
    pub(crate) fn copy(&mut self, copy: &FileCopy) -> Result<Done> {
        let found = self.find(&copy.sources)?;
        let ownership = Ownership {
            mode: copy.mode,
            uid: copy.owner.map_or(0, |owner| owner.uid),
            gid: copy.owner.map_or(0, |owner| owner.gid),
        };
        let several = found.len() > 1;
        if several && !copy.destination.is_directory && !self.is_folder(&copy.destination.path)? {
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
        for source in &found {
            match source {
                Found::Local(found) if found.is_folder => {
                    self.context
                        .collect(found, &copy.destination.path, ownership, &mut contents)?;
                    self.mark_folder(&copy.destination.path, ownership, &mut contents)?;
                }
                Found::Local(found) => {
                    let format = if copy.unpack {
                        add_tar::format(&found.path)?
                    } else {
                        Format::Other
                    };
                    match format {
                        Format::Other => {
                            let path = self.target(&copy.destination, found.name())?;
                            self.context.collect(found, &path, ownership, &mut contents)?;
                        }
                        Format::Unreadable(packing) => {
                            return Err(Error::new(
                                ErrorKind::Input,
                                format!(
                                    "`{}` is packed with {packing}, which can't be unpacked here",
                                    found.relative
                                ),
                            )
                            .hint("repack it with zstd or gzip, or use COPY to take it over as it is"));
                        }
                        format => tars.push((found, format)),
                    }
                }
                Found::Remote(file) => remote.push(*file),
                Found::Inline(name, content) => {
                    let path = self.target(&copy.destination, name)?;
                    let source = FileSource::Inline(content.as_bytes().to_vec());
                    contents.put(&path, owned(source, ownership))?;
                }
            }
        }
        let mut done = Done::default();
        if !contents.entries.is_empty() || (tars.is_empty() && remote.is_empty()) {
            self.pack(contents, &copy.destination.path, &mut done)?;
        }
        for file in remote {
            let path = self.remote_path(&copy.destination, file)?;
            refuse_whiteout(&path)?;
            let mode = ownership.mode.unwrap_or(FETCHED_MODE);
            let packed = remote_layer::pack(self.packing, self.client, file, &path, mode, ownership)?;
            self.note_folders(&path);
            if LIST_PATHS.contains(&path.as_str()) {
                let list = self.list_of(&packed.layer, &path)?;
                done.lists.insert(path, list);
            }
            done.add(packed);
        }
        for (found, format) in tars {
            let mut tar = Contents::default();
            self.context.collect(found, found.name(), ownership, &mut tar)?;
            let unpacked = add_tar::pack(self.packing, &tar, format, &copy.destination.path, ownership)?;
            self.folders.extend(unpacked.found.folders);
            done.lists.extend(unpacked.found.lists);
            done.cached += usize::from(unpacked.cached);
            done.layers.push(unpacked.layer);
        }
        Ok(done)
    }

    /// APP, CNI and CSI.
    pub(crate) fn app(&mut self, app: &App) -> Result<Done> {
        let folder = apps::folder(&app.name.name);
        let found = self.find(&app.sources)?;
        let mut done = Done::default();
        let mut contents = Contents::default();
        for source in &found {
            let mut own = Contents::default();
            match source {
                Found::Local(found) if found.is_folder => {
                    self.context.collect(found, &folder, Ownership::default(), &mut own)?;
                }
                Found::Local(found) => {
                    let path = join(&folder, found.name());
                    self.context.collect(found, &path, Ownership::default(), &mut own)?;
                }
                Found::Remote(file) => {
                    let name = file_name(file)?;
                    let (digest, size) = download::fetch(self.client, self.packing.store, file, self.packing.progress)?;
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
        if self.base.is_none() {
            contents.complete_parents(self.folders);
        }
        self.folders.extend(contents.folders().cloned());
        for path in contents.entries.keys() {
            self.note_folders(path);
        }
        contents.refuse_whiteouts()?;
        for path in LIST_PATHS
            .into_iter()
            .filter(|path| contents.entries.contains_key(*path))
        {
            match contents.follow(path).map(|item| &item.kind) {
                Some(ItemKind::File(source)) => {
                    done.lists.insert(path.to_owned(), self.text(source, path)?);
                }
                Some(_) => {}
                None => {
                    let what = format!("`{path}` is a link that leads to nothing in this instruction");
                    return Err(Error::new(ErrorKind::Input, what).hint("copy the list itself to that place"));
                }
            }
        }
        contents.link_names();
        let what = if what.is_empty() { "the rootfs" } else { what };
        done.add(self.packing.pack(&contents, what)?);
        Ok(())
    }

    /// The folders above a path exist from now on.
    fn note_folders(&mut self, path: &str) {
        let mut rest = path;
        while let Some((folder, _)) = rest.rsplit_once('/') {
            self.folders.insert(folder.to_owned());
            rest = folder;
        }
    }

    /// The text of a fetched image list, out of its layer.
    fn list_of(&self, layer: &PackedLayer, path: &str) -> Result<String> {
        base::read_file(self.packing.store, &layer.descriptor, layer.diff_id, path)?
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| Error::new(ErrorKind::Input, format!("`{path}` is not a text")))
    }

    /// The text of a small file of the layer.
    fn text(&self, source: &FileSource, what: &str) -> Result<String> {
        let place = || format!("cannot read `{what}`");
        match source {
            FileSource::Disk(file) => fs::read_to_string(&file.path).or_io(place),
            FileSource::Inline(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            FileSource::Stored { digest, .. } => fs::read_to_string(self.packing.store.blob_path(digest)).or_io(place),
        }
    }

    fn find<'s>(&self, sources: &'s [Source]) -> Result<Vec<Found<'s>>> {
        let mut found = Vec::new();
        for source in sources {
            match &source.kind {
                SourceKind::Local(glob) => {
                    found.extend(self.context.matches(glob)?.into_iter().map(Found::Local));
                }
                SourceKind::Remote(file) => found.push(Found::Remote(file)),
                SourceKind::Inline(file) => found.push(Found::Inline(&file.name, &file.content)),
            }
        }
        Ok(found)
    }

    /// Where a file called `name` goes: into the destination if that is a folder, else it becomes the destination.
    fn target(&mut self, destination: &Destination, name: &str) -> Result<String> {
        if destination.is_directory || self.is_folder(&destination.path)? {
            Ok(join(&destination.path, name))
        } else {
            Ok(destination.path.clone())
        }
    }

    fn remote_path(&mut self, destination: &Destination, file: &RemoteFile) -> Result<String> {
        if destination.is_directory || self.is_folder(&destination.path)? {
            Ok(join(&destination.path, file_name(file)?))
        } else {
            Ok(destination.path.clone())
        }
    }

    /// Whether a folder of this path exists by now, in earlier layers or in the base.
    fn is_folder(&mut self, path: &str) -> Result<bool> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(true);
        }
        let Some(base) = self.base else { return Ok(false) };
        if self.base_folders.is_none() {
            *self.base_folders = Some(base::folders(self.packing.store, base)?);
        }
        Ok(self.base_folders.as_ref().is_some_and(|folders| folders.contains(path)))
    }

    /// A folder that is copied exists afterwards, even when it is empty.
    fn mark_folder(&mut self, path: &str, ownership: Ownership, contents: &mut Contents) -> Result<()> {
        if path.is_empty() || contents.entries.contains_key(path) || self.is_folder(path)? {
            return Ok(());
        }
        let mut folder = Item::folder(ownership.mode.unwrap_or(0o755));
        folder.uid = ownership.uid;
        folder.gid = ownership.gid;
        contents.put(path, folder)
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
            format!("{} has no file name to copy it under", file.url),
        )
        .hint("name the file in the destination: without a slash at its end")
    })
}
