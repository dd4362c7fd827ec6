//! The client: what callers ask of registries, each request with its authorization and its repetitions.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result, ResultExt as _};
use crate::reference::Reference;
use crate::remote::auth::{Access, Auth};
use crate::remote::blob_reader::BlobReader;
use crate::remote::challenge::Challenge;
use crate::remote::connections::Connections;
use crate::remote::credentials::Credentials;
use crate::remote::endpoint::{Endpoint, Endpoints, InsecureHosts, host_of};
use crate::remote::failure::Failure;
use crate::remote::manifest::{self, Document};
use crate::remote::mirrors::{Mirror, Mirrors};
use crate::remote::retry::{Backoff, LONGEST_ASKED};
use crate::remote::tls::Tls;
use crate::remote::wire::{Call, Wire, same_origin};
use crate::spec::{Descriptor, MAX_DOCUMENT};

/// Threads that wait for sockets; the work on the bytes is done by the callers' own.
const THREADS: usize = 2;

/// How registries are met.
#[derive(Debug)]
pub struct Options {
    /// `HOST` or `HOST:PORT` of registries that are met as Docker meets insecure ones: TLS with whatever certificate,
    /// plain HTTP where there is no TLS.
    pub insecure_hosts: Vec<String>,
    /// PEM files with authorities to believe, beside the system's own. A server's own self-signed certificate may be
    /// in one too.
    pub ca_files: Vec<PathBuf>,
    /// Folders whose subfolders `HOST:PORT` hold authorities and client certificates for that host, the most important
    /// first ([`certificate_folders`](crate::remote::certificate_folders)).
    pub certificate_folders: Vec<PathBuf>,
    /// Registries that are asked in place of others, in their order.
    pub mirrors: Vec<Mirror>,
    /// Who we are.
    pub credentials: Credentials,
    /// How long a connection may take to come up.
    pub connect_timeout: Duration,
    /// How long a server may send nothing before the connection is given up and made anew.
    pub stall_timeout: Duration,
    /// How often a request is made in all before its failure is final.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles with each further one.
    pub first_pause: Duration,
    /// Connections to one host at once, in each direction.
    pub connections: usize,
}

/// Connections to one host at once, unless the user says otherwise: enough to hide the way there, and few enough for
/// any registry.
pub const CONNECTIONS: usize = 8;

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure_hosts: Vec::new(),
            ca_files: Vec::new(),
            certificate_folders: Vec::new(),
            mirrors: Vec::new(),
            credentials: Credentials::none(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts: 6,
            first_pause: Duration::from_millis(250),
            connections: CONNECTIONS,
        }
    }
}

/// How a registry is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Its URL, without a path.
    pub url: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether its certificate was verified.
    pub verified: bool,
}

/// A client for all registries: connections, tokens and what is known of each host are shared by all its clones.
///
/// Its calls block; they are for ordinary threads, and panic within asynchronous code.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    background: Background,
    wire: Wire,
    auth: Auth,
    endpoints: Endpoints,
    mirrors: Mirrors,
    backoff: Backoff,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.0.auth)
    }
}

impl Client {
    /// A client. Asks nobody anything yet.
    ///
    /// # Errors
    /// When one of the options names something unusable.
    pub fn new(options: Options) -> Result<Self> {
        let insecure_hosts = InsecureHosts::new(&options.insecure_hosts)?;
        let tls = Tls::load(&options.ca_files)?;
        let connections = Connections::new(tls, options.certificate_folders, options.connect_timeout)?;
        Ok(Self(Arc::new(Inner {
            background: Background::new()?,
            wire: Wire::new(connections, insecure_hosts, options.stall_timeout),
            auth: Auth::new(options.credentials),
            endpoints: Endpoints::new(options.connections),
            mirrors: Mirrors::new(options.mirrors),
            backoff: Backoff {
                attempts: options.attempts,
                first: options.first_pause,
                longest: Duration::from_secs(10),
                longest_asked: LONGEST_ASKED,
            },
        })))
    }

