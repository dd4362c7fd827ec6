//! Packs a layer while it is written: tar bytes in, packed bytes in the store, both digests on the way.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::thread::available_parallelism;

use super::annotation;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::spec::{Descriptor, media_type};
use crate::store::{BlobWriter, Store};

/// zstd's own default: on the payloads of this field it packs as well as gzip's best at eight times the speed.
const ZSTD_LEVEL: i32 = 3;
/// gzip is for old registries: its own default level.
const GZIP_LEVEL: u32 = 6;
/// Each worker takes about 12 MB, and eight of them are faster than one thread that hashes.
const MAX_WORKERS: u32 = 8;
/// The packers get blocks of this size whatever the caller writes, because their output depends on it.
const BLOCK: usize = 1 << 20;

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// zstd: the default.
    #[default]
    Zstd,
    /// gzip: for registries and tools that know no zstd.
    Gzip,
    /// Not at all.
    None,
}

impl Compression {
    /// The media type of such a layer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => media_type::LAYER_ZSTD,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::None => media_type::LAYER,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        })
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            "none" => Ok(Self::None),
            _ => {
                Err(Error::new(ErrorKind::Input, format!("`{text}` is not a compression"))
                    .hint("write zstd, gzip or none"))
            }
        }
    }
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Points to the packed layer; carries its unpacked size.
    pub descriptor: Descriptor,
    /// The digest of the unpacked tar.
    pub diff_id: Digest,
}

impl PackedLayer {
    /// A layer of this packing, whose tar has `unpacked` bytes.
    #[must_use]
    pub fn new(compression: Compression, digest: Digest, size: u64, diff_id: Digest, unpacked: u64) -> Self {
        let mut descriptor = Descriptor::new(compression.media_type(), digest, size);
        descriptor
            .annotations
            .insert(annotation::UNPACKED.to_owned(), unpacked.to_string());
        Self { descriptor, diff_id }
    }
}

/// Takes a layer's tar bytes and stores them packed. Dropped without [`LayerWriter::finish`], it leaves nothing.
pub struct LayerWriter {
    compression: Compression,
    unpacked: Hasher,
    block: Vec<u8>,
    packer: Packer,
}

enum Packer {
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
    Gzip(Box<flate2::write::GzEncoder<BlobWriter>>),
    Plain(Box<BlobWriter>),
}

impl fmt::Debug for LayerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerWriter({}, {} bytes)", self.compression, self.unpacked.size())
    }
}

