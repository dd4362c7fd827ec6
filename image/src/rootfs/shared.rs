//! Has the file system share blocks of two files instead of storing them twice: Btrfs, XFS, bcachefs and others can.

use std::fs::File;
use std::num::NonZeroU64;

use reflink_copy::ReflinkBlockBuilder;

use crate::source::Extent;

/// File systems share whole blocks, which have this size on nearly all of them: where they are larger, nothing is shared.
const BLOCK: u64 = 4096;

/// The content of a file within another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks<'e> {
    file: &'e File,
    offset: u64,
    size: u64,
}

impl<'e> Blocks<'e> {
    /// `size` bytes from `offset` on within what lies at `extent`.
    pub(super) fn of(extent: &'e Extent, offset: u64, size: u64) -> Self {
        Self {
            file: &extent.file,
            offset: extent.offset.saturating_add(offset),
            size,
        }
    }

    /// Makes the start of `file`, which is empty, the same blocks, and returns of how many bytes. Of none when the
    /// file system can't, when the files are on two of them, or when the content doesn't begin with a block.
    pub(super) fn share_with(self, file: &File) -> u64 {
        let whole = NonZeroU64::new(self.size - self.size % BLOCK);
        let Some(whole) = whole.filter(|_| self.offset.is_multiple_of(BLOCK)) else {
            return 0;
        };
        let shared = ReflinkBlockBuilder::new(self.file, file, whole)
            .from_offset(self.offset)
            .to_offset(0)
            .reflink_block();
        shared.map_or(0, |()| whole.get())
    }
}
