//! OCI image layouts in folders that are not the store's: `oci:DIR[:TAG]`, as skopeo and others write them. Such a
//! folder is added to and nothing in it is lost.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::copy::{BlobSink, Order, Sink, Taken};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::file::{self, sync_folder};
use crate::lock;
use crate::progress::Task;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::{self, Descriptor, Index, MAX_DOCUMENT, annotation};
use crate::store::Store;

/// The file that makes a folder an image layout (image-layout.md).
const MARKER: &str = "oci-layout";
const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image layout as a source.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    images: Vec<(Option<String>, Descriptor)>,
    named: Vec<(Reference, Descriptor)>,
}

impl Layout {
    /// Reads what the layout in the folder `path` lists.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::Integrity`] when it can't be read.
    pub fn open(path: &Path) -> Result<Self> {
        check_marker(path)?;
        let index: Index = spec::parse(&read_index(path)?, &path.join("index.json").display().to_string())?;
        let mut images = Vec::new();
        let mut named = Vec::new();
        for mut image in index.manifests {
            let tag = image.annotations.get(annotation::REF_NAME).cloned();
            let name = take_name(&mut image);
            named.extend(name.map(|name| (name, image.clone())));
            images.push((tag, image));
        }
        Ok(Self {
            path: path.to_owned(),
            images,
            named,
        })
    }

    /// The images, each with its tag as it stands there: `v1`, or a whole reference.
    #[must_use]
    pub fn images(&self) -> &[(Option<String>, Descriptor)] {
        &self.images
    }

    /// The images that have a whole name.
    #[must_use]
    pub fn named(&self) -> &[(Reference, Descriptor)] {
        &self.named
    }

    /// The image under `tag`, or the only one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::Input`] when there are several to choose from.
    pub fn find(&self, tag: Option<&str>) -> Result<Descriptor> {
        let images = self.images.iter().map(|(tag, image)| (tag.as_deref(), image));
        match tag {
            Some(tag) => tagged(images, tag, &self.origin()),
            None => match self.images.as_slice() {
                [(_, only), rest @ ..] if rest.iter().all(|(_, other)| other.digest == only.digest) => Ok(only.clone()),
                [] => Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{} holds no image", self.origin()),
                )),
                several => Err(Error::new(
                    ErrorKind::Input,
                    format!("{} holds {} images", self.origin(), several.len()),
                )
                .hint(format!(
                    "say which one: oci:{}:TAG with TAG one of {}",
                    self.path.display(),
                    tags(images)
                ))),
            },
        }
    }
}

/// Takes the name off an entry of an `index.json`. A bare tag (`v1`), as skopeo may write, names no image.
pub(crate) fn take_name(image: &mut Descriptor) -> Option<Reference> {
    let mut name = None;
    for key in [annotation::CONTAINERD_NAME, annotation::REF_NAME] {
        let text = image.annotations.remove(key);
        name = name.or_else(|| text.filter(|text| text.contains([':', '/']))?.parse().ok());
    }
    name
}

/// The image under `tag` among those that `origin` lists with their tags. A name may be written short.
pub(crate) fn tagged<'i>(
    images: impl Iterator<Item = (Option<&'i str>, &'i Descriptor)> + Clone,
    tag: &str,
    origin: &str,
) -> Result<Descriptor> {
    let whole = tag.parse::<Reference>().ok().map(|name| name.to_string());
    let is_meant = |name: &str| name == tag || Some(name) == whole.as_deref();
    let found = images.clone().find(|(name, _)| name.is_some_and(is_meant));
    found.map(|(_, image)| image.clone()).ok_or_else(|| {
        let error = Error::new(ErrorKind::NotFound, format!("{origin} holds no image `{tag}`"));
        match tags(images) {
            all if all.is_empty() => error.hint("no image in it has a name: leave it out"),
            all => error.hint(format!("it has: {all}")),
        }
    })
}

