//! What the unit tests share: a source in memory, tars written byte by byte, images made of them, and running a test
//! again as another process or user.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;

use crate::cluster_image::{ClusterImage, Extension, name};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::Platform;
use crate::source::Source;
use crate::spec::{Config, ContainerConfig, Descriptor, Manifest, RootFs, canonical, media_type, parse};

/// Blobs in memory. Remembers what it was asked for, and may break off.
#[derive(Default)]
pub(crate) struct Memory {
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Digest and offset of each [`Source::open`].
    pub(crate) opened: Mutex<Vec<(Digest, u64)>>,
    /// A reader fails when this many bytes of the blob were read.
    pub(crate) breaks_at: Option<u64>,
    /// A reader ends when this many bytes of the blob were read.
    pub(crate) ends_at: Option<u64>,
    /// A reader sleeps before each read.
    pub(crate) slow: bool,
}

impl Memory {
    pub(crate) fn add(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    /// Puts other bytes under a blob's digest.
    pub(crate) fn damage(&mut self, digest: Digest, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.blobs.get_mut(&digest).unwrap());
    }

    pub(crate) fn forget(&mut self, digest: Digest) {
        self.blobs.remove(&digest).unwrap();
    }

    /// An image of these layers, each with the digest of its unpacked tar.
    pub(crate) fn image(&mut self, layers: Vec<(Descriptor, Digest)>) -> Descriptor {
        let (layers, diff_ids) = layers.into_iter().unzip();
        let config = Config {
            created: None,
            author: None,
            platform: Platform::host(),
            config: ContainerConfig::default(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids,
            },
            history: Vec::new(),
        };
        let config = self.add(media_type::CONFIG, canonical(&config).unwrap());
        let extension: Extension = parse(b"{}", "extension").unwrap();
        let extension = String::from_utf8(canonical(&extension).unwrap()).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config,
            layers,
            annotations: BTreeMap::from([(name::EXTENSION.to_owned(), extension)]),
        };
        self.add(media_type::MANIFEST, canonical(&manifest).unwrap())
    }

    /// The image under `root`, read.
    pub(crate) fn read(&self, root: &Descriptor) -> ClusterImage {
        ClusterImage::read(self, root, &Platform::host()).unwrap()
    }

    /// The offsets at which a blob was asked for.
    pub(crate) fn offsets(&self, digest: Digest) -> Vec<u64> {
        let opened = self.opened.lock().unwrap();
        let asked = opened.iter().filter(|(blob, _)| *blob == digest);
        asked.map(|(_, offset)| *offset).collect()
    }
}

impl Source for Memory {
    fn origin(&self) -> String {
        "memory".to_owned()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.opened.lock().unwrap().push((blob.digest, offset));
        let bytes = self
            .blobs
            .get(&blob.digest)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("memory lacks blob {}", blob.digest)))?;
        Ok(Box::new(MemoryReader {
            memory: self,
            bytes,
            position: usize::try_from(offset).unwrap(),
        }))
    }
}

struct MemoryReader<'m> {
    memory: &'m Memory,
    bytes: &'m [u8],
    position: usize,
}

impl Read for MemoryReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.memory.slow {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let limit = self.memory.breaks_at.or(self.memory.ends_at);
        let end = limit.map_or(self.bytes.len(), |limit| {
            self.bytes.len().min(usize::try_from(limit).unwrap())
        });
        let rest = self.bytes.get(self.position..end).unwrap_or_default();
        if rest.is_empty() && self.memory.breaks_at.is_some() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let taken = rest.len().min(buffer.len()).min(10_000);
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.position += taken;
        Ok(taken)
    }
}

/// A tar that is written without any care, so that it can be wrong in every way.
#[derive(Clone, Default)]
pub(crate) struct RawTar(Vec<u8>);

impl RawTar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header for `path`, with mode 0644, mtime 1 and no owner, that the caller may spoil.
    pub(crate) fn header(path: &str, kind: u8, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        let name = &mut header.as_old_mut().name;
        let taken = path.len().min(name.len());
        name[..taken].copy_from_slice(&path.as_bytes()[..taken]);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_cksum();
        header
    }

    /// A header as it is, content and padding.
    pub(crate) fn raw(mut self, header: &tar::Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.file_with(path, content, |_| {})
    }

    /// A file whose header is changed before its checksum is taken.
    pub(crate) fn file_with(self, path: &str, content: &[u8], change: impl FnOnce(&mut tar::Header)) -> Self {
        let mut header = Self::header(path, b'0', content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.long(path).raw(&header, content)
    }

    pub(crate) fn folder(self, path: &str, mode: u32) -> Self {
        let mut header = Self::header(path, b'5', 0);
        header.set_mode(mode);
        header.set_cksum();
        self.long(path).raw(&header, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(path, target, b'2')
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(path, target, b'1')
    }

    /// An entry of any type, without content.
    pub(crate) fn kind(self, path: &str, kind: u8) -> Self {
        self.raw(&Self::header(path, kind, 0), b"")
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|all| *all == rest + all.to_string().len());
            write!(bytes, "{} {key}=", length.unwrap()).unwrap();
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.raw(&Self::header("pax", b'x', bytes.len() as u64), &bytes)
    }

    /// The tar with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    fn link(self, path: &str, target: &str, kind: u8) -> Self {
        let mut header = Self::header(path, kind, 0);
        let field = &mut header.as_old_mut().linkname;
        if target.len() <= field.len() {
            field[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            self.long(path).raw(&header, b"")
        } else {
            self.pax(&[("path", path.as_bytes()), ("linkpath", target.as_bytes())])
                .raw(&header, b"")
        }
    }

    fn long(self, path: &str) -> Self {
        if path.len() <= 100 {
            return self;
        }
        self.pax(&[("path", path.as_bytes())])
    }
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // xorshift64*, by Vigna
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The variable by which a test knows that it runs as the child of itself.
const CHILD: &str = "SEALRS_TEST_CHILD";

/// What the parent gave to this run of a test, if it is a child.
pub(crate) fn given() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// The command that runs the test `name` (`store::tests::x`) alone in another process.
pub(crate) fn again(name: &str, given: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "--test-threads=1", name])
        .env(CHILD, given);
    command
}

/// Runs the test `name` as an ordinary user, in a folder that it may write and is given. Only root can.
pub(crate) fn run_as_nobody(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everybody).unwrap();
    // The build folder may lie where only root gets.
    let program = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let status = Command::new(program)
        .args(["--exact", name])
        .env(CHILD, folder.path())
        .current_dir(folder.path())
        .uid(65534)
        .gid(65534)
        .status();
    assert!(status.unwrap().success());
}

/// Whether this runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A small file system of its own; unmounted when dropped.
pub(crate) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, with the reason printed, where nothing can be mounted.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let tmpfs = Self(tempfile::tempdir().unwrap());
        if !is_root() || !tmpfs.run(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]) {
            println!("skipped: mounting a small file system needs root and CAP_SYS_ADMIN");
            return None;
        }
        Some(tmpfs)
    }

    pub(crate) fn grow(&self, size: &str) {
        assert!(self.run(&["-o", &format!("remount,size={size}")]));
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let status = Command::new("mount").args(arguments).arg(self.0.path()).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // At once, though a child that another test forks may hold a file of it open for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
