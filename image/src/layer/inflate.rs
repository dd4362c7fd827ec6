//! Unpacks what gzip or zstd packed, while it is read. Layers and tars of the build context come through here alike.

use std::io::{self, BufRead, Read};

use super::Compression;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::spec::media_type;

/// The largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd --long` makes.
const MAX_WINDOW_LOG: u32 = 27;

impl Compression {
    /// How a layer of this media type is packed.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when the type is no layer's.
    pub fn of_layer(media_type: &str) -> Result<Self> {
        match media_type {
            media_type::LAYER => Ok(Self::None),
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok(Self::Gzip),
            media_type::LAYER_ZSTD => Ok(Self::Zstd),
            other => Err(Error::new(
                ErrorKind::Integrity,
                format!("the layer's media type `{other}` is not known"),
            )
            .hint("layers are plain tars, or packed with gzip or zstd")),
        }
    }

    /// How a file with these first bytes is packed.
    #[must_use]
    pub fn of_start(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The unpacked bytes of `packed`, whose damage is an [`ErrorKind::Integrity`] in the reader's errors.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when there is no memory for it.
    pub fn inflater<'r>(self, packed: impl BufRead + Send + 'r) -> Result<Box<dyn Read + Send + 'r>> {
        let place = || "cannot start to unpack";
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(Inflating(flate2::bufread::MultiGzDecoder::new(packed))),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed).or_io(place)?;
                decoder.window_log_max(MAX_WINDOW_LOG).or_io(place)?;
                Box::new(Inflating(decoder))
            }
        })
    }
}

/// An inflater's own errors mean damaged bytes; those of what it reads from come out as they are.
struct Inflating<R>(R);

impl<R: Read> Read for Inflating<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let ours = error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>);
            if ours || error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let damaged = Error::new(ErrorKind::Integrity, "the packed bytes are damaged or cut off").because(error);
            damaged.hint("copy the file again from where it came").into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use super::*;
    use crate::testing::noise;

    fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => bytes.to_vec(),
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn unpacked(compression: Compression, packed: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = compression.inflater(packed)?;
        reader.read_to_end(&mut bytes).or_io(|| "cannot read")?;
        Ok(bytes)
    }

    #[test]
    fn what_was_packed_comes_out_and_damage_is_told() {
        let bytes = [noise(100_000, 1), vec![7; 100_000]].concat();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let whole = packed(compression, &bytes);
            assert_eq!(Compression::of_start(&whole), compression);
            // Several members or frames are one file.
            let twice = [whole.clone(), whole.clone()].concat();
            assert!(unpacked(compression, &twice).unwrap() == [bytes.clone(), bytes.clone()].concat());
            if compression == Compression::None {
                continue;
            }
            let mut wrong = whole.clone();
            if compression == Compression::Gzip {
                // The check sum and the size stand at the end.
                let at = wrong.len() - 6;
                wrong[at] ^= 1;
            } else {
                wrong[100] ^= 0xff;
                wrong.truncate(whole.len() - 10);
            }
            let garbage = [whole.get(..4).unwrap(), &noise(1000, 2)].concat();
            for damaged in [wrong.as_slice(), &whole[..whole.len() / 2], &garbage] {
                let error = unpacked(compression, damaged).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
            }
        }
    }

    #[test]
    fn errors_of_the_input_are_not_damage() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut reader = compression.inflater(BufReader::new(Failing)).unwrap();
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5));
        }
    }
}