fn tags<'i>(images: impl Iterator<Item = (Option<&'i str>, &'i Descriptor)>) -> String {
    let tags: Vec<&str> = images.filter_map(|(tag, _)| tag).collect();
    tags.join(", ")
}

impl Source for Layout {
    fn origin(&self) -> String {
        format!("layout {}", self.path.display())
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let path = self.path.join("blobs/sha256").join(blob.digest.hex());
        let place = || format!("cannot read {}", path.display());
        let mut file = match fs::metadata(&path) {
            // Opening a pipe would wait for ever.
            Ok(metadata) if metadata.is_file() => File::open(&path).or_io(place)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).or_io(place),
            _ => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{} lacks blob {}", self.origin(), blob.digest),
                )
                .hint("copy the image into it again"));
            }
        };
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).or_io(place)?;
        }
        Ok(Box::new(file))
    }
}

/// An image layout as a sink. An image that had the same tag stays there without one, as with skopeo.
#[derive(Debug)]
pub struct LayoutSink {
    /// Its blobs are written as those of a store: under partial names that the next try continues.
    blobs: Store,
    root: Descriptor,
    tag: Option<String>,
}

impl LayoutSink {
    /// Prepares the folder `path`, an image layout or an empty or new folder, to take in the image under `root`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when something else lies there; [`ErrorKind::Disk`] when it can't be written.
    pub fn new(path: &Path, root: &Descriptor, tag: Option<&str>) -> Result<Self> {
        let place = || format!("cannot write the layout {}", path.display());
        fs::create_dir_all(path).or_io(place)?;
        let marker = path.join(MARKER);
        if !marker.exists() {
            if fs::read_dir(path).or_io(place)?.next().is_some() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("{} is neither an image layout nor an empty folder", path.display()),
                )
                .hint("give another folder"));
            }
            file::write(&marker, VERSION.as_bytes(), 0o644)?;
        }
        check_marker(path)?;
        for folder in ["blobs/sha256", "partial"] {
            fs::create_dir_all(path.join(folder)).or_io(place)?;
        }
        Ok(Self {
            blobs: Store::at(path.to_owned()),
            root: root.clone(),
            tag: tag.map(str::to_owned),
        })
    }

    /// Lists the image. The index is edited as it stands: fields that are not known here may matter to others.
    fn list(&self) -> Result<()> {
        let path = self.blobs.path();
        let file = path.join("index.json");
        let _lock = lock::exclusive(&path.join(MARKER))?;
        let bytes = match file.exists() {
            true => read_index(path)?,
            false => spec::canonical(&Index::new(Vec::new()))?,
        };
        let damaged = || {
            Error::new(ErrorKind::Integrity, format!("{} is not an OCI index", file.display()))
                .hint("remove the folder, or give another one")
        };
        let mut index: Value = serde_json::from_slice(&bytes).map_err(|error| damaged().because(error))?;
        let list = index.get_mut("manifests").ok_or_else(damaged)?;
        if list.is_null() {
            *list = Value::Array(Vec::new());
        }
        let list = list.as_array_mut().ok_or_else(damaged)?;
        let mut entry = self.root.clone();
        entry.annotations.remove(annotation::REF_NAME);
        entry.annotations.remove(annotation::CONTAINERD_NAME);
        if let Some(tag) = &self.tag {
            entry.annotations.insert(annotation::REF_NAME.to_owned(), tag.clone());
        }
        let digest = Value::String(entry.digest.to_string());
        // Without a tag an image is listed once.
        let is_replaced = |old: &Value| match tag_of(old) {
            None => old.get("digest") == Some(&digest),
            tag => tag == self.tag.as_deref(),
        };
        let place = list.iter().position(is_replaced);
        let (replaced, mut kept): (Vec<_>, Vec<_>) = std::mem::take(list).into_iter().partition(is_replaced);
        let entry = serde_json::to_value(&entry).or_fail(ErrorKind::Internal, || "cannot write a descriptor")?;
        kept.insert(place.unwrap_or(kept.len()), entry);
        for mut old in replaced {
            // Whoever knows its digest still finds the image that had the tag.
            if !kept.iter().any(|other| other.get("digest") == old.get("digest")) {
                if let Some(annotations) = old.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(annotation::REF_NAME);
                }
                kept.push(old);
            }
        }
        *list = kept;
        sync_folder(&path.join("blobs/sha256"))?;
        file::write(&file, &spec::canonical(&index)?, 0o644)
    }
}

