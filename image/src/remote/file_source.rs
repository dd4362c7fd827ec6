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
#[derive(Debug, Clone)]
pub struct FileSource {
    client: Client,
    url: Url,
}

/// How often in a row a connection may break without bringing anything.
const PATIENCE: u32 = 5;

/// Reads such a file, connecting again where the connection broke.
#[derive(Debug)]
pub struct FileReader {
    source: FileSource,
    /// None when the connection broke.
    response: Option<Response>,
    pending: Bytes,
    /// How many bytes come before those that we want: the server knows no ranges.
    skip: u64,
    /// Where in the file the next byte is.
    position: u64,
    failed: u32,
}

impl FileSource {
    /// The file behind `url`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it is no `http://` or `https://` URL.
    pub fn new(client: Client, url: &str) -> Result<Self> {
        let parsed = Url::parse(url).or_fail(ErrorKind::Input, || format!("`{}` is not a URL", url.escape_debug()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{url}` is neither http nor https"),
            ));
        }
        Ok(Self { client, url: parsed })
    }

    /// Starts reading at the beginning. Gives the file's size in bytes as well, if the server tells.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Network`].
    pub fn start(&self) -> Result<(FileReader, Option<u64>)> {
        let reader = self.connect(0)?;
        let headers = reader.response.as_ref().map(Response::headers);
        let size = headers
            .and_then(|headers| headers.get(CONTENT_LENGTH))
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
            source: self.clone(),
            response: Some(response),
            pending: Bytes::new(),
            skip,
            position: offset,
            failed: 0,
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

impl FileReader {
    /// Waits for the next piece; none at the file's end.
    fn advance(&mut self) -> Result<Option<Bytes>> {
        loop {
            let client = &self.source.client;
            let Some(response) = &mut self.response else {
                let again = self.source.connect(self.position)?;
                self.response = again.response;
                self.skip = again.skip;
                continue;
            };
            match client.block_on(client.wire().chunk(response)) {
                Ok(None) => return Ok(None),
                Ok(Some(mut chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
                    if !chunk.is_empty() {
                        self.failed = 0;
                        self.position += chunk.len() as u64;
                        return Ok(Some(chunk));
                    }
                }
                Err(failure) if self.failed < PATIENCE => {
                    drop(failure);
                    self.failed += 1;
                    self.response = None;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pending.is_empty() && !buffer.is_empty() {
            match self.advance()? {
                None => return Ok(0),
                Some(chunk) => self.pending = chunk,
            }
        }
        let read = self.pending.len().min(buffer.len());
        self.pending.copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
        Ok(read)
    }
}
