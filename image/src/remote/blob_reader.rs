//! A blob from a registry as one stream, however often its connection breaks.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::task::JoinHandle;

use crate::error::{Context as _, Error, ErrorKind, Result, ResultExt as _};
use crate::reference::Reference;
use crate::remote::auth::Access;
use crate::remote::client::Client;
use crate::remote::endpoint::host_of;
use crate::remote::failure::{Again, Failure};
use crate::remote::gate::Permit;
use crate::remote::wire::Call;
use crate::spec::Descriptor;

/// A connection that brought at least this many bytes is replaced at once when it breaks, another one after a pause.
const WORTH_IT: u64 = 64 << 10;

/// A blob of which at least this much is to come is asked for in segments.
const WORTH_SPLITTING: u64 = 4 * SEGMENT;

/// The size of a segment, in bytes. As many are held in memory as there are connections to the host.
const SEGMENT: u64 = 8 << 20;

/// How many segments of one blob come ahead: more would only fill the memory.
const MAX_AHEAD: usize = 7;

/// Reads a blob from an offset to its end: exactly as many bytes as its descriptor promises, or an error that names it.
///
/// A large one comes in segments, over as many connections as the host has to spare at the moment: one connection's
/// speed is often bounded by the way there. Whether they are the right bytes, the caller verifies.
pub struct BlobReader {
    client: Client,
    repository: Reference,
    blob: Descriptor,
    /// How many bytes of the blob were read, those before the offset included.
    position: u64,
    /// Where reading ends: the blob's end, or that of a segment.
    until: u64,
    /// What came and was not read yet, oldest first.
    pending: VecDeque<Bytes>,
    connection: Option<Connection>,
    /// Whether the blob comes in segments. Servers that know no ranges send all of it.
    split: bool,
    /// Segments that come meanwhile, in their order.
    ahead: VecDeque<Segment>,
    /// The right to connect, kept to the end: who breaks off must not wait for the segments that wait for him.
    permit: Option<Permit>,
    /// Where the blob stood when the connection began.
    began: u64,
    /// Failures in a row in which nothing came.
    failed: u32,
}

/// A part of the blob that is read by a task of its own.
struct Segment {
    from: u64,
    until: u64,
    /// The permit comes along: as many segments are in memory as there are permits.
    task: JoinHandle<Result<(VecDeque<Bytes>, Option<Permit>)>>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response whose body is (a part of) the blob.
struct Connection {
    response: Response,
    /// How many bytes come before those that we want: the server knows no ranges.
    skip: u64,
    /// Where in the blob the body ends.
    end: u64,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobReader({} at {})", self.blob.digest, self.position)
    }
}

impl BlobReader {
    pub(super) fn open(client: &Client, repository: Reference, blob: Descriptor, offset: u64) -> Result<Self> {
        let size = blob.size;
        let mut reader = Self {
            client: client.clone(),
            repository,
            blob,
            position: offset,
            until: size,
            pending: VecDeque::new(),
            connection: None,
            split: size.saturating_sub(offset) >= WORTH_SPLITTING,
            ahead: VecDeque::new(),
            permit: None,
            began: offset,
            failed: 0,
        };
        if offset > size {
            let what = format!("{} has {size} bytes: there is no byte {offset}", reader.place());
            return Err(Error::new(ErrorKind::Internal, what));
        }
        if offset < size {
            let connected = client.block_on(client.backoff().run(async || reader.connect().await));
            reader.connection = Some(connected.context(|| reader.place())?);
        }
        Ok(reader)
    }

    /// Reads `from..until` to its end, with the right to one connection.
    fn read_ahead(&self, from: u64, until: u64, permit: Permit) -> Segment {
        let mut reader = Self {
            client: self.client.clone(),
            repository: self.repository.clone(),
            blob: self.blob.clone(),
            position: from,
            until,
            pending: VecDeque::new(),
            connection: None,
            split: false,
            ahead: VecDeque::new(),
            permit: Some(permit),
            began: from,
            failed: 0,
        };
        let task = self.client.spawn(async move {
            let mut chunks = VecDeque::new();
            // Boxed: a segment's reader is a reader, though it never has segments itself.
            while Box::pin(reader.advance()).await? {
                for chunk in reader.pending.drain(..) {
                    reader.position += chunk.len() as u64;
                    chunks.push_back(chunk);
                }
            }
            Ok((chunks, reader.permit.take()))
        });
        Segment { from, until, task }
    }