impl Sink for LayoutSink {
    fn order(&self) -> Order {
        Order::DocumentsLast
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        BlobSink(&self.blobs).has(blob)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        self.blobs.fetch(blob, source, task)?;
        Ok(Taken::Moved)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.list()?;
        // Others may be copying into it, or an interrupted copy of another image may wait there.
        let _ = fs::remove_dir(self.blobs.path().join("partial"));
        Ok(())
    }
}

fn tag_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(annotation::REF_NAME)?.as_str()
}

fn check_marker(path: &Path) -> Result<()> {
    let file = path.join(MARKER);
    let no_layout = |why: &str| {
        Error::new(
            ErrorKind::NotFound,
            format!("{} is not an OCI image layout: {why}", path.display()),
        )
        .hint("give a folder that `skopeo copy … oci:DIR` or `sealrs copy … oci:DIR` made")
    };
    let text = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_layout("it has no file `oci-layout`")),
        text => text.or_io(|| format!("cannot read {}", file.display()))?,
    };
    let marker: Value = spec::parse(&text, &file.display().to_string())?;
    match marker.get("imageLayoutVersion").and_then(Value::as_str) {
        Some(version) if version.starts_with("1.") => Ok(()),
        _ => Err(no_layout("its version is not 1").of_kind(ErrorKind::Integrity)),
    }
}

