//! A file of any web server as a source: what ADD and APP name by URL.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode, Url};

use crate::error::{Context as _, Error, ErrorKind, Result, ResultExt as _};
use crate::remote::blob_reader::content_range;
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
    /// The URL as it may be shown: what follows a `?` may be a secret.
    shown: String,
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
    /// The size of the file and what tells this version of it from others, as the first answer had them.
    version: Version,
    failed: u32,
}

/// What must not change from one connection to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Version {
    size: Option<u64>,
    tag: Option<HeaderValue>,
}

/// A URL without its query, which may hold a token.
#[must_use]
pub fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
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
        Ok(Self {
            client,
            shown: shown(url).to_owned(),
            url: parsed,
        })
    }

    /// Starts reading at the beginning. Gives the file's size in bytes as well, if the server tells.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Network`].
    pub fn start(&self) -> Result<(FileReader, Option<u64>)> {
        let reader = self.connect(0)?;
        let size = reader.version.size;
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
                StatusCode::PARTIAL_CONTENT if offset > 0 => match range(&response) {
                    Some((first, total)) if first == offset => {
                        let version = version(&response, total);
                        Ok((response, 0, version))
                    }
                    _ => {
                        let what = format!(
                            "{} sends another part of the file than was asked for",
                            host_of(&self.url)
                        );
                        Err(Failure::from(Error::new(ErrorKind::Integrity, what)))
                    }
                },
                StatusCode::OK => {
                    let size = header(&response, CONTENT_LENGTH).and_then(|length| length.parse().ok());
                    let version = version(&response, size);
                    Ok((response, offset, version))
                }
                status if status.is_success() => {
                    let what = format!("{} answers {status}, which is no file", host_of(&self.url));
                    Err(Failure::from(Error::new(ErrorKind::Network, what)))
                }
                _ => Err(wire.refusal(response).await),
            }
        }));
        let (response, skip, version) = connected.context(|| format!("cannot get {}", self.shown))?;
        Ok(FileReader {
            source: self.clone(),
            response: Some(response),
            pending: Bytes::new(),
            skip,
            position: offset,
            version,
            failed: 0,
        })
    }
}

impl Source for FileSource {
    fn origin(&self) -> String {
        self.shown.clone()
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
                if again.version != self.version {
                    return Err(Error::new(
                        ErrorKind::Integrity,
                        format!("{} changed while it was fetched", self.source.shown),
                    )
                    .hint("run the same command again"));
                }
                self.response = again.response;
                self.skip = again.skip;
                continue;
            };
            match client.block_on(client.wire().chunk(response)) {
                Ok(None) if self.version.size.is_none_or(|size| size == self.position) => return Ok(None),
                Ok(None) => {
                    return Err(Error::new(
                        ErrorKind::Integrity,
                        format!("{} ended after {} bytes", self.source.shown, self.position),
                    )
                    .hint("the server or something on the way to it is damaged; run the same command again"));
                }
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

fn header(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte and the total of a partial answer.
fn range(response: &Response) -> Option<(u64, Option<u64>)> {
    let (first, _, total) = content_range(header(response, CONTENT_RANGE)?)?;
    Some((first, total))
}

fn version(response: &Response, size: Option<u64>) -> Version {
    let headers = response.headers();
    Version {
        size,
        tag: headers.get(ETAG).or_else(|| headers.get(LAST_MODIFIED)).cloned(),
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
