//! Where a registry's API is, and which hosts may be met without the protection of TLS.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Response, StatusCode, Url};

use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::remote::auth::Access;
use crate::remote::challenge::Challenge;
use crate::remote::failure::Failure;
use crate::remote::gate::Gate;
use crate::remote::wire::{Call, Wire, same_origin};

/// How long a host that may speak plain HTTP is given to show that it speaks TLS.
const TLS_PROBE: Duration = Duration::from_secs(5);

/// The hosts that the user calls insecure, as Docker has it: plain HTTP, or TLS with any certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct InsecureHosts(Vec<String>);

impl InsecureHosts {
    /// Takes `HOST` (any port) and `HOST:PORT`.
    pub(super) fn new(hosts: &[String]) -> Result<Self> {
        for host in hosts {
            let named = Url::parse(&format!("http://{host}/")).ok();
            let plain =
                named.is_some_and(|url| url.path() == "/" && url.username().is_empty() && url.query().is_none());
            if !plain || host.contains(['/', '@', '#']) {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("`{}` is not a registry's host", host.escape_debug()),
                )
                .hint("give `--insecure-registry` a HOST or HOST:PORT, without `http://` and path"));
            }
        }
        Ok(Self(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()))
    }

    /// Whether the user lists this URL's host.
    pub(super) fn lists(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        self.0.iter().any(|listed| *listed == host || *listed == with_port)
    }

    /// Whether a registry at this URL may be spoken to in plain HTTP.
    pub(super) fn permit_plain(&self, url: &Url) -> bool {
        is_loopback(url) || self.lists(url)
    }

    /// Whether what `from` names (a redirect, a token server, a foreign layer) may be asked at all.
    ///
    /// A registry out there must not send us to plain HTTP, nor to servers of this very host.
    pub(super) fn check_step(&self, from: &Url, to: &Url) -> Result<()> {
        let allowed = match to.scheme() {
            "https" => true,
            "http" => self.lists(to) || (is_loopback(to) && self.permit_plain(from)),
            _ => false,
        };
        if allowed {
            return Ok(());
        }
        let (from, host) = (host_of(from), host_of(to));
        let error = Error::new(
            ErrorKind::Network,
            format!("{from} sends us to {host} by {}, which is not safe", to.scheme()),
        );
        Err(match to.scheme() {
            "http" => error.hint(format!(
                "if you trust the network between, allow it with `--insecure-registry {host}`"
            )),
            _ => error,
        })
    }
}

/// Whether the URL's host is this very host.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Host and port of a URL, for messages: the port only if it is not the scheme's own.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A registry's API, found.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The URL that ends in `/v2/`.
    pub(super) base: Url,
    /// What it asks of everybody, as far as known.
    challenge: Mutex<Option<Challenge>>,
    /// Requests that read.
    pulls: Arc<Gate>,
    /// Requests that write. Apart from the others: who copies from one repository of a host to another holds one of
    /// each, and must not wait for himself.
    pushes: Arc<Gate>,
}

impl Endpoint {
    /// The URL of `path`, which is made of checked names and digests.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(path)
            .or_fail(ErrorKind::Internal, || format!("`{path}` does not make a URL"))
    }

    /// The gate for what is done.
    pub(super) fn gate(&self, access: Access<'_>) -> &Arc<Gate> {
        if access.writes() { &self.pushes } else { &self.pulls }
    }

    pub(super) fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers a challenge, so that later requests meet it at once.
    pub(super) fn learn(&self, challenge: Challenge) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.of_registry());
    }
}

/// The registries met so far.
#[derive(Debug)]
pub(super) struct Endpoints {
    met: Mutex<HashMap<String, Arc<Endpoint>>>,
    /// Connections to each at once.
    connections: usize,
}

impl Endpoints {
    pub(super) fn new(connections: usize) -> Self {
        Self {
            met: Mutex::default(),
            connections,
        }
    }

    /// The API of `host` (as a reference names it). Asks it first when it is new.
    pub(super) async fn find(&self, wire: &Wire, host: &str) -> Result<Arc<Endpoint>, Failure> {
        let known = self
            .met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(host)
            .cloned();
        if let Some(endpoint) = known {
            return Ok(endpoint);
        }
        let found = Arc::new(probe(wire, host, self.connections).await?);
        let mut all = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came first stays: others may hold it already.
        Ok(Arc::clone(all.entry(host.to_owned()).or_insert(found)))
    }
}

