//! Blobs and manifests into a registry: the push side of the OCI distribution specification 1.1 ("Push").
//!
//! A small blob goes in one request after the one that begins its upload. A large one is streamed; when its connection
//! breaks, the registry is asked how much it has and the rest follows, in this process or in the next one. Registries
//! that forget what was cut off (Docker's own does) get the blob from its start.

use std::io::Read;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::digest::{Digest, VerifyingReader};
use crate::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::progress::Task;
use crate::reference::Reference;
use crate::remote::auth::Access;
use crate::remote::client::Client;
use crate::remote::endpoint::{Endpoint, host_of};
use crate::remote::failure::{Again, Failure};
use crate::remote::sessions::Sessions;
use crate::remote::wire::{AFTER_BODY, Call};
use crate::source::Source;
use crate::spec::Descriptor;

/// Blobs up to this size, in bytes, are sent whole: no larger piece of one is ever sent twice.
const WHOLE: u64 = 512 << 10;
/// The pieces of a large one.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the network.
const WAITING: usize = 4;
/// An upload that got so much further before it broke is continued at once, another one after a pause.
const WORTH_IT: u64 = 64 << 10;

/// A blob on its way up.
pub(super) struct Upload<'u> {
    pub(super) client: &'u Client,
    pub(super) repository: &'u Reference,
    pub(super) blob: &'u Descriptor,
    pub(super) source: &'u dyn Source,
    /// Another repository of the same registry that has the blob.
    pub(super) mount_from: Option<&'u str>,
    pub(super) sessions: &'u Sessions,
    pub(super) task: &'u Task<'u>,
}

/// Where the upload stands at the registry.
struct Session {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
}

/// What beginning an upload led to.
enum Begun {
    Session(Session),
    Mounted,
}

impl Client {
    /// Whether a repository holds a blob.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`], [`ErrorKind::Network`].
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool> {
        self.exists(repository, &format!("{}/blobs/{digest}", repository.path()))
            .context(|| format!("cannot ask for blob {digest} of {}", repository.repository()))
    }

    /// Whether a repository holds a manifest or an index.
    ///
    /// # Errors
    /// As [`Client::has_blob`].
    pub fn has_manifest(&self, repository: &Reference, digest: &Digest) -> Result<bool> {
        self.exists(repository, &format!("{}/manifests/{digest}", repository.path()))
            .context(|| format!("cannot ask for the image {}@{digest}", repository.repository()))
    }

    fn exists(&self, repository: &Reference, path: &str) -> Result<bool> {
        self.block_on(self.backoff().run(async || {
            let call = Call::new(Method::HEAD, self.endpoint(repository).await?.url(path)?);
            let call = match path.contains("/manifests/") {
                true => call.header(
                    reqwest::header::ACCEPT,
                    HeaderValue::from_static(super::manifest::ACCEPT),
                ),
                false => call,
            };
            // The right to write, as all that follows needs it: one token serves all.
            let response = self.request(repository, &call, Access::Push).await?;
            Ok(response.status() != StatusCode::NOT_FOUND)
        }))
    }

    /// Puts a manifest or an index into a repository, under a tag or under its digest.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when the registry gives it another digest; [`ErrorKind::Auth`],
    /// [`ErrorKind::Network`].
    pub fn put_manifest(
        &self,
        repository: &Reference,
        selector: &str,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<()> {
        let path = format!("{}/manifests/{selector}", repository.path());
        let media_type = HeaderValue::try_from(&manifest.media_type)
            .or_fail(ErrorKind::Integrity, || "the manifest's media type is no header")?;
        let bytes = Bytes::copy_from_slice(bytes);
        let put = self.block_on(self.backoff().run(async || {
            let call = Call::new(Method::PUT, self.endpoint(repository).await?.url(&path)?)
                .header(CONTENT_TYPE, media_type.clone())
                .body(bytes.clone());
            let response = self.request(repository, &call, Access::Push).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err(self.wire().refusal(response).await);
            }
            let digest = response.headers().get("docker-content-digest");
            let digest = digest.and_then(|digest| digest.to_str().ok()).map(str::to_owned);
            match digest {
                Some(digest) if digest != manifest.digest.to_string() => Err(Error::new(
                    ErrorKind::Integrity,
                    format!("the registry stored it as {}", digest.escape_debug()),
                )
                .into()),
                _ => Ok(()),
            }
        }));
        put.context(|| format!("cannot push the manifest {selector} to {}", repository.repository()))
    }
}

