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

use crate::copy::Taken;
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::graph::is_document;
use crate::progress::Task;
use crate::reference::Reference;
use crate::remote::auth::Access;
use crate::remote::client::Client;
use crate::remote::endpoint::{Endpoint, host_of};
use crate::remote::failure::{Again, Failure};
use crate::remote::sessions::{Remembered, Sessions};
use crate::remote::wire::{AFTER_BODY, Call};
use crate::source::Source;
use crate::spec::Descriptor;

/// Blobs up to this size, in bytes, are sent whole: no larger piece of one is ever sent twice.
const WHOLE: u64 = 512 << 10;
/// The pieces of a large one.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the network.
const WAITING: usize = 4;

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
    /// Bytes that the registry has; unknown after something went wrong.
    offset: Option<u64>,
    /// Whether the registry's word on it, `0-0`, may mean one byte or none.
    in_doubt: bool,
}

/// How far the tries have come.
struct State {
    session: Option<Session>,
    remembered: Remembered,
    /// The most that the registry was seen to have.
    furthest: u64,
    /// Failures in a row without anything gained.
    failed: u32,
    /// What progress was told of: nothing is told twice, though it may be sent twice.
    told: u64,
    /// Whether the registry has bytes that this process did not send and verify.
    resumed: bool,
    /// What `0-0` is taken for. By the specification it is one byte; Docker's registry says it of none.
    of_doubt: u64,
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

    /// Whether a repository holds a blob or a document.
    pub(super) fn has(&self, repository: &Reference, blob: &Descriptor) -> Result<bool> {
        if is_document(blob) {
            self.has_manifest(repository, &blob.digest)
        } else {
            self.has_blob(repository, &blob.digest)
        }
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
        let refusal = self.offer_manifest(repository, selector, manifest, bytes)?;
        refusal
            .map_or(Ok(()), Err)
            .context(|| format!("cannot push the manifest {selector} to {}", repository.repository()))
    }

    /// As [`Client::put_manifest`], for a document that the registry may find fault with: gives what it says then.
    ///
    /// # Errors
    /// As [`Client::put_manifest`].
    pub(super) fn offer_manifest(
        &self,
        repository: &Reference,
        selector: &str,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Option<Error>> {
        let path = format!("{}/manifests/{selector}", repository.path());
        let media_type = HeaderValue::try_from(&manifest.media_type)
            .or_fail(ErrorKind::Integrity, || "the manifest's media type is no header")?;
        let bytes = Bytes::copy_from_slice(bytes);
        let put = self.block_on(self.backoff().run(async || {
            let call = Call::new(Method::PUT, self.endpoint(repository).await?.url(&path)?)
                .header(CONTENT_TYPE, media_type.clone())
                .body(bytes.clone());
            let response = match self.request(repository, &call, Access::Push).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    return Ok(Some(self.wire().refusal(response).await.error));
                }
                Err(failure) if failure.finds_fault() => return Ok(Some(failure.error)),
                answer => answer?,
            };
            let digest = response.headers().get("docker-content-digest");
            let digest = digest.and_then(|digest| digest.to_str().ok()).map(str::to_owned);
            match digest {
                Some(digest) if digest != manifest.digest.to_string() => Err(Error::new(
                    ErrorKind::Integrity,
                    format!("the registry stored it as {}", digest.escape_debug()),
                )
                .into()),
                _ => Ok(None),
            }
        }));
        put.context(|| format!("cannot push the manifest {selector} to {}", repository.repository()))
    }
}

