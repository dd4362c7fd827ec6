//! Layers: writing them so that the same input gives the same digest on any machine, and packing them.

mod inflate;
mod pack;
mod tar_reader;
mod tar_writer;

pub use pack::{Compression, LayerWriter, PackedLayer};
pub use tar_reader::{Member, MemberKind, TarReader};
pub use tar_writer::{Entry, EntryKind, TarWriter};

use crate::error::Result;
use crate::store::Envelope;

/// Annotations that sealrs puts on the layer descriptors of a ClusterImage. Optional: a layer without them
/// is unpacked all the same.
pub mod annotation {
    /// The size of the unpacked tar in bytes: for the disk budget, and as a bound while unpacking.
    pub const UNPACKED: &str = "dev.sealrs.layer.unpacked";
    /// The layer holds this one file and nothing else, so it can be unpacked beside its neighbours.
    pub const FILE: &str = "dev.sealrs.layer.file";
    /// The blob of a container image that the layer's file is.
    pub const BLOB: &str = "dev.sealrs.layer.blob";
}

/// What stands before and after a file of `size` bytes in a layer that holds nothing else. The layer's digest
/// depends on path, mode and content alone.
///
/// # Errors
/// When `path` can't be written in a tar.
pub fn single_file(path: &str, mode: u32, size: u64) -> Result<Envelope> {
    envelope(&Entry {
        path,
        kind: EntryKind::File { size },
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: &[],
    })
}

/// What stands before and after the content of `entry`, a file, in a layer that holds nothing else.
///
/// # Errors
/// When its path can't be written in a tar.
pub fn envelope(entry: &Entry<'_>) -> Result<Envelope> {
    let size = match entry.kind {
        EntryKind::File { size } => size,
        _ => 0,
    };
    let mut before = TarWriter::new(Vec::new());
    before.header(entry)?;
    Ok(Envelope {
        before: before.into_inner(),
        after: vec![0u8; tar_writer::padding(size) + tar_writer::END],
    })
}
