//! Where blobs come from: the store, an archive, a registry.

use std::fs::File;
use std::io::Read;

use crate::digest::VerifyingReader;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::reference::Reference;
use crate::spec::{Descriptor, MAX_DOCUMENT};

/// A place that blobs can be read from.
pub trait Source: Send + Sync {
    /// Names the place in messages: ``archive `k3s.tar` ``, `the store`, `registry quay.io`.
    fn origin(&self) -> String;

    /// The repository of a registry that it is: another repository there may take blobs over without their bytes moving.
    fn repository(&self) -> Option<&Reference> {
        None
    }

    /// Whether blobs have to be opened one after the other, in the order in which `save` writes them: a pipe.
    fn is_sequential(&self) -> bool {
        false
    }

    /// When a blob's turn is among those that are best opened one after the other, since reading one means reading over
    /// all before it: files in a packed layer. None for a blob that can be opened at any time.
    fn turn(&self, _blob: &Descriptor) -> Option<u64> {
        None
    }

    /// The file that the blob lies in on this machine, if it lies whole in one: whoever writes its bytes again can have the
    /// file system share them.
    fn extent(&self, _blob: &Descriptor) -> Option<Extent> {
        None
    }

    /// The bytes of a blob from `offset` on, as the place gives them: the caller verifies.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the place lacks the blob, and whatever reading it may meet.
    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>>;
}

/// Where a blob lies in a file.
#[derive(Debug)]
pub struct Extent {
    /// The file, open for reading.
    pub file: File,
    /// Where the blob begins, in bytes.
    pub offset: u64,
}

/// A blob in memory from `offset` on.
pub(crate) fn rest(bytes: &[u8], offset: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    bytes.get(start..).unwrap_or_default()
}

/// Reads a whole small blob (an index, a manifest, a config) and verifies it.
///
/// # Errors
/// [`ErrorKind::Integrity`] when it is larger than [`MAX_DOCUMENT`] or not what its descriptor says.
pub fn document(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let place = || format!("cannot read {} of {}", descriptor.digest, source.origin());
    if descriptor.size > MAX_DOCUMENT {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!(
                "{} of {} says it has {} bytes, more than an OCI document may have ({MAX_DOCUMENT})",
                descriptor.digest,
                source.origin(),
                descriptor.size
            ),
        ));
    }
    let mut bytes = Vec::new();
    let reader = source.open(descriptor, 0)?;
    VerifyingReader::new(reader, descriptor.digest, descriptor.size)
        .read_to_end(&mut bytes)
        .or_io(place)?;
    Ok(bytes)
}