    /// Has the segments after the present one come, as far as the host has connections to spare.
    async fn look_ahead(&mut self, mut next: u64) -> Result<(), Failure> {
        let gate = Arc::clone(self.client.endpoint(&self.repository).await?.gate(Access::Pull));
        if let Some(last) = self.ahead.back() {
            next = last.until;
        }
        while next < self.until
            && self.ahead.len() < MAX_AHEAD
            && let Some(permit) = gate.spare()
        {
            let until = (next + SEGMENT).min(self.until);
            let segment = self.read_ahead(next, until, permit);
            self.ahead.push_back(segment);
            next = until;
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("cannot read blob {} of {}", self.blob.digest, self.repository)
    }

    /// One attempt to get at the bytes from `position` on.
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let end = self.asked_end();
        let range = match (self.position, end) {
            (0, end) if end == self.blob.size => None,
            (from, end) if end == self.blob.size => Some(format!("bytes={from}-")),
            (from, end) => Some(format!("bytes={from}-{}", end - 1)),
        };
        let range = range
            .map(HeaderValue::try_from)
            .transpose()
            .or_fail(ErrorKind::Internal, || "cannot write the range")?
            .map(|range| (RANGE, range));
        let endpoint = self.client.endpoint(&self.repository).await?;
        if self.permit.is_none() {
            self.permit = Some(endpoint.gate(Access::Pull).enter().await);
        }
        let path = format!("{}/blobs/{}", self.repository.path(), self.blob.digest);
        let mut call = Call::get(endpoint.url(&path)?);
        call.headers.extend(range.clone());
        let asked = self.client.request_through(&self.repository, &call, Access::Pull);
        let mut response = asked.await?;
        if response.status() == StatusCode::NOT_FOUND {
            let Some(url) = self.blob.urls.first() else {
                let failure = self.client.wire().refusal(response).await;
                return Err(failure.hint("the registry lacks a part of the image: push the image there again"));
            };
            response = self.ask_elsewhere(url, range).await?;
        }
        let connection = self.judge(response)?;
        if self.split && connection.end > end {
            // It knows no ranges: all of it comes at once, and what was to come ahead is in it.
            self.split = false;
            self.ahead.clear();
        }
        if self.split {
            self.look_ahead(end).await?;
        }
        Ok(connection)
    }

    /// Where the piece ends that is asked for at the present position.
    fn asked_end(&self) -> u64 {
        match self.ahead.front() {
            Some(next) => next.from,
            None if self.split => self.until.min(self.position + SEGMENT),
            None => self.until,
        }
    }

    /// Gets a foreign layer from where its manifest says. As a stranger: whoever that is, has no claim to credentials.
    async fn ask_elsewhere(
        &self,
        url: &str,
        range: Option<(reqwest::header::HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let wire = self.client.wire();
        let url = Url::parse(url).or_fail(ErrorKind::Integrity, || "the manifest names a source that is no URL")?;
        let endpoint = self.client.endpoint(&self.repository).await?;
        wire.insecure_hosts().check_step(&endpoint.base, &url)?;
        let mut call = Call::get(url);
        call.headers.extend(range);
        let response = wire.send(&call, None).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(wire.refusal(response).await)
        }
    }

