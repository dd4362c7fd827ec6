//! HTTP as registries need it: one request and its redirects, with every wait bounded. Statuses are not judged here.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use crate::error::{Error, ErrorKind, Result};
use crate::remote::connections::{Connections, Way};
use crate::remote::endpoint::{InsecureHosts, host_of};
use crate::remote::failure::Failure;

const MAX_REDIRECTS: usize = 10;
/// How much more patience an answer to a request with a body gets.
pub(super) const AFTER_BODY: u32 = 4;

/// A request, apart from its authorization.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Sent with a method that has a body.
    pub(super) body: Option<Bytes>,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
        }
    }

    pub(super) fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// Requests to everybody.
#[derive(Debug)]
pub(super) struct Wire {
    connections: Connections,
    insecure_hosts: InsecureHosts,
    patience: Duration,
}

impl Wire {
    /// `patience`: how long a server may send nothing.
    pub(super) fn new(connections: Connections, insecure_hosts: InsecureHosts, patience: Duration) -> Self {
        Self {
            connections,
            insecure_hosts,
            patience,
        }
    }

    pub(super) fn insecure_hosts(&self) -> &InsecureHosts {
        &self.insecure_hosts
    }

    /// Sends a request and follows where it leads. The authorization goes to the call's own server only, and not even
    /// there after a detour over another one.
    pub(super) async fn send(&self, call: &Call, authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut url = call.url.clone();
        let mut authorization = authorization;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(call, &url, authorization).await?;
            let Some(next) = redirect(&call.method, &response)? else {
                return Ok(response);
            };
            self.insecure_hosts.check_step(&url, &next)?;
            if !same_origin(&next, &call.url) {
                authorization = None;
            }
            url = next;
        }
        let what = format!("{} redirects without end", host_of(&call.url));
        Err(Error::new(ErrorKind::Network, what).into())
    }

    /// The failure that a response of no success is.
    pub(super) async fn refusal(&self, response: Response) -> Failure {
        Failure::status(response, self.patience).await
    }

    /// The next piece of a body, none at its end.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Failure> {
        match tokio::time::timeout(self.patience, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Failure::transport(&error, response.url(), &self.way(response.url())?)),
            Err(_) => Err(Failure::silent(response.url(), self.patience)),
        }
    }

    /// A whole small body.
    ///
    /// Fails with [`ErrorKind::Integrity`] when it is longer than `most` bytes.
    pub(super) async fn body(&self, mut response: Response, most: u64) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if body.len() as u64 + chunk.len() as u64 > most {
                let what = format!("{} sent a document of more than {most} bytes", host_of(response.url()));
                return Err(Error::new(ErrorKind::Integrity, what).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Sends a request whose body is made while it is sent. It leads nowhere else, and nobody limits its time but who
    /// makes the body; the answer after the body's end may take `patience` times [`AFTER_BODY`].
    pub(super) async fn send_stream(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
        body: reqwest::Body,
    ) -> Result<Response, Failure> {
        let way = self.way(&call.url)?;
        let sent = request(&way, call, &call.url, authorization).body(body).send().await;
        sent.map_err(|error| Failure::transport(&error, &call.url, &way))
    }

    /// How long a server may say nothing.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    fn way(&self, url: &Url) -> Result<Way> {
        self.connections.way(url, self.insecure_hosts.lists(url))
    }

    async fn once(&self, call: &Call, url: &Url, authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let way = self.way(url)?;
        let mut request = request(&way, call, url, authorization);
        let mut patience = self.patience;
        if let Some(body) = &call.body {
            request = request.body(body.clone());
            // The body has to get there, and what it ends (an upload) has to be put in its place.
            patience = patience.saturating_mul(AFTER_BODY);
        }
        match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::transport(&error, url, &way)),
            Err(_) => Err(Failure::silent(url, patience)),
        }
    }
}

fn request(way: &Way, call: &Call, url: &Url, authorization: Option<&HeaderValue>) -> RequestBuilder {
    let mut request = way
        .client
        .request(call.method.clone(), url.clone())
        .headers(call.headers.clone())
        // Digests and ranges are of the bytes as they are.
        .header(ACCEPT_ENCODING, "identity");
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    request
}

/// Where a response sends us, if it does.
fn redirect(method: &Method, response: &Response) -> Result<Option<Url>> {
    let leads_on = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !leads_on || !(method == Method::GET || method == Method::HEAD) {
        return Ok(None);
    }
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    match location.and_then(|location| response.url().join(location).ok()) {
        Some(next) if next.has_host() => Ok(Some(next)),
        _ => Err(Error::new(
            ErrorKind::Network,
            format!("{} redirects without saying where to", host_of(response.url())),
        )),
    }
}

/// Whether two URLs are of the same server: scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}
