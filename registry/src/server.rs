//! The registry server: the OCI distribution specification 1.1 over HTTP/1.1. Pushing has to be allowed.
//!
//! Its memory depends on the number of connections, which is bounded, and not on the size of blobs. Slow clients
//! are waited for as long as they take any byte at all; a client that sends no request is not.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use sealrs_image::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::progress::{Event, Progress};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::answer::{answer, is_push, refused, route, whatever};
use crate::body::{Body, Sent};
use crate::directory::Directory;
use crate::listen::Listeners;
use crate::metrics::Metrics;
use crate::monitor::{HEALTH, Monitor};
use crate::passwords::Passwords;
use crate::push::Pushes;
use crate::receive::drain;
use crate::refusal::Refusal;
use crate::route::{Item, Route};
use crate::tls::TlsFiles;
use crate::verdict::Verdicts;
use crate::wire::{Outlet, Wire};

/// How many connections are served at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take for a request's head, and keep a connection between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long answers under way may go on when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Uploads that nobody went on with for so long are removed when the server starts.
pub const UPLOADS_EXPIRE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The registry directory: the folder that has `docker/registry/v2` in it.
    pub dir: PathBuf,
    /// The addresses to listen on. Port 0 lets the system choose one.
    pub listen: Vec<SocketAddr>,
    /// Speak HTTPS with this certificate and key, and plain HTTP without them.
    pub tls: Option<TlsFiles>,
    /// Let only the users of this file in: the format of `htpasswd -B`.
    pub htpasswd: Option<PathBuf>,
    /// Whether clients may push, and remove what is there.
    pub push: PushPolicy,
    /// The address that gives out counters for Prometheus, in plain HTTP and to anybody.
    pub metrics: Option<SocketAddr>,
}

/// What clients may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushPolicy {
    /// Nothing.
    #[default]
    Refuse,
    /// Everything. A manifest is taken once all is there that it names.
    Allow,
    /// Everything. A manifest may name what is not there, as an index of which only some platforms are wanted does.
    AllowSparse,
}

/// Serves until a SIGTERM or SIGINT, then lets answers under way end for some seconds. Blocks.
///
/// # Errors
/// As [`serve`].
pub fn run(options: &ServeOptions, progress: Arc<dyn Progress>, ready: impl FnOnce(&[SocketAddr])) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_fail(ErrorKind::Internal, || "cannot start the server's threads")?;
    runtime.block_on(async {
        let failed = || "cannot wait for signals";
        let mut terminate = signal(SignalKind::terminate()).or_fail(ErrorKind::Internal, failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).or_fail(ErrorKind::Internal, failed)?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(options, progress, ready, stop).await
    })
}