impl Upload<'_> {
    /// Sends the blob.
    pub(super) fn run(&self) -> Result<Taken> {
        self.try_all().context(|| {
            format!(
                "cannot push blob {} to {}",
                self.blob.digest,
                self.repository.repository()
            )
        })
    }

    /// Blocks between its requests: the source may be another registry, whose reader waits for its own.
    fn try_all(&self) -> Result<Taken> {
        let mut remembered = self.sessions.of(self.repository, &self.blob.digest);
        let left = remembered.recall().filter(|_| self.blob.size > WHOLE);
        let mut state = State {
            session: left.map(|url| Session {
                url,
                offset: None,
                in_doubt: false,
            }),
            remembered,
            furthest: 0,
            failed: 0,
            told: 0,
            resumed: false,
            of_doubt: 0,
        };
        let mut restarted = false;
        loop {
            let failure = match self.attempt(&mut state) {
                Ok(taken) => {
                    state.remembered.forget();
                    return Ok(taken);
                }
                Err(failure) => failure,
            };
            if failure.again == Again::Never {
                state.remembered.forget();
                // Perhaps only what an earlier try sent is wrong.
                if failure.error.kind() == ErrorKind::Integrity && state.resumed && !restarted {
                    restarted = true;
                    state.session = None;
                    continue;
                }
            }
            let in_doubt = state.session.as_ref().is_some_and(|session| session.in_doubt);
            if in_doubt && failure.status == Some(StatusCode::RANGE_NOT_SATISFIABLE) {
                state.of_doubt = 1 - state.of_doubt;
            }
            match &mut state.session {
                // What came of a small one is not worth asking for.
                Some(_) if self.blob.size <= WHOLE => state.session = None,
                Some(session) => session.offset = None,
                None => {}
            }
            state.failed += 1;
            // A connection that broke after something was gained is replaced at once, as when reading.
            let first = state.failed == 1 && self.client.backoff().attempts > 1;
            let at_once = first && state.session.is_some() && failure.broke_off();
            if !at_once {
                self.client
                    .block_on(self.client.backoff().pause(state.failed, failure))?;
            }
        }
    }

    /// One try to send what the registry lacks.
    fn attempt(&self, state: &mut State) -> Result<Taken, Failure> {
        let endpoint = self.client.block_on(self.client.endpoint(self.repository))?;
        // Before the source is opened, so that nobody who waits here keeps a place among those who read.
        let _permit = self.client.block_on(endpoint.gate(Access::Push).enter());
        if let Some(Session { url, offset: None, .. }) = &state.session {
            state.session = self.client.block_on(self.continued(&endpoint, url, state.of_doubt))?;
            if state.session.is_none() && self.client.block_on(self.is_there(&endpoint))? {
                // Only the answer that said so was lost.
                self.tell(state, self.blob.size);
                return Ok(Taken::Moved);
            }
            let offset = state
                .session
                .as_ref()
                .and_then(|session| session.offset)
                .unwrap_or_default();
            state.resumed = offset > 0;
            if offset > state.furthest {
                (state.furthest, state.failed) = (offset, 0);
            }
        }
        if state.session.is_none() {
            state.resumed = false;
            match self.client.block_on(self.begin(&endpoint))? {
                Begun::Mounted => {
                    self.tell(state, self.blob.size);
                    return Ok(Taken::Mounted);
                }
                Begun::Session(begun) => {
                    if self.blob.size > WHOLE {
                        state.remembered.remember(&begun.url);
                    }
                    state.session = Some(begun);
                }
            }
        }
        let whole = if self.blob.size <= WHOLE {
            self.read_whole()?
        } else {
            self.stream(&endpoint, state)?;
            Bytes::new()
        };
        let Some(session) = &state.session else {
            return Err(Error::new(ErrorKind::Internal, "an upload without a session").into());
        };
        let mut url = session.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let call = Call::new(Method::PUT, url)
            .body(whole)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.client.block_on(self.finish(&call))?;
        self.tell(state, self.blob.size);
        Ok(Taken::Moved)
    }

    fn tell(&self, state: &mut State, sent: u64) {
        self.task.advance(sent.saturating_sub(state.told));
        state.told = state.told.max(sent);
    }

    /// Whether the blob is in the repository, asked by who has a place already.
    async fn is_there(&self, endpoint: &Endpoint) -> Result<bool, Failure> {
        let path = format!("{}/blobs/{}", self.repository.path(), self.blob.digest);
        let call = Call::new(Method::HEAD, endpoint.url(&path)?);
        let asked = self.client.request_through(self.repository, &call, Access::Push);
        Ok(asked.await?.status() != StatusCode::NOT_FOUND)
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
        let url = endpoint.url(&format!("{}/blobs/uploads/", self.repository.path()))?;
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
                Err(failure) if failure.again != Again::Never => return Err(failure),
                // Whoever may not read there can still send the bytes himself.
                _ => {}
            }
        }
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
    fn stream(&self, endpoint: &Endpoint, state: &mut State) -> Result<(), Failure> {
        let Some(Session {
            url,
            offset: Some(offset),
            in_doubt,
        }) = &state.session
        else {
            return Err(Error::new(ErrorKind::Internal, "an upload without a place").into());
        };
        let (url, offset, in_doubt) = (url.clone(), *offset, *in_doubt);
        let length = self.blob.size - offset;
        if length == 0 {
            return Ok(());
        }
        let reader = self.source.open(self.blob, offset)?;
        // What an earlier try sent, the registry alone can judge: it does, at the end.
        let mut reader: Box<dyn Read + Send + '_> = match offset {
            0 => Box::new(VerifyingReader::new(reader, self.blob.digest, self.blob.size)),
            _ => Box::new(reader.take(length)),
        };
        let mut call = Call::new(Method::PATCH, url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_LENGTH, HeaderValue::from(length));
        // In doubt the registry is told what it gets, so that it can object before it has it.
        if offset > 0 || in_doubt {
            let range = format!("{offset}-{}", self.blob.size - 1);
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
            self.tell(state, sent);
        };
        drop(pieces);
        if stalled {
            sending.abort();
            return Err(Failure::silent(&url, patience));
        }
        let longest = patience.saturating_mul(AFTER_BODY);
        let answer = match self.client.block_on(async { timeout(longest, &mut sending).await }) {
            Ok(ended) => ended.or_fail(ErrorKind::Internal, || "the upload's task broke off")?,
            Err(_) => {
                sending.abort();
                return Err(Failure::silent(&url, longest));
            }
        };
        let response = answer.map_err(|failure| self.judged(failure))?;
        let session = self.session(endpoint, &response, sent)?;
        state.remembered.remember(&session.url);
        state.session = Some(session);
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
        Ok(Session {
            url,
            offset: Some(offset),
            in_doubt: false,
        })
    }

    /// Asks the registry how much it has of an upload that was cut off; none when it knows nothing of it any more.
    /// `of_doubt` is how much `0-0` is taken for.
    async fn continued(&self, endpoint: &Endpoint, url: &Url, of_doubt: u64) -> Result<Option<Session>, Failure> {
        self.client.wire().insecure_hosts().check_step(&endpoint.base, url)?;
        let call = Call::get(url.clone());
        let asked = self.client.request_through(self.repository, &call, Access::Push);
        let response = match asked.await {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => response,
            Ok(_) => return Ok(None),
            // Whatever may pass says nothing about the upload.
            Err(failure) if failure.again != Again::Never || failure.status.is_none() => return Err(failure),
            Err(_) => return Ok(None),
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let last = header(RANGE).and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
        let offset = match last {
            Some(0) => of_doubt,
            Some(last) => last.saturating_add(1),
            None => return Ok(None),
        };
        let url = match header(LOCATION).and_then(|location| response.url().join(location).ok()) {
            Some(url) => url,
            None => url.clone(),
        };
        self.client.wire().insecure_hosts().check_step(&endpoint.base, &url)?;
        Ok((offset <= self.blob.size).then_some(Session {
            url,
            offset: Some(offset),
            in_doubt: last == Some(0),
        }))
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
        let again = matches!(
            failure.status,
            Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNAUTHORIZED)
        );
        if refused || again {
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
