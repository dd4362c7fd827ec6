//! The build cache: which layer came of which content, and which content a file had when it was last looked at.
//!
//! The key is the content, so a touched, moved or newly checked out context still hits. File metadata is the fast
//! path to the content's digest: a file whose device, inode, size, mtime and ctime are as before has the content
//! it had. Losing the cache costs time, never correctness: every file of it may be removed at any moment.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealrs_image::digest::{Digest, Hasher};
use sealrs_image::error::{IoResultExt as _, Result};
use sealrs_image::file;
use sealrs_image::images_lock::Referrer;
use sealrs_image::layer::PackedLayer;
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use sealrs_image::spec::Descriptor;
use serde::{Deserialize, Serialize};

use crate::contents::{Contents, FileSource, Identity, ItemKind, OnDisk};
use crate::inside::Listing;

/// A file that changed this shortly before it was read may change again without a new time stamp (FAT keeps two
/// seconds), so its metadata proves nothing yet.
const RACY: Duration = Duration::from_secs(2);

/// A folder of small files.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// A layer as the cache remembers it.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Cache {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let folder = root.join("cache");
        for kind in ["layers", "listings", "insides", "referrers", "shapes", "files", "bases"] {
            let folder = folder.join(kind);
            fs::create_dir_all(&folder).or_io(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Self { folder })
    }

    /// The layer that came of `key`.
    pub(crate) fn layer(&self, key: &Digest) -> Option<PackedLayer> {
        let bytes = fs::read(self.folder.join("layers").join(key.hex())).ok()?;
        let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
        Some(PackedLayer {
            descriptor: remembered.descriptor,
            diff_id: remembered.diff_id,
        })
    }

    pub(crate) fn remember_layer(&self, key: &Digest, layer: &PackedLayer) -> Result<()> {
        let remembered = Remembered {
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id,
        };
        self.write(
            "layers",
            &key.hex(),
            &serde_json::to_vec(&remembered).unwrap_or_default(),
        )
    }

    /// What the layer of this digest holds.
    pub(crate) fn listing(&self, layer: &Digest) -> Option<Listing> {
        let bytes = fs::read(self.folder.join("listings").join(layer.hex())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn remember_listing(&self, layer: &Digest, listing: &Listing) -> Result<()> {
        self.write(
            "listings",
            &layer.hex(),
            &serde_json::to_vec(listing).unwrap_or_default(),
        )
    }

    /// The image that a name of FROM stood for, when it was pulled for a platform.
    pub(crate) fn base(&self, name: &Reference, platform: &Platform) -> Option<Descriptor> {
        let bytes = fs::read(self.folder.join("bases").join(base_key(name, platform))).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn remember_base(&self, name: &Reference, platform: &Platform, root: &Descriptor) -> Result<()> {
        let bytes = serde_json::to_vec(root).unwrap_or_default();
        self.write("bases", &base_key(name, platform), &bytes)
    }

    /// What a registry had that refers to an image.
    pub(crate) fn referrers(&self, key: &Digest) -> Option<Vec<Referrer>> {
        let bytes = fs::read(self.folder.join("referrers").join(key.hex())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn remember_referrers(&self, key: &Digest, referrers: &[Referrer]) -> Result<()> {
        let bytes = serde_json::to_vec(referrers).unwrap_or_default();
        self.write("referrers", &key.hex(), &bytes)
    }

    /// A file that was read out of a layer.
    pub(crate) fn file(&self, key: &Digest) -> Option<Vec<u8>> {
        fs::read(self.folder.join("insides").join(key.hex())).ok()
    }

    pub(crate) fn remember_file(&self, key: &Digest, bytes: &[u8]) -> Result<()> {
        self.write("insides", &key.hex(), bytes)
    }

    /// Whether a layer of this shape (names and sizes, not content) was built before.
    pub(crate) fn knows_shape(&self, shape: &Digest) -> bool {
        self.folder.join("shapes").join(shape.hex()).exists()
    }

    pub(crate) fn remember_shape(&self, shape: &Digest) -> Result<()> {
        self.write("shapes", &shape.hex(), b"")
    }

    /// The digests of the files of a build context, as far as they are known.
    pub(crate) fn files(&self, context: &Path) -> KnownFiles {
        let name = Digest::of(context.as_os_str().as_encoded_bytes()).hex();
        let path = self.folder.join("files").join(name);
        let known = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Vec<Line>>(&bytes).ok())
            .unwrap_or_default()
            .into_iter()
            .map(|line| ((line.identity(), line.size), line.digest))
            .collect();
        KnownFiles {
            path,
            known: Mutex::new(known),
            looked_at: Mutex::new(HashMap::new()),
        }
    }

    fn write(&self, kind: &str, name: &str, bytes: &[u8]) -> Result<()> {
        file::write_disposable(&self.folder.join(kind).join(name), bytes)
    }
}

fn base_key(name: &Reference, platform: &Platform) -> String {
    Digest::of(format!("base 1 {name} {platform}").as_bytes()).hex()
}

/// A known file, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    device: u64,
    inode: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    size: u64,
    digest: Digest,
}

impl Line {
    fn identity(&self) -> Identity {
        let join = |(seconds, rest): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Identity {
            device: self.device,
            inode: self.inode,
            mtime_ns: join(self.mtime),
            ctime_ns: join(self.ctime),
        }
    }

    fn new(identity: Identity, size: u64, digest: Digest) -> Self {
        let split = |nanoseconds: i128| {
            (
                i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(0),
                u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or(0),
            )
        };
        Self {
            device: identity.device,
            inode: identity.inode,
            mtime: split(identity.mtime_ns),
            ctime: split(identity.ctime_ns),
            size,
            digest,
        }
    }
}

/// Digests of files by their metadata.
#[derive(Debug)]
pub(crate) struct KnownFiles {
    path: PathBuf,
    known: Mutex<HashMap<(Identity, u64), Digest>>,
    /// What this build used or found out: this is what is kept.
    looked_at: Mutex<HashMap<(Identity, u64), Digest>>,
}

impl KnownFiles {
    pub(crate) fn digest(&self, file: &OnDisk) -> Option<Digest> {
        let key = (file.identity, file.size);
        let mut looked_at = lock(&self.looked_at);
        if let Some(&digest) = looked_at.get(&key) {
            return Some(digest);
        }
        let digest = lock(&self.known).get(&key).copied()?;
        looked_at.insert(key, digest);
        Some(digest)
    }

    /// Takes note of a file that was read from `started` on.
    pub(crate) fn remember(&self, file: &OnDisk, digest: Digest, started: SystemTime) {
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let safe = started.saturating_sub(RACY).as_nanos();
        let changed = file.identity.ctime_ns.max(file.identity.mtime_ns);
        if u128::try_from(changed).is_ok_and(|changed| changed < safe) {
            lock(&self.looked_at).insert((file.identity, file.size), digest);
        }
    }

    /// Writes down what this build knows.
    pub(crate) fn save(&self) -> Result<()> {
        let looked_at = lock(&self.looked_at);
        let same = {
            let known = lock(&self.known);
            known.len() == looked_at.len() && looked_at.keys().all(|key| known.contains_key(key))
        };
        if same {
            return Ok(());
        }
        let lines: Vec<Line> = looked_at
            .iter()
            .map(|(&(identity, size), &digest)| Line::new(identity, size, digest))
            .collect();
        file::write_disposable(&self.path, &serde_json::to_vec(&lines).unwrap_or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Tells the digest of a file's content, if it is known.
pub(crate) type DigestOf<'f> = &'f dyn Fn(&FileSource) -> Option<Digest>;

/// Describes a layer's entries for its key. With `content`, each file's digest goes in, else only its size: the
/// shape. `None` when a digest is missing.
pub(crate) fn describe(contents: &Contents, settings: &str, content: Option<DigestOf<'_>>) -> Option<Digest> {
    let mut hasher = Hasher::new();
    // Each field is ended by a zero byte, which no path may have, so that no two lists look alike.
    let mut field = |bytes: &[u8]| {
        hasher.update(bytes);
        hasher.update(b"\0");
    };
    field(b"layer 1");
    field(settings.as_bytes());
    for (path, item) in &contents.entries {
        field(path.as_bytes());
        field(format!("{:o} {} {}", item.mode, item.uid, item.gid).as_bytes());
        match &item.kind {
            ItemKind::Folder => field(b"folder"),
            ItemKind::Symlink(target) => field(format!("symlink {target}").as_bytes()),
            ItemKind::HardLink(target) => field(format!("link {target}").as_bytes()),
            ItemKind::File(source) => {
                field(format!("file {}", source.size()).as_bytes());
                if let Some(digest_of) = content {
                    field(digest_of(source)?.to_string().as_bytes());
                }
            }
        }
        for (name, value) in &item.xattrs {
            field(format!("{name} {}", value.len()).as_bytes());
            field(value);
        }
    }
    Some(hasher.finish())
}