/// Serves until `stop` is done, then lets answers under way end for some seconds. `ready` is told the addresses
/// once connections are accepted. What goes wrong with single requests is told to `progress`.
///
/// # Errors
/// Only before `ready` is called: [`ErrorKind::NotFound`] for a missing file or directory, [`ErrorKind::Input`] for a
/// bad one, [`ErrorKind::Conflict`] for a port that is taken.
pub async fn serve(
    options: &ServeOptions,
    progress: Arc<dyn Progress>,
    ready: impl FnOnce(&[SocketAddr]),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let directory = Arc::new(Directory::open(&options.dir)?);
    let metrics = Arc::<Metrics>::default();
    let verdicts = Arc::new(Verdicts::new(Arc::clone(&progress), Arc::clone(&metrics)));
    let pushes = |may_be_sparse| {
        let (directory, verdicts) = (Arc::clone(&directory), Arc::clone(&verdicts));
        Some(Pushes::to(directory, verdicts, Arc::clone(&metrics), may_be_sparse))
    };
    let pushes = match options.push {
        PushPolicy::Refuse => None,
        PushPolicy::Allow => pushes(false),
        PushPolicy::AllowSparse => pushes(true),
    };
    if pushes.is_some() {
        directory.prepare()?;
    }
    let was_in_use = directory.is_in_use()?;
    if !was_in_use {
        progress.event(Event::Warning(&format!(
            "`{}` holds no images: there is no `docker/registry/v2` in it",
            options.dir.display()
        )));
    }
    let tls = options.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
    let passwords = options.htpasswd.as_deref().map(Passwords::read).transpose()?;
    let listeners = Listeners::bind(&options.listen)?;
    let monitor = Arc::new(Monitor {
        directory: Arc::clone(&directory),
        metrics: Arc::clone(&metrics),
        progress: Arc::clone(&progress),
        was_in_use,
    });
    // Ends with the server.
    let mut monitoring = JoinSet::new();
    if let Some(address) = options.metrics {
        let listeners = Listeners::bind(&[address])?;
        for address in listeners.addresses().or_io(|| "cannot tell where counters are")? {
            progress.event(Event::Message(&format!("counters at http://{address}/metrics")));
        }
        monitoring.spawn(Arc::clone(&monitor).serve(listeners));
    }
    ready(
        &listeners
            .addresses()
            .or_io(|| "cannot tell where the registry listens")?,
    );

    let registry = Arc::new(Registry {
        directory,
        passwords: passwords.map(Arc::new),
        pushes,
        verdicts,
        monitor,
        metrics,
        progress,
    });
    if registry.pushes.is_some() {
        let registry = Arc::clone(&registry);
        tokio::task::spawn_blocking(move || registry.expire_uploads());
    }
    registry.serve(listeners, tls, stop).await;
    Ok(())
}

/// What all connections share.
struct Registry {
    directory: Arc<Directory>,
    passwords: Option<Arc<Passwords>>,
    pushes: Option<Pushes>,
    verdicts: Arc<Verdicts>,
    monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
    progress: Arc<dyn Progress>,
}