impl LayerWriter {
    /// Starts a layer in `store`.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the store can't be written.
    pub fn new(store: &Store, compression: Compression) -> Result<Self> {
        let blob = store.create()?;
        let place = || "cannot start the packer";
        let packer = match compression {
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(blob, ZSTD_LEVEL).or_io(place)?;
                // One worker or many give the same bytes; none at all would give others.
                let cores = available_parallelism().map_or(1, std::num::NonZero::get);
                let workers = u32::try_from(cores).unwrap_or(1).clamp(1, MAX_WORKERS);
                encoder.multithread(workers).or_io(place)?;
                Packer::Zstd(Box::new(encoder))
            }
            Compression::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Packer::Gzip(Box::new(flate2::write::GzEncoder::new(blob, level)))
            }
            Compression::None => Packer::Plain(Box::new(blob)),
        };
        Ok(Self {
            compression,
            unpacked: Hasher::new(),
            block: Vec::with_capacity(BLOCK),
            packer,
        })
    }

    /// Ends the layer: packs what is left, syncs, names.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the store can't be written.
    pub fn finish(mut self) -> Result<PackedLayer> {
        let place = || "cannot pack a layer";
        self.pack_block().or_io(place)?;
        let blob = match self.packer {
            Packer::Zstd(encoder) => encoder.finish().or_io(place)?,
            Packer::Gzip(encoder) => encoder.finish().or_io(place)?,
            Packer::Plain(blob) => *blob,
        };
        let (digest, size) = blob.finish()?;
        let unpacked = self.unpacked.size();
        Ok(PackedLayer::new(
            self.compression,
            digest,
            size,
            self.unpacked.finish(),
            unpacked,
        ))
    }

    fn pack_block(&mut self) -> io::Result<()> {
        self.unpacked.update(&self.block);
        match &mut self.packer {
            Packer::Zstd(encoder) => encoder.write_all(&self.block)?,
            Packer::Gzip(encoder) => encoder.write_all(&self.block)?,
            Packer::Plain(blob) => blob.write_all(&self.block)?,
        }
        self.block.clear();
        Ok(())
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        if self.block.len() == BLOCK {
            self.pack_block()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::noise;

    const ALL: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

    fn pack(compression: Compression, bytes: &[u8], chunk: usize) -> (PackedLayer, Vec<u8>) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut writer = LayerWriter::new(&store, compression).unwrap();
        for piece in bytes.chunks(chunk) {
            writer.write_all(piece).unwrap();
        }
        let layer = writer.finish().unwrap();
        let packed = std::fs::read(store.blob_path(&layer.descriptor.digest)).unwrap();
        assert_eq!(std::fs::read_dir(store.path().join("partial")).unwrap().count(), 0);
        (layer, packed)
    }

    fn unpack(compression: Compression, packed: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match compression {
            Compression::Zstd => bytes = zstd::decode_all(packed).unwrap(),
            Compression::Gzip => drop(
                flate2::read::MultiGzDecoder::new(packed)
                    .read_to_end(&mut bytes)
                    .unwrap(),
            ),
            Compression::None => bytes.extend_from_slice(packed),
        }
        bytes
    }

    /// Text that packs, noise that does not, zeros; several jobs of zstd and a rest.
    fn payload() -> Vec<u8> {
        let mut bytes = noise(1 << 20, 1);
        for at in 0..100_000u32 {
            bytes.extend_from_slice(format!("line {at} of a file\n").as_bytes());
        }
        bytes.resize(bytes.len() + (14 << 20), 0);
        bytes.extend_from_slice(&noise(777, 2));
        bytes
    }

    #[test]
    fn the_size_of_the_writes_does_not_show() {
        let bytes = payload();
        for compression in ALL {
            let (whole, packed) = pack(compression, &bytes, bytes.len());
            assert_eq!(whole.diff_id, Digest::of(&bytes));
            assert_eq!(whole.descriptor.digest, Digest::of(&packed));
            assert_eq!(whole.descriptor.size, packed.len() as u64);
            assert_eq!(whole.descriptor.media_type, compression.media_type());
            assert_eq!(
                whole.descriptor.annotations.get(annotation::UNPACKED),
                Some(&bytes.len().to_string())
            );
            assert!(unpack(compression, &packed) == bytes);
            for chunk in [997, BLOCK - 1, BLOCK + 1] {
                let (again, _) = pack(compression, &bytes, chunk);
                assert_eq!(again, whole, "{compression} in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn the_edges_of_blocks_are_kept() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK] {
            let bytes = noise(size, 3);
            for compression in ALL {
                let (layer, packed) = pack(compression, &bytes, 100_000);
                assert!(unpack(compression, &packed) == bytes, "{compression} {size}");
                assert_eq!(layer.diff_id, Digest::of(&bytes));
            }
        }
    }

    /// Where layers are packed must not show either: machines differ in their cores.
    #[test]
    fn the_number_of_workers_does_not_show() {
        let bytes = payload();
        let pack = |workers: u32| {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
            encoder.multithread(workers).unwrap();
            for block in bytes.chunks(BLOCK) {
                encoder.write_all(block).unwrap();
            }
            Digest::of(&encoder.finish().unwrap())
        };
        let one = pack(1);
        for workers in [2, 3, 16, 64] {
            assert_eq!(pack(workers), one, "{workers} workers");
        }
        assert_eq!(
            super::tests::pack(Compression::Zstd, &bytes, BLOCK).0.descriptor.digest,
            one
        );
    }

    /// The same input gives these digests on any machine. When a packer's new version changes them, every layer that
    /// was built before is built and shipped anew: a thing to know and to write into the change log.
    #[test]
    fn digests_are_those_of_the_last_release() {
        let bytes = payload();
        for (compression, expected) in [
            (Compression::Zstd, "86375d5f2a8e"),
            (Compression::Gzip, "82d56b4d3cec"),
            (Compression::None, "149dc9745196"),
        ] {
            let (layer, _) = pack(compression, &bytes, BLOCK);
            assert_eq!(layer.descriptor.digest.short(), expected, "{compression}");
        }
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for compression in ALL {
            let mut writer = LayerWriter::new(&store, compression).unwrap();
            writer.write_all(&noise(3 << 20, 4)).unwrap();
        }
        for folder in ["partial", "blobs/sha256"] {
            assert_eq!(std::fs::read_dir(store.path().join(folder)).unwrap().count(), 0);
        }
    }
}