impl Upload<'_> {
    /// Sends the blob.
    pub(super) fn run(&self) -> Result<()> {
        self.try_all().context(|| {
            format!(
                "cannot push blob {} to {}",
                self.blob.digest,
                self.repository.repository()
            )
        })
    }

    /// Blocks between its requests: the source may be another registry, whose reader waits for its own.
    fn try_all(&self) -> Result<()> {
        let mut session = self.client.block_on(self.left_session());
        let mut failed = 0;
        let mut told = 0;
        loop {
            let began = session.as_ref().map_or(0, |session| session.offset);
            match self.attempt(&mut session, &mut told) {
                Ok(()) => {
                    self.sessions.forget(self.repository, &self.blob.digest);
                    return Ok(());
                }
                Err(failure) => {
                    session = self.client.block_on(self.continued(session.take()));
                    let came = session
                        .as_ref()
                        .map_or(0, |session| session.offset)
                        .saturating_sub(began);
                    if came > 0 {
                        failed = 0;
                    }
                    if came < WORTH_IT || failure.again != Again::Later {
                        failed += 1;
                        self.client.block_on(self.client.backoff().pause(failed, failure))?;
                    }
                }
            }
        }
    }

    /// One try to send what the registry lacks. `told` is how far progress was told.
    fn attempt(&self, session: &mut Option<Session>, told: &mut u64) -> Result<(), Failure> {
        let endpoint = self.client.block_on(self.client.endpoint(self.repository))?;
        // Before the source is opened, so that nobody who waits here keeps a place among those who read.
        let permit = self.client.block_on(endpoint.gate(Access::Push).enter());
        let at = match session {
            Some(at) => at,
            None => match self.client.block_on(self.begin(&endpoint))? {
                Begun::Mounted => {
                    self.task.advance(self.blob.size.saturating_sub(*told));
                    return Ok(());
                }
                Begun::Session(begun) => session.insert(begun),
            },
        };
        let whole = if self.blob.size <= WHOLE {
            Some(self.read_whole()?)
        } else {
            if at.offset < self.blob.size {
                self.stream(&endpoint, at, told)?;
            }
            None
        };
        let mut url = at.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let mut call = Call::new(Method::PUT, url).body(whole.unwrap_or_default());
        call = call.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let finished = self.client.block_on(self.finish(&call));
        drop(permit);
        finished?;
        let size = self.blob.size;
        self.task.advance(size.saturating_sub(*told));
        *told = size.max(*told);
        Ok(())
    }

    /// Ends the upload.
    async fn finish(&self, call: &Call) -> Result<(), Failure> {
        let answer = self.client.request_through(self.repository, call, Access::Push).await;
        let response = answer.map_err(|failure| self.judged(failure))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(self.judged(self.client.wire().refusal(response).await));
        }
        Ok(())
    }

    /// Begins an upload, or has the blob mounted.
    async fn begin(&self, endpoint: &Endpoint) -> Result<Begun, Failure> {
        let mut url = endpoint.url(&format!("{}/blobs/uploads/", self.repository.path()))?;
        if let Some(from) = self.mount_from {
            let mut mount = url.clone();
            mount
                .query_pairs_mut()
                .append_pair("mount", &self.blob.digest.to_string())
                .append_pair("from", from);
            let call = Call::new(Method::POST, mount).body(Bytes::new());
            let answer = self
                .client
                .request_through(self.repository, &call, Access::Mount(from))
                .await;
            match answer {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(Begun::Mounted),
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    return Ok(Begun::Session(self.session(endpoint, &response, 0)?));
                }
                // Whoever may not read there can still send the bytes himself.
                _ => {}
            }
        }
        url.set_query(None);
        let call = Call::new(Method::POST, url).body(Bytes::new());
        let response = self
            .client
            .request_through(self.repository, &call, Access::Push)
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            let failure = self.client.wire().refusal(response).await;
            return Err(failure.hint("check the repository's name; some registries want it to be made first"));
        }
        Ok(Begun::Session(self.session(endpoint, &response, 0)?))
    }

    /// Streams the blob from where the registry has it to its end.
    fn stream(&self, endpoint: &Endpoint, at: &mut Session, told: &mut u64) -> Result<(), Failure> {
        let length = self.blob.size - at.offset;
        let mut call = Call::new(Method::PATCH, at.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_LENGTH, HeaderValue::from(length));
        if at.offset > 0 {
            let range = format!("{}-{}", at.offset, self.blob.size - 1);
            let range = HeaderValue::try_from(range).or_fail(ErrorKind::Internal, || "cannot write the range")?;
            call = call.header(CONTENT_RANGE, range);
        }
        let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(WAITING);
        let body = futures_util::stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body)));
        let body = reqwest::Body::wrap_stream(body);
        let (client, repository) = (self.client.clone(), self.repository.clone());
        let mut sending = self
            .client
            .spawn(async move { client.stream(&repository, &call, Access::Push, body).await });

        let offset = at.offset;
        let reader = self.source.open(self.blob, offset).inspect_err(|_| sending.abort())?;
        // What an earlier try sent, the registry alone can judge: it does, at the end.
        let mut reader: Box<dyn Read + Send + '_> = match offset {
            0 => Box::new(VerifyingReader::new(reader, self.blob.digest, self.blob.size)),
            _ => Box::new(reader.take(length)),
        };
        let mut sent = offset;
        let patience = self.client.wire().patience();
        let stalled = loop {
            let mut piece = vec![0; PIECE];
            let read = match read_full(&mut *reader, &mut piece) {
                Ok(read) => read,
                Err(error) => {
                    // The body ends too early for its length: the registry cannot take it for the whole.
                    sending.abort();
                    return Err(self.unreadable(error).into());
                }
            };
            if read == 0 {
                break false;
            }
            piece.truncate(read);
            let sent_on = pieces.send(Ok(piece.into()));
            match self.client.block_on(async { timeout(patience, sent_on).await }) {
                Ok(Ok(())) => {}
                // The request has ended, and will say why.
                Ok(Err(_)) => break false,
                Err(_) => break true,
            }
            sent += read as u64;
            // Nothing is told twice, though it may be sent twice.
            self.task.advance(sent.saturating_sub(*told));
            *told = sent.max(*told);
        };
        drop(pieces);
        if stalled {
            sending.abort();
            return Err(Failure::silent(&at.url, patience));
        }
        let longest = patience.saturating_mul(AFTER_BODY);
        let answer = match self.client.block_on(async { timeout(longest, &mut sending).await }) {
            Ok(ended) => ended.or_fail(ErrorKind::Internal, || "the upload's task broke off")?,
            Err(_) => {
                sending.abort();
                return Err(Failure::silent(&at.url, longest));
            }
        };
        let response = answer.map_err(|failure| self.judged(failure))?;
        *at = self.session(endpoint, &response, sent)?;
        Ok(())
    }

    fn read_whole(&self) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let reader = self.source.open(self.blob, 0)?;
        VerifyingReader::new(reader, self.blob.digest, self.blob.size)
            .read_to_end(&mut bytes)
            .map_err(|error| self.unreadable(error))?;
        Ok(bytes.into())
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        let place = || format!("cannot read blob {} from {}", self.blob.digest, self.source.origin());
        match Err::<(), _>(error).or_io(place) {
            Err(error) => error,
            Ok(()) => Error::new(ErrorKind::Internal, place()),
        }
    }

    /// The session that a response tells of.
    fn session(&self, endpoint: &Endpoint, response: &Response, offset: u64) -> Result<Session> {
        let host = host_of(response.url());
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let url = location.and_then(|location| response.url().join(location).ok());
        let url = url.filter(Url::has_host).ok_or_else(|| {
            Error::new(
                ErrorKind::Network,
                format!("{host} begins an upload without saying where it goes on"),
            )
        })?;
        self.client.wire().insecure_hosts().check_step(&endpoint.base, &url)?;
        if self.blob.size > WHOLE {
            self.sessions.remember(self.repository, &self.blob.digest, &url);
        }
        Ok(Session { url, offset })
    }

    /// The session of a process that was interrupted, if the registry still knows it.
    async fn left_session(&self) -> Option<Session> {
        let url = self.sessions.recall(self.repository, &self.blob.digest)?;
        let endpoint = self.client.endpoint(self.repository).await.ok()?;
        self.client
            .wire()
            .insecure_hosts()
            .check_step(&endpoint.base, &url)
            .ok()?;
        self.continued(Some(Session { url, offset: 0 })).await
    }

    /// Asks the registry how much it has of an upload that was cut off.
    async fn continued(&self, session: Option<Session>) -> Option<Session> {
        let call = Call::get(session?.url);
        let asked = self.client.request(self.repository, &call, Access::Push).await;
        let response = asked
            .ok()
            .filter(|response| response.status() == StatusCode::NO_CONTENT);
        let Some(response) = response else {
            self.sessions.forget(self.repository, &self.blob.digest);
            return None;
        };
        let range = response.headers().get(RANGE).and_then(|range| range.to_str().ok());
        // `0-0` may be one byte or none; of none it is told this way by Docker's registry.
        let offset = match range.and_then(|range| range.rsplit_once('-'))?.1.parse::<u64>().ok()? {
            0 => 0,
            last => last.checked_add(1)?,
        };
        let url = match response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
        {
            Some(location) => response.url().join(location).ok()?,
            None => response.url().clone(),
        };
        let endpoint = self.client.endpoint(self.repository).await.ok()?;
        self.client
            .wire()
            .insecure_hosts()
            .check_step(&endpoint.base, &url)
            .ok()?;
        (offset <= self.blob.size).then_some(Session { url, offset })
    }

    /// What a refusal in the middle of an upload means.
    fn judged(&self, mut failure: Failure) -> Failure {
        let refused = matches!(
            failure.status,
            Some(StatusCode::BAD_REQUEST | StatusCode::RANGE_NOT_SATISFIABLE)
        );
        if refused
            && failure
                .error
                .causes()
                .iter()
                .any(|cause| cause.contains("DIGEST_INVALID"))
        {
            return failure.hint("something on the way to the registry damages what is sent, or the source is damaged");
        }
        // The registry has lost the session, or counts its bytes differently: another try begins from what it has.
        if refused || failure.status == Some(StatusCode::NOT_FOUND) {
            failure.again = Again::Later;
        }
        failure
    }
}

/// Reads until the buffer is full or the source ends.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