/// Asks `/v2/` for its scheme and its challenge. Only a host that may speak plain HTTP is asked that way, and only
/// after it has shown that it speaks no TLS.
async fn probe(wire: &Wire, host: &str, connections: usize) -> Result<Endpoint, Failure> {
    let host = match host {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let url = |scheme: &str| {
        Url::parse(&format!("{scheme}://{host}/v2/")).or_fail(ErrorKind::Input, || {
            format!("`{}` is not a registry's host", host.escape_debug())
        })
    };
    let mut base = url("https")?;
    let response = if wire.insecure_hosts().permit_plain(&base) {
        let asked = tokio::time::timeout(TLS_PROBE, ask(wire, &base)).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(Failure {
                before_tls: true,
                ..Failure::silent(&base, TLS_PROBE)
            })
        });
        match asked {
            Err(failure) if failure.before_tls => {
                base = url("http")?;
                match ask(wire, &base).await {
                    // How a TLS server takes plain HTTP: so it is one, and the first failure was a passing one.
                    Ok(response) if response.status() == StatusCode::BAD_REQUEST => {
                        return Err(failure);
                    }
                    plain => plain?,
                }
            }
            asked => asked?,
        }
    } else {
        ask(wire, &base).await?
    };
    let challenge = match response.status() {
        // Somebody else's challenge (after a redirect) is not met with this registry's credentials.
        StatusCode::UNAUTHORIZED if same_origin(response.url(), &base) => {
            Challenge::choose(response.headers()).map(Challenge::of_registry)
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            return Err(wire.refusal(response).await);
        }
        status if status.is_server_error() => return Err(wire.refusal(response).await),
        _ => None,
    };
    Ok(Endpoint {
        base,
        challenge: Mutex::new(challenge),
        pulls: Gate::new(connections),
        pushes: Gate::new(connections),
    })
}

async fn ask(wire: &Wire, url: &Url) -> Result<Response, Failure> {
    wire.send(&Call::get(url.clone()), None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn plain_http_is_for_this_host_and_for_listed_ones() {
        let listed = [
            "Reg.example.com:5000",
            "10.0.0.9",
            "[fd00::1]:5000",
            "other.example.com",
        ]
        .map(str::to_owned);
        let insecure = InsecureHosts::new(&listed).unwrap();
        for (target, lists, permits) in [
            ("https://reg.example.com:5000/", true, true),
            ("https://reg.example.com/", false, false),
            ("https://10.0.0.9:1234/", true, true),
            ("https://10.0.0.90/", false, false),
            ("https://other.example.com/", true, true),
            ("https://other.example.com.evil.org/", false, false),
            ("https://[fd00::1]:5000/", true, true),
            ("https://[fd00::1]/", false, false),
            ("https://127.0.0.1:5000/", false, true),
            ("https://127.9.9.9/", false, true),
            ("https://[::1]:5000/", false, true),
            ("https://localhost/", false, true),
            ("https://localhost.evil.org/", false, false),
            ("https://128.0.0.1/", false, false),
            ("https://127.0.0.1.evil.org/", false, false),
        ] {
            let target = url(target);
            assert_eq!(
                (insecure.lists(&target), insecure.permit_plain(&target)),
                (lists, permits),
                "{target}"
            );
        }
        for bad in ["http://a", "a/b", "", "a b", "user@a", "a#", "a?b", "a:99999"] {
            let error = InsecureHosts::new(&[bad.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{bad}");
        }
    }

    #[test]
    fn nobody_leads_us_to_an_unsafe_place() {
        let insecure = InsecureHosts::new(&["plain.example.com".to_owned()]).unwrap();
        for (from, to, safe) in [
            ("https://a.com/", "https://b.com/", true),
            ("https://a.com/", "http://a.com/", false),
            ("https://a.com/", "http://127.0.0.1:80/", false),
            ("https://a.com/", "http://plain.example.com/", true),
            ("http://127.0.0.1:5000/", "http://localhost:6000/", true),
            ("https://plain.example.com/", "http://localhost:6000/", true),
            ("http://127.0.0.1:5000/", "http://a.com/", false),
            ("https://a.com/", "ftp://a.com/", false),
            ("https://a.com/", "file:///etc/passwd", false),
        ] {
            assert_eq!(
                insecure.check_step(&url(from), &url(to)).is_ok(),
                safe,
                "{from} -> {to}"
            );
        }
    }
}