impl Registry {
    async fn serve(self: Arc<Self>, listeners: Listeners, tls: Option<TlsAcceptor>, stop: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&listeners, &room) => match accepted {
                    Ok((stream, permit)) => {
                        let registry = Arc::clone(&self);
                        let (tls, watcher) = (tls.clone(), graceful.watcher());
                        connections.spawn(async move {
                            let _held = registry.metrics.connections.hold();
                            Arc::clone(&registry).connection(stream, tls, watcher).await;
                            drop(permit);
                        });
                    }
                    Err(error) => self.accept_failed(&error).await,
                },
            }
        }
        drop(listeners);
        let under_way = graceful.count();
        if under_way > 0 {
            let seconds = STOP_TIMEOUT.as_secs();
            self.progress.event(Event::Message(&format!(
                "stopping: {under_way} open connections have {seconds} seconds to end"
            )));
        }
        // Those that are left are cut off with the set of connections.
        let _ = tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await;
    }

    async fn accept_failed(&self, error: &io::Error) {
        // A client that gave up early is its own business; a lack of file descriptors needs time to pass.
        if !matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            self.progress
                .event(Event::Warning(&format!("cannot accept a connection: {error}")));
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Serves one connection to its end. Whatever breaks it off is between the client and its network.
    async fn connection(self: Arc<Self>, stream: TcpStream, tls: Option<TlsAcceptor>, watcher: Watcher) {
        let wire = Wire::new(stream, Arc::clone(&self.metrics));
        let Some(tls) = tls else {
            let outlet = wire.outlet();
            return self.requests(wire, Some(outlet), watcher).await;
        };
        // What is encrypted comes through memory.
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(wire)).await {
            self.requests(stream, None, watcher).await;
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        outlet: Option<Outlet>,
        watcher: Watcher,
    ) {
        let service = service_fn(|request| Arc::clone(&self).request(request, outlet.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let _ = watcher.watch(connection).await;
    }

    async fn request(
        self: Arc<Self>,
        request: Request<Incoming>,
        outlet: Option<Outlet>,
    ) -> std::result::Result<Response<Sent>, Infallible> {
        let (request, mut body) = request.into_parts();
        // A task of its own: it comes to its end, and an upload to its last byte, when the connection does not.
        let (registry, method) = (Arc::clone(&self), request.method.clone());
        let answered = tokio::spawn(async move {
            let response = self.answer(&request, &mut body).await;
            if !response.status().is_success() {
                drain(&mut body).await;
            }
            response
        });
        let failed = |_| refused(&Refusal::trouble());
        let response = answered.await.unwrap_or_else(failed);
        registry.metrics.answered(&method, response.status());
        Ok(response.map(|body| body.send(outlet)))
    }

    async fn answer(self: &Arc<Self>, request: &Parts, body: &mut Incoming) -> Response<Body> {
        if request.uri.path() == HEALTH {
            return self.monitor.health(&request.method).await;
        }
        if let Some(passwords) = &self.passwords
            && !passwords.admit(request.headers.get(AUTHORIZATION)).await
        {
            return refused(&Refusal::unauthorized());
        }
        let route = match route(request, self.pushes.is_some()) {
            Ok(route) => route,
            Err(refusal) => return refused(&refusal),
        };
        match (&self.pushes, route) {
            (Some(pushes), Route::Repository { name, upstream, item }) if is_push(request, &item) => {
                let result = pushes.answer(request, (name, upstream, item), body).await;
                whatever(result, request, self.progress.as_ref())
            }
            (pushes, route) => {
                let place = match pushes {
                    Some(pushes) if is_for_a_push(&request.method, &route) => pushes.writer().await,
                    _ => None,
                };
                let (registry, request) = (Arc::clone(self), request.clone());
                let answered = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    if registry.pushes.is_some() {
                        registry.lease(&request, &route);
                    }
                    let result = answer(&registry.directory, &registry.verdicts, &request, route);
                    whatever(result, &request, registry.progress.as_ref())
                });
                answered.await.unwrap_or_else(|_| refused(&Refusal::trouble()))
            }
        }
    }

    /// Keeps what a client asks for before it pushes what needs it.
    fn lease(&self, request: &Parts, route: &Route) {
        let Route::Repository { name, upstream, item } = route else {
            return;
        };
        let leased = || -> Result<()> {
            let Some(repository) = self.directory.find(name, upstream.as_ref())? else {
                return Ok(());
            };
            match item {
                Item::Blob(digest) if is_for_a_push(&request.method, route) => {
                    self.directory.lease_blob(&repository, digest)
                }
                Item::Manifest(digest, _) => self.directory.lease_manifest(&repository, digest),
                Item::Tagged(tag) => match self.directory.tag(&repository, tag)? {
                    Some(digest) => self.directory.lease_manifest(&repository, &digest),
                    None => Ok(()),
                },
                _ => Ok(()),
            }
        };
        if let Err(error) = leased() {
            let path = request.uri.path();
            self.progress
                .event(Event::Warning(&format!("cannot keep {path} for its client: {error:?}")));
        }
    }

    fn expire_uploads(&self) {
        match self.directory.expire_uploads(UPLOADS_EXPIRE) {
            Ok(0) => {}
            Ok(expired) => self.progress.event(Event::Message(&format!(
                "removed {expired} uploads that nobody went on with for a week"
            ))),
            Err(error) => self
                .progress
                .event(Event::Warning(&format!("cannot remove old uploads: {error:?}"))),
        }
    }
}

/// Whether it is what clients ask before they push: who pulls has no use for a blob's size.
fn is_for_a_push(method: &Method, route: &Route) -> bool {
    let is_blob = matches!(
        route,
        Route::Repository {
            item: Item::Blob(_),
            ..
        }
    );
    is_blob && method == Method::HEAD
}

/// The next connection, once there is room for it.
async fn accept(listeners: &Listeners, room: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listeners.accept().await?, permit))
}
