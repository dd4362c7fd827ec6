//! ADD of a URL: the file goes from the network straight into a layer of its own. Only when its size or its digest
//! is not known beforehand, it lies beside it for a while.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use sealrs_image::digest::{Digest, Hasher, VerifyingReader};
use sealrs_image::error::{Context as _, IoResultExt as _, Result};
use sealrs_image::layer::{self, Compression, Entry, EntryKind, LayerWriter, PackedLayer, TarWriter};
use sealrs_image::progress::Task;
use sealrs_image::remote::{Client, FileSource, shown};
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;

use crate::context::Ownership;
use crate::download::{check, explain, warn};
use crate::inside::{Listed, Listing};
use crate::kubefile::{Checksum, RemoteFile};
use crate::pack::{Packed, Packing};

const BUFFER: usize = 256 << 10;

/// How packed files start: gzip, zstd, xz, bzip2, zip.
const PACKED: [&[u8]; 5] = [
    &[0x1f, 0x8b],
    &[0x28, 0xb5, 0x2f, 0xfd],
    &[0xfd, b'7', b'z', b'X', b'Z'],
    b"BZh",
    b"PK\x03\x04",
];

/// Fetches `file` into a layer that holds it at `path`. The layer is the same whatever the server tells beforehand.
pub(crate) fn pack(
    packing: &Packing<'_>,
    client: &Client,
    file: &RemoteFile,
    path: &str,
    mode: u32,
    ownership: Ownership,
) -> Result<Packed> {
    let layer = RemoteLayer {
        packing,
        path,
        mode,
        ownership,
    };
    let expected = file.checksum.map(|checksum| checksum.digest);
    let expected = expected.or_else(|| packing.seen.fetched(&file.url));
    if let Some(known) = expected.and_then(|digest| layer.known(&digest)) {
        return Ok(known);
    }
    let place = || format!("cannot fetch {}", shown(&file.url));
    if file.checksum.is_none() {
        warn(packing.progress, file);
    }
    let source = FileSource::new(client.clone(), &file.url)?;
    let (mut reader, size) = source.start().map_err(|error| explain(file, error)).context(place)?;
    let task = Task::begin(packing.progress, &format!("fetching {}", shown(&file.url)), size);
    let (Some(Checksum { digest, .. }), Some(size)) = (file.checksum, size) else {
        // The tar's header tells the size, and without a digest there is no telling whether the layer is known.
        let (mut spooled, digest, size) = spool(packing.store, &mut task.reader(reader)).context(place)?;
        check(file.checksum, digest).context(place)?;
        packing.seen.remember_fetched(&file.url, digest);
        if let Some(known) = layer.known(&digest) {
            return Ok(known);
        }
        let start = start_of(&mut spooled).or_io(place)?;
        spooled.rewind().or_io(place)?;
        return layer.write(&mut spooled, &start, digest, size).context(place);
    };
    let start = start_of(&mut reader).or_io(place)?;
    if layer.compression(&start) == Compression::None {
        drop(reader);
        let blob = Descriptor::new("application/octet-stream", digest, size);
        let fetched = layer.fetch(&blob, &source, &task);
        return fetched.map_err(|error| explain(file, error)).context(place);
    }
    let mut verified = VerifyingReader::new(task.reader(start.as_slice().chain(reader)), digest, size);
    let written = layer.write(&mut verified, &start, digest, size);
    written.map_err(|error| explain(file, error)).context(place)
}

/// A layer that holds one file.
struct RemoteLayer<'b> {
    packing: &'b Packing<'b>,
    path: &'b str,
    mode: u32,
    ownership: Ownership,
}

impl RemoteLayer<'_> {
    fn key(&self, digest: &Digest) -> Digest {
        let Ownership { uid, gid, .. } = self.ownership;
        let Packing { mtime, compression, .. } = self.packing;
        let (path, mode) = (self.path, self.mode);
        Digest::of(format!("file layer 1 {digest} {path} {mode:o} {uid} {gid} {mtime} {compression}").as_bytes())
    }

    fn known(&self, digest: &Digest) -> Option<Packed> {
        let layer = self.packing.known_layer(&self.key(digest))?;
        Some(Packed { layer, cached: true })
    }

    /// What is packed already is not packed again.
    fn compression(&self, start: &[u8]) -> Compression {
        if PACKED.iter().any(|magic| start.starts_with(magic)) {
            return Compression::None;
        }
        self.packing.compression
    }

    fn entry(&self, size: u64) -> Entry<'_> {
        Entry {
            path: self.path,
            kind: EntryKind::File { size },
            mode: self.mode,
            uid: self.ownership.uid,
            gid: self.ownership.gid,
            mtime: self.packing.mtime,
            xattrs: &[],
        }
    }

    /// Straight from the network into the store, and on from where an earlier try was cut off.
    fn fetch(&self, blob: &Descriptor, source: &FileSource, task: &Task<'_>) -> Result<Packed> {
        let envelope = layer::envelope(&self.entry(blob.size))?;
        let (digest, size) = self.packing.store.fetch_enveloped(blob, &envelope, source, task)?;
        let layer = PackedLayer::new(Compression::None, digest, size, digest, size);
        self.remember(layer, &blob.digest)
    }

    fn write(&self, content: &mut dyn Read, start: &[u8], digest: Digest, size: u64) -> Result<Packed> {
        let writer = LayerWriter::new(self.packing.store, self.compression(start))?;
        let mut tar = TarWriter::new(writer);
        tar.append_file(&self.entry(size), content, &mut vec![0; BUFFER])?;
        self.remember(tar.finish()?.finish()?, &digest)
    }

    fn remember(&self, layer: PackedLayer, content: &Digest) -> Result<Packed> {
        let listing = Listing(vec![(self.path.to_owned(), Listed::File)]);
        let cache = self.packing.cache;
        cache.remember_listing(&layer.descriptor.digest, &listing)?;
        self.packing.remember_layer(&self.key(content), &layer)?;
        Ok(Packed { layer, cached: false })
    }
}

fn start_of(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(8).read_to_end(&mut start)?;
    Ok(start)
}

/// Reads everything into a file without a name: whatever happens, nothing is left of it.
fn spool(store: &Store, reader: &mut dyn Read) -> Result<(File, Digest, u64)> {
    let folder = store.path().join("partial");
    let place = || format!("cannot write to {}", folder.display());
    let mut file = tempfile::tempfile_in(&folder).or_io(place)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).or_io(|| "the download broke off"),
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes).or_io(place)?;
    }
    file.rewind().or_io(place)?;
    let size = hasher.size();
    Ok((file, hasher.finish(), size))
}
