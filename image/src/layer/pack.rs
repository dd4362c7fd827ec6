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
            _ => Err(
                Error::new(ErrorKind::Input, format!("`{text}` is not a compression"))
                    .hint("write zstd, gzip or none"),
            ),
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
    pub fn new(
        compression: Compression,
        digest: Digest,
        size: u64,
        diff_id: Digest,
        unpacked: u64,
    ) -> Self {
        let mut descriptor = Descriptor::new(compression.media_type(), digest, size);
        descriptor
            .annotations
            .insert(annotation::UNPACKED.to_owned(), unpacked.to_string());
        Self {
            descriptor,
            diff_id,
        }
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
        write!(
            f,
            "LayerWriter({}, {} bytes)",
            self.compression,
            self.unpacked.size()
        )
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
                let workers = u32::try_from(cores).unwrap_or(1).clamp(1, 64);
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