    /// Checks what a response says of its body against what the blob is.
    fn judge(&self, response: Response) -> Result<Connection, Failure> {
        let host = host_of(response.url());
        let size = self.blob.size;
        let lie = |what: String| {
            Failure::from(
                Error::new(
                    ErrorKind::Integrity,
                    format!("{host} {what}, which this blob of {size} bytes cannot have"),
                )
                .hint("the registry's storage or something on the way to it is damaged"),
            )
        };
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let (from, end) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(CONTENT_RANGE).unwrap_or_default();
                match content_range(range) {
                    Some((first, last, total))
                        if first == self.position && last < size && total.is_none_or(|total| total == size) =>
                    {
                        (first, last + 1)
                    }
                    _ => return Err(lie(format!("sends the range `{}`", range.escape_debug()))),
                }
            }
            _ => (0, size),
        };
        if let Some(length) = header(CONTENT_LENGTH)
            && length.parse() != Ok(end - from)
        {
            return Err(lie(format!("announces {} bytes", length.escape_debug())));
        }
        Ok(Connection {
            skip: self.position - from,
            response,
            end,
        })
    }

    /// Waits until something came; false at the end.
    async fn advance(&mut self) -> Result<bool> {
        while self.pending.is_empty() {
            if self.position >= self.until {
                self.finish().await?;
                return Ok(false);
            }
            if self.connection.is_none() && self.ahead.front().is_some_and(|next| next.from == self.position) {
                self.take_segment().await?;
                continue;
            }
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => {
                        self.began = self.position;
                        connection
                    }
                    Err(failure) => {
                        self.recover(failure).await?;
                        continue;
                    }
                },
            };
            match self.client.wire().chunk(&mut connection.response).await {
                Ok(Some(mut chunk)) => {
                    let skipped = connection.skip.min(chunk.len() as u64);
                    connection.skip -= skipped;
                    chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
                    if chunk.len() as u64 > connection.end - self.position {
                        return Err(self.too_long(&connection.response));
                    }
                    // A server without ranges sends what comes after a segment too.
                    let wanted = (self.until - self.position).min(chunk.len() as u64);
                    chunk.truncate(usize::try_from(wanted).unwrap_or(chunk.len()));
                    if !chunk.is_empty() {
                        self.pending.push_back(chunk);
                    }
                    self.connection = Some(connection);
                }
                // The end of a segment, or less of a range than was asked for.
                Ok(None) if self.position == connection.end && self.position > self.began => {}
                Ok(None) => {
                    let what = format!(
                        "{} ended the blob after {} of {} bytes",
                        host_of(connection.response.url()),
                        self.position,
                        self.blob.size
                    );
                    let error = Error::new(ErrorKind::Integrity, what)
                        .hint("the registry's storage or something on the way to it is damaged");
                    self.recover(Failure::new(Again::Later, error)).await?;
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
        Ok(true)
    }

    /// Takes over the next segment, and has more of them come.
    async fn take_segment(&mut self) -> Result<()> {
        let Some(mut segment) = self.ahead.pop_front() else {
            return Ok(());
        };
        let ended = (&mut segment.task).await;
        let (chunks, permit) = ended.or_fail(ErrorKind::Internal, || "the task that reads ahead broke off")??;
        self.pending = chunks;
        drop(permit);
        let until = segment.until;
        // A failure to look ahead shows when its segment's turn comes.
        let _ = self.look_ahead(until).await;
        Ok(())
    }

    /// After a failure: waits as long as it has to be, or gives up.
    async fn recover(&mut self, failure: Failure) -> Result<()> {
        let came = self.position - self.began;
        self.began = self.position;
        if came > 0 {
            self.failed = 0;
        }
        if came >= WORTH_IT && failure.again == Again::Later {
            return Ok(());
        }
        self.failed += 1;
        self.client.backoff().pause(self.failed, failure).await
    }

    /// Makes sure that nothing comes after the last byte. That also leaves the connection fit for the next request.
    async fn finish(&mut self) -> Result<()> {
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        // The rest of what a server without ranges sends is not ours.
        if connection.end > self.until {
            return Ok(());
        }
        match self.client.wire().chunk(&mut connection.response).await {
            Ok(Some(_)) => Err(self.too_long(&connection.response)),
            // Everything is here: how the connection ends does not matter.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    fn too_long(&self, response: &Response) -> Error {
        let host = host_of(response.url());
        Error::new(
            ErrorKind::Integrity,
            format!("{host} sends more than the blob's {} bytes", self.blob.size),
        )
        .hint("the registry's storage or something on the way to it is damaged")
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.pending.is_empty() {
            let client = self.client.clone();
            let more = client.block_on(self.advance());
            if !more.context(|| self.place())? {
                return Ok(0);
            }
        }
        let mut read = 0;
        if let Some(chunk) = self.pending.front_mut() {
            read = chunk.len().min(buffer.len());
            chunk.copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
            if chunk.is_empty() {
                self.pending.pop_front();
            }
        }
        self.position += read as u64;
        Ok(read)
    }
}

/// First byte, last byte and total of a `Content-Range` header.
pub(super) fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_ranges() {
        for (header, expected) in [
            ("bytes 5-9/10", Some((5, 9, Some(10)))),
            ("bytes 0-0/*", Some((0, 0, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 5-/10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes 5-99999999999999999999/*", None),
            ("", None),
        ] {
            assert_eq!(content_range(header), expected, "{header}");
        }
    }
}
