//! Unpacks a layer's stream beside the thread that writes its files: one core inflates and hashes while the
//! other creates files.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::layer::Compression;

/// Blocks on their way from one thread to the other: enough to even out, little enough not to matter in memory.
const BLOCKS: usize = 8;
const BLOCK: usize = 1 << 20;

/// Gives `consume` the unpacked bytes of a layer and checks afterwards that they were those of `diff_id`.
///
/// # Errors
/// What `consume` meets; [`ErrorKind::Integrity`] when the packed or the unpacked bytes are not what they should be
/// or are more than `bound`.
pub fn unpacked(
    packed: impl Read + Send,
    media_type: &str,
    diff_id: Digest,
    bound: Option<u64>,
    consume: impl FnOnce(&mut dyn Read) -> Result<()>,
) -> Result<()> {
    let compression = Compression::of_layer(media_type)?;
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BLOCKS);
        let producer = scope.spawn(move || produce(packed, compression, diff_id, bound, &sender));
        let mut reader = BlockReader::new(receiver);
        let consumed = consume(&mut reader);
        // A consumer that failed hangs up, which ends the producer.
        drop(reader);
        let produced = producer
            .join()
            .map_err(|_| Error::new(ErrorKind::Internal, "the thread that inflates a layer died"))?;
        // The producer knows why the consumer's input ended early.
        match (produced, consumed) {
            (Err(error), _) if error.kind() != ErrorKind::Internal => Err(error),
            (_, consumed @ Err(_)) => consumed,
            (produced, Ok(())) => produced,
        }
    })
}

fn produce(
    mut packed: impl Read + Send,
    compression: Compression,
    diff_id: Digest,
    bound: Option<u64>,
    sender: &SyncSender<Vec<u8>>,
) -> Result<()> {
    let place = || "cannot unpack the layer";
    let mut hasher = Hasher::new();
    {
        let buffered = BufReader::with_capacity(BLOCK, &mut packed);
        let mut tar = compression.inflater(buffered)?;
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            (&mut tar).take(BLOCK as u64).read_to_end(&mut block).or_io(place)?;
            if block.is_empty() {
                break;
            }
            hasher.update(&block);
            if bound.is_some_and(|bound| hasher.size() > bound) {
                return Err(Error::new(
                    ErrorKind::Integrity,
                    "the layer unpacks to more bytes than its descriptor says",
                ));
            }
            if sender.send(block).is_err() {
                // The consumer has failed and will say why.
                return Err(Error::new(ErrorKind::Internal, "the layer's consumer hung up"));
            }
        }
    }
    // Bytes after the last frame belong to the blob as well: the digest is over all of it.
    io::copy(&mut packed, &mut io::sink()).or_io(place)?;
    let found = hasher.finish();
    if found != diff_id {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!("the unpacked layer has the digest {found} where the image's config says {diff_id}"),
        )
        .hint("the image was built wrongly or tampered with"));
    }
    Ok(())
}

/// Reads the blocks that another thread sends.
struct BlockReader {
    blocks: Receiver<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl BlockReader {
    fn new(blocks: Receiver<Vec<u8>>) -> Self {
        Self {
            blocks,
            current: Vec::new(),
            position: 0,
        }
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            match self.blocks.recv() {
                Ok(block) => {
                    self.current = block;
                    self.position = 0;
                }
                Err(_) => return Ok(0),
            }
        }
        let rest = self.current.get(self.position..).unwrap_or_default();
        let taken = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..taken), rest.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.position += taken;
        Ok(taken)
    }
}
