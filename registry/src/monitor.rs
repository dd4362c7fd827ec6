//! What those ask who watch over the server: whether it is well, and its counters.
//!
//! The health is told to anybody at the registry's own addresses. The counters have an address of their own, which needs no
//! password and no TLS, and so can be kept from the clients' network.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sealrs_image::progress::{Event, Progress};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::answer::{empty, set};
use crate::body::{Body, Sent};
use crate::directory::Directory;
use crate::listen::Listeners;
use crate::metrics::Metrics;
use crate::route::is_reading;

/// Where the health is asked for.
pub(crate) const HEALTH: &str = "/healthz";

/// How many connections may ask for counters at once.
const CONNECTIONS: usize = 16;

/// How long one may last.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What watches over a server.
pub(crate) struct Monitor {
    pub(crate) directory: Arc<Directory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<dyn Progress>,
    /// Whether there was anything in the directory when the server started.
    pub(crate) was_in_use: bool,
}

impl Monitor {
    /// Whether images can be served.
    pub(crate) async fn health(self: &Arc<Self>, method: &Method) -> Response<Body> {
        if !is_reading(method) {
            return not_allowed();
        }
        let monitor = Arc::clone(self);
        let found = spawn_blocking(move || monitor.directory.is_in_use()).await;
        let trouble = match found {
            Ok(Ok(is_in_use)) if is_in_use >= self.was_in_use => return text(StatusCode::OK, "ok\n".to_owned()),
            Ok(Ok(_)) => "the registry's directory is gone".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.progress.event(Event::Warning(&format!("{HEALTH}: {trouble}")));
        let told = "the registry's directory cannot be read\n".to_owned();
        text(StatusCode::SERVICE_UNAVAILABLE, told)
    }

    /// Gives out counters until the future is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listeners: Listeners) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok(stream) = listeners.accept().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let monitor = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| Arc::clone(&monitor).request(request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(TIMEOUT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(TIMEOUT, connection).await;
                drop(place);
            });
        }
    }

    async fn request<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Sent>, Infallible> {
        let method = request.method();
        let response = match request.uri().path() {
            HEALTH => self.health(method).await,
            "/metrics" if is_reading(method) => {
                let mut response = text(StatusCode::OK, self.metrics.text());
                set(&mut response, CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
                response
            }
            "/metrics" => not_allowed(),
            _ => text(StatusCode::NOT_FOUND, format!("there is /metrics and {HEALTH}\n")),
        };
        Ok(response.map(|body| body.send(None)))
    }
}

fn not_allowed() -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}
