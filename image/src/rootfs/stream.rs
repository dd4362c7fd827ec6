//! Unpacks a layer's stream beside the thread that writes its files: one core inflates and hashes while the
//! other creates files.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::spec::media_type;

/// Blocks on their way from one thread to the other: enough to even out, little enough not to matter in memory.
const BLOCKS: usize = 8;
const BLOCK: usize = 1 << 20;
/// The largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd --long` makes.
const MAX_WINDOW_LOG: u32 = 27;

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
    let inflate = inflater(media_type)?;
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BLOCKS);
        let producer = scope.spawn(move || produce(packed, inflate, diff_id, bound, &sender));
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

#[derive(Debug, Clone, Copy)]
enum Inflate {
    Zstd,
    Gzip,
    Nothing,
}

fn inflater(media_type: &str) -> Result<Inflate> {
    match media_type {
        media_type::LAYER => Ok(Inflate::Nothing),
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok(Inflate::Gzip),
        media_type::LAYER_ZSTD => Ok(Inflate::Zstd),
        other => Err(Error::new(
            ErrorKind::Integrity,
            format!("the layer's media type `{other}` is not known"),
        )
        .hint("layers are plain tars, or packed with gzip or zstd")),
    }
}

fn produce(
    mut packed: impl Read,
    inflate: Inflate,
    diff_id: Digest,
    bound: Option<u64>,
    sender: &SyncSender<Vec<u8>>,
) -> Result<()> {
    let place = || "cannot inflate the layer";
    let mut hasher = Hasher::new();
    {
        let buffered = BufReader::with_capacity(BLOCK, &mut packed);
        let mut tar: Box<dyn Read + '_> = match inflate {
            Inflate::Nothing => Box::new(buffered),
            Inflate::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
            Inflate::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(buffered).or_io(place)?;
                decoder.window_log_max(MAX_WINDOW_LOG).or_io(place)?;
                Box::new(decoder)
            }
        };
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            (&mut tar).take(BLOCK as u64).read_to_end(&mut block).map_err(damaged)?;
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
    io::copy(&mut packed, &mut io::sink()).map_err(damaged)?;
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

/// An inflater's own errors mean damaged bytes; ours travel through it and come out whole.
fn damaged(error: io::Error) -> Error {
    let ours = error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>);
    let disk = error.raw_os_error().is_some();
    let failure = Err::<(), _>(error).or_io(|| "cannot inflate the layer");
    match failure {
        Err(error) if ours || disk => error,
        Err(error) => Error::new(ErrorKind::Integrity, "the layer is damaged").because(error),
        Ok(()) => Error::new(ErrorKind::Internal, "a failure was lost"),
    }
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