    /// The manifest or index that `selector`, a tag or a digest, means in a repository.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::Integrity`] when it is larger than [`MAX_DOCUMENT`],
    /// is not the one of that digest, or of no type that sealrs reads (Docker's schema 1 among them);
    /// [`ErrorKind::Auth`] and [`ErrorKind::Network`].
    pub fn manifest(&self, repository: &Reference, selector: &str) -> Result<Document> {
        self.0
            .mirrors
            .first(repository, |place| self.manifest_of(place, selector))
    }

    fn manifest_of(&self, repository: &Reference, selector: &str) -> Result<Document> {
        let asked = if selector.contains(':') {
            Some(selector.parse::<Digest>()?)
        } else {
            None
        };
        let tag_ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if asked.is_none() && (selector.is_empty() || selector.starts_with('.') || !selector.bytes().all(tag_ok)) {
            let what = format!("`{}` is neither a tag nor a digest", selector.escape_debug());
            return Err(Error::new(ErrorKind::Input, what));
        }
        let name = match asked {
            Some(digest) => format!("{}@{digest}", repository.repository()),
            None => format!("{}:{selector}", repository.repository()),
        };
        let path = format!("{}/manifests/{selector}", repository.path());
        let whole = self.block_on(self.0.backoff.run(async || {
            let accept = (ACCEPT, HeaderValue::from_static(manifest::ACCEPT));
            let response = self.ask(repository, &path, Some(accept)).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let failure = self.0.wire.refusal(response).await;
                return Err(failure.hint("check the name and the tag; some registries hide private images this way"));
            }
            let header = |name| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok().map(str::to_owned))
            };
            let (content_type, digest) = (header(CONTENT_TYPE.as_str()), header("docker-content-digest"));
            // For a tag, the registry's own word on what it meant to send.
            let promised = asked.or_else(|| digest.and_then(|digest| digest.parse().ok()));
            let bytes = self.0.wire.body(response, MAX_DOCUMENT).await?;
            Ok(Document::new(bytes, content_type.as_deref(), promised)?)
        }));
        whole.context(|| format!("cannot get the image {name}"))
    }

    /// The bytes of a blob from `offset` on, unverified. The first answer has come when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the repository lacks the blob; [`ErrorKind::Integrity`] when the registry has one of
    /// another size under its name; [`ErrorKind::Auth`] and [`ErrorKind::Network`].
    pub fn blob(&self, repository: &Reference, blob: &Descriptor, offset: u64) -> Result<BlobReader> {
        self.0.mirrors.first(repository, |place| {
            BlobReader::open(self, place.clone(), blob.clone(), offset)
        })
    }

    /// Whether what a mirror failed to give may be had in another place.
    #[must_use]
    pub fn has_mirrors(&self, repository: &Reference) -> bool {
        self.0.mirrors.has(repository.host())
    }

    /// What was wrong with mirrors that were given up.
    #[must_use]
    pub fn mirror_failures(&self) -> Vec<String> {
        self.0.mirrors.failures()
    }

    /// How the registry of `repository` is met. Asks it when it was not met before.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`], [`ErrorKind::Network`].
    pub fn meet(&self, repository: &Reference) -> Result<Met> {
        let endpoint = self.block_on(self.0.backoff.run(async || self.endpoint(repository).await))?;
        let base = &endpoint.base;
        let tls = base.scheme() == "https";
        Ok(Met {
            url: format!("{}://{}", base.scheme(), host_of(base)),
            tls,
            verified: tls && !self.0.wire.insecure_hosts().lists(base),
        })
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    pub(super) fn backoff(&self) -> &Backoff {
        &self.0.backoff
    }

    pub(super) async fn endpoint(&self, repository: &Reference) -> Result<Arc<Endpoint>, Failure> {
        self.0.endpoints.find(&self.0.wire, repository.host()).await
    }

    /// Asks a registry for `path` below `/v2/`, once, and once more with what its challenge asks for.
    ///
    /// Gives back answers of success, and 404, which means something else to each caller.
    pub(super) async fn ask(
        &self,
        repository: &Reference,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let mut call = Call::get(self.endpoint(repository).await?.url(path)?);
        call.headers.extend(header);
        self.request(repository, &call, Access::Pull).await
    }

    /// Sends a request that may be repeated, as [`Client::ask`] does. It waits for its place at the host's gate.
    pub(super) async fn request(
        &self,
        repository: &Reference,
        call: &Call,
        access: Access<'_>,
    ) -> Result<Response, Failure> {
        let endpoint = self.endpoint(repository).await?;
        let _permit = endpoint.gate(access).enter().await;
        self.request_through(repository, call, access).await
    }

    /// The same for who has a place already.
    pub(super) async fn request_through(
        &self,
        repository: &Reference,
        call: &Call,
        access: Access<'_>,
    ) -> Result<Response, Failure> {
        let endpoint = self.endpoint(repository).await?;
        let answer = self.request_authorized(&endpoint, repository, call, access).await;
        endpoint.gate(access).heed(&answer);
        answer
    }

    async fn request_authorized(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        call: &Call,
        access: Access<'_>,
    ) -> Result<Response, Failure> {
        let mut challenge = endpoint.challenge();
        let mut refused: Option<HeaderValue> = None;
        // The second round is for a challenge that is new, or a token that is old.
        for _ in 0..2 {
            let authorization = match &challenge {
                Some(challenge) if same_origin(&call.url, &endpoint.base) => Some(
                    self.0
                        .auth
                        .authorization(&self.0.wire, endpoint, challenge, repository, access, refused.as_ref())
                        .await?,
                ),
                _ => None,
            };
            let response = self.0.wire.send(call, authorization.as_ref()).await?;
            match response.status() {
                // Only the registry itself may ask who we are, not those that it redirects to.
                StatusCode::UNAUTHORIZED if same_origin(response.url(), &endpoint.base) => {
                    let Some(asked) = Challenge::choose(response.headers()).or(challenge) else {
                        return Err(self.0.wire.refusal(response).await);
                    };
                    endpoint.learn(asked.clone());
                    challenge = Some(asked);
                    refused = authorization;
                }
                StatusCode::FORBIDDEN if same_origin(response.url(), &endpoint.base) => {
                    let words = self.0.wire.refusal(response).await.error;
                    let denied = self.0.auth.denied(&host_of(&endpoint.base), repository, access).await;
                    return Err(denied.because(words).into());
                }
                StatusCode::NOT_FOUND => return Ok(response),
                status if status.is_success() => return Ok(response),
                _ => return Err(self.0.wire.refusal(response).await),
            }
        }
        let host = host_of(&endpoint.base);
        Err(self.0.auth.denied(&host, repository, access).await.into())
    }

    /// Sends a request whose body can be sent only once. What its authorization lacks must have been found out before.
    pub(super) async fn stream(
        &self,
        repository: &Reference,
        call: &Call,
        access: Access<'_>,
        body: reqwest::Body,
    ) -> Result<Response, Failure> {
        let endpoint = self.endpoint(repository).await?;
        let authorization = match endpoint.challenge() {
            Some(challenge) if same_origin(&call.url, &endpoint.base) => Some(
                self.0
                    .auth
                    .authorization(&self.0.wire, &endpoint, &challenge, repository, access, None)
                    .await?,
            ),
            _ => None,
        };
        let sent = self.0.wire.send_stream(call, authorization.as_ref(), body).await;
        let answer = match sent {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(self.0.wire.refusal(response).await),
            Err(failure) => Err(failure),
        };
        endpoint.gate(access).heed(&answer);
        answer
    }

    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.background.handle.spawn(work)
    }

    /// Waits for asynchronous work on the caller's thread.
    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.0.background.handle.block_on(work)
    }
}

/// A runtime that may be dropped anywhere: a plain one panics when that is in asynchronous code.
struct Background {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Background {
    fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("registry-client")
            .enable_all()
            .build()
            .or_fail(ErrorKind::Internal, || "cannot start the registry client's threads")?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
