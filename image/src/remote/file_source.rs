//! A file of any web server as a source: what ADD and APP name by URL.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_LENGTH, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};

use crate::error::{Context as _, Error, ErrorKind, Result, ResultExt as _};
use crate::remote::client::Client;
use crate::remote::endpoint::host_of;
use crate::remote::failure::Failure;
use crate::remote::wire::Call;
use crate::source::Source;
use crate::spec::Descriptor;

/// One file behind a URL. No credentials are sent.
#[derive(Debug)]
pub struct FileSource {
    client: Client,
    url: Url,
}

/// Reads such a file. Unlike a blob's reader it does not connect again: whoever copies continues where it stopped.
#[derive(Debug)]
pub struct FileReader {
    client: Client,
    response: Response,
    pending: Bytes,
    /// How many bytes come before those that we want: the server knows no ranges.
    skip: u64,
}

impl FileSource {
    /// The file behind `url`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it is no `http://` or `https://` URL.
    pub fn new(client: Client, url: &str) -> Result<Self> {
        let parsed = Url::parse(url).or_fail(ErrorKind::Input, || {
            format!("`{}` is not a URL", url.escape_debug())
        })?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{url}` is neither http nor https"),
            ));
        }
        Ok(Self {
            client,
            url: parsed,
        })
    }

    /// Starts reading at the beginning. Gives the file's size in bytes as well, if the server tells.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Network`].
    pub fn start(&self) -> Result<(FileReader, Option<u64>)> {
        let reader = self.connect(0)?;
        let size = reader
            .response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Ok((reader, size))
    }

    fn connect(&self, offset: u64) -> Result<FileReader> {
        let wire = self.client.wire();
        let connected = self.client.block_on(self.client.backoff().run(async || {
            let mut call = Call::get(self.url.clone());
            if offset > 0 {
                let range = HeaderValue::try_from(format!("bytes={offset}-"))
                    .or_fail(ErrorKind::Internal, || "cannot write the range")?;
                call = call.header(RANGE, range);
            }
            let response = wire.send(&call, None).await?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT if offset > 0 => Ok((response, 0)),
                StatusCode::OK => Ok((response, offset)),
                status if status.is_success() => {
                    let what = format!("{} answers {status}, which is no file", host_of(&self.url));
                    Err(Failure::from(Error::new(ErrorKind::Network, what)))
                }
                _ => Err(wire.refusal(response).await),
            }
        }));
        let (response, skip) = connected.context(|| format!("cannot get {}", self.url))?;
        Ok(FileReader {
            client: self.client.clone(),
            response,
            pending: Bytes::new(),
            skip,
        })
    }
}

impl Source for FileSource {
    fn origin(&self) -> String {
        self.url.to_string()
    }

    fn open<'a>(&'a self, _: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(self.connect(offset)?))
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() && !buffer.is_empty() {
            let client = self.client.clone();
            let chunk = client.block_on(client.wire().chunk(&mut self.response));
            match chunk.map_err(|failure| failure.error)? {
                None => return Ok(0),
                Some(mut chunk) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
                    self.pending = chunk;
                }
            }
        }
        let read = self.pending.len().min(buffer.len());
        self.pending
            .copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
        Ok(read)
    }
}