fn read_index(path: &Path) -> Result<Vec<u8>> {
    let file = path.join("index.json");
    let place = || format!("cannot read {}", file.display());
    let size = fs::metadata(&file).or_io(place)?.len();
    if size > MAX_DOCUMENT {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!("{} has {size} bytes", file.display()),
        ));
    }
    fs::read(&file).or_io(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::copy;
    use crate::progress::Silent;
    use crate::source::document;
    use crate::spec::media_type;
    use crate::testing::{Memory, noise};

    fn image(memory: &mut Memory, seed: u64) -> Descriptor {
        let layer = memory.add(media_type::LAYER, noise(5000, seed));
        memory.image(vec![(layer.clone(), layer.digest)])
    }

    fn put(memory: &Memory, path: &Path, image: &Descriptor, tag: Option<&str>) -> Result<u64> {
        let sink = LayoutSink::new(path, image, tag)?;
        Ok(copy(memory, image, Box::new(sink), 2, &Silent)?.blobs)
    }

    #[test]
    fn images_come_in_one_after_the_other_and_come_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/layout");
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, 1), image(&mut memory, 2));
        assert_eq!(put(&memory, &path, &one, Some("v1")).unwrap(), 3);
        assert_eq!(put(&memory, &path, &two, Some("v2")).unwrap(), 3);
        assert_eq!(put(&memory, &path, &one, Some("v1")).unwrap(), 0);
        assert!(!path.join("partial").exists());

        let layout = Layout::open(&path).unwrap();
        assert_eq!(layout.images().len(), 2);
        assert_eq!(layout.find(Some("v1")).unwrap(), one);
        assert_eq!(document(&layout, &two).unwrap(), document(&memory, &two).unwrap());
        let error = layout.find(None).unwrap_err();
        assert!(error.remedy().unwrap().contains("v1, v2"), "{error:?}");
        assert_eq!(layout.find(Some("v3")).unwrap_err().kind(), ErrorKind::NotFound);

        // A tag moves over; an image without one is listed once.
        put(&memory, &path, &two, Some("v1")).unwrap();
        put(&memory, &path, &one, None).unwrap();
        put(&memory, &path, &one, None).unwrap();
        let layout = Layout::open(&path).unwrap();
        let listed: Vec<_> = layout
            .images()
            .iter()
            .map(|(tag, image)| (tag.as_deref(), image.digest))
            .collect();
        assert_eq!(
            listed,
            [(Some("v1"), two.digest), (Some("v2"), two.digest), (None, one.digest)]
        );
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut memory = Memory::default();
        let one = image(&mut memory, 1);
        fs::write(
            path.join("oci-layout"),
            r#"{"imageLayoutVersion": "1.0.0", "by": "them"}"#,
        )
        .unwrap();
        let theirs = r#"{"schemaVersion":2,"manifests":[{"mediaType":"x/y","digest":"sha512:00","size":3,"data":"eA=="}],"subject":{"a":1}}"#;
        fs::write(path.join("index.json"), theirs).unwrap();
        fs::create_dir_all(path.join("blobs/sha512")).unwrap();
        fs::write(path.join("blobs/sha512/00"), "abc").unwrap();
        put(&memory, path, &one, Some("v1")).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
        let before: Value = serde_json::from_str(theirs).unwrap();
        assert_eq!(index["manifests"][0], before["manifests"][0]);
        assert_eq!(index["subject"], before["subject"]);
        assert_eq!(index["manifests"][1]["digest"], one.digest.to_string());
        assert!(path.join("blobs/sha512/00").exists());
        assert!(fs::read_to_string(path.join("oci-layout")).unwrap().contains("them"));
        fs::write(path.join("index.json"), r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
        put(&memory, path, &one, Some("v1")).unwrap();
        for bad in ["", "[]", "{}", r#"{"manifests":{}}"#] {
            fs::write(path.join("index.json"), bad).unwrap();
            let error = put(&memory, path, &one, Some("v1")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{bad}");
            assert_eq!(fs::read_to_string(path.join("index.json")).unwrap(), bad);
        }
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut memory = Memory::default();
        let one = image(&mut memory, 1);
        assert_eq!(Layout::open(path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            Layout::open(&path.join("absent")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        fs::write(path.join("precious"), "x").unwrap();
        assert_eq!(put(&memory, path, &one, None).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
        for (marker, kind) in [
            ("{", ErrorKind::Integrity),
            (r#"{"imageLayoutVersion":"2.0.0"}"#, ErrorKind::Integrity),
            (VERSION, ErrorKind::NotFound),
        ] {
            fs::write(path.join(MARKER), marker).unwrap();
            assert_eq!(Layout::open(path).unwrap_err().kind(), kind, "{marker}");
        }
    }

    #[test]
    fn a_copy_that_broke_off_is_continued_and_a_failed_one_lists_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layout");
        let mut memory = Memory::default();
        let one = image(&mut memory, 1);
        let layer = crate::digest::Digest::of(&noise(5000, 1));
        memory.ends_at = Some(3000);
        put(&memory, &path, &one, Some("v1")).unwrap_err();
        assert!(!path.join("index.json").exists());
        memory.ends_at = None;
        put(&memory, &path, &one, Some("v1")).unwrap();
        assert_eq!(memory.offsets(layer).last(), Some(&3000));
        fs::remove_file(path.join("blobs/sha256").join(layer.hex())).unwrap();
        let layout = Layout::open(&path).unwrap();
        let lost = Descriptor::new(media_type::LAYER, layer, 5000);
        assert_eq!(layout.open(&lost, 0).map(drop).unwrap_err().kind(), ErrorKind::NotFound);
        put(&memory, &path, &one, Some("v1")).unwrap();
        let mut rest = Vec::new();
        layout.open(&lost, 4990).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, noise(5000, 1)[4990..]);
    }
}
