//! ADD of a URL: the file goes from the network straight into a layer of its own, without a copy beside it.

use std::io::Read;

use sealrs_image::digest::{Digest, VerifyingReader};
use sealrs_image::error::{Context as _, IoResultExt as _, Result};
use sealrs_image::layer::{self, Compression, Entry, EntryKind, LayerWriter, PackedLayer, TarWriter};
use sealrs_image::progress::Task;
use sealrs_image::remote::{Client, FileSource, shown};
use sealrs_image::spec::Descriptor;

use crate::contents::{Contents, FileSource as Bytes, Item};
use crate::context::Ownership;
use crate::download;
use crate::kubefile::RemoteFile;
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

/// Fetches `file` into a layer that holds it at `path`.
pub(crate) fn pack(
    packing: &Packing<'_>,
    client: &Client,
    file: &RemoteFile,
    path: &str,
    mode: u32,
    ownership: Ownership,
) -> Result<Packed> {
    let fetch = || {
        let (digest, size) = download::fetch(client, packing.store, file, packing.progress)?;
        let mut item = Item::file(Bytes::Stored { digest, size }, mode);
        (item.uid, item.gid) = (ownership.uid, ownership.gid);
        let mut contents = Contents::default();
        contents.put(path, item)?;
        packing.pack(&contents, path)
    };
    // Without a digest there is no telling whether the layer is known, nor whether what came is right.
    let Some(digest) = file.checksum else {
        return fetch();
    };
    let key = Digest::of(
        format!(
            "file layer 1 {digest} {path} {mode:o} {} {} {} {}",
            ownership.uid, ownership.gid, packing.mtime, packing.compression
        )
        .as_bytes(),
    );
    if packing.use_cache
        && let Some(layer) = packing.cache.layer(&key)
        && packing.store.has(&layer.descriptor.digest)
    {
        return Ok(Packed { layer, cached: true });
    }
    let place = || format!("cannot fetch {}", shown(&file.url));
    let source = FileSource::new(client.clone(), &file.url)?;
    let (mut reader, size) = source.start().context(place)?;
    // A tar's header tells the size, so a server that doesn't leaves only the long way.
    let Some(size) = size else {
        return fetch();
    };
    let task = Task::begin(packing.progress, &format!("fetching {}", shown(&file.url)), Some(size));
    let mut start = Vec::new();
    (&mut reader).take(8).read_to_end(&mut start).or_io(place)?;
    let blob = Descriptor::new("application/octet-stream", digest, size);
    let entry = Entry {
        path,
        kind: EntryKind::File { size },
        mode,
        uid: ownership.uid,
        gid: ownership.gid,
        mtime: packing.mtime,
        xattrs: &[],
    };
    let is_packed = PACKED.iter().any(|magic| start.starts_with(magic));
    let layer = if is_packed || packing.compression == Compression::None {
        drop(reader);
        let envelope = layer::envelope(&entry)?;
        let (digest, size) = packing
            .store
            .fetch_enveloped(&blob, &envelope, &source, &task)
            .context(place)?;
        PackedLayer::new(Compression::None, digest, size, digest, size)
    } else {
        let whole = start.as_slice().chain(reader);
        let mut verified = VerifyingReader::new(task.reader(whole), digest, size);
        let mut tar = TarWriter::new(LayerWriter::new(packing.store, packing.compression)?);
        tar.append_file(&entry, &mut verified, &mut vec![0; BUFFER])
            .context(place)?;
        tar.finish()?.finish()?
    };
    packing.cache.remember_layer(&key, &layer)?;
    Ok(Packed { layer, cached: false })
}
