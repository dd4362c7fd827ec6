//! A failed attempt: our error for it, and whether another attempt has a chance.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode, Url};
use rustls::{AlertDescription, CertificateError};

use crate::error::{Error, ErrorKind};
use crate::remote::connections::Way;
use crate::remote::endpoint::host_of;
use crate::remote::retry;

/// How much of an error's body is looked at, in bytes.
const MAX_ERROR_BODY: usize = 8 << 10;
/// How much of a server's own words is shown, in characters.
const MAX_SHOWN: usize = 300;

/// Whether another attempt has a chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// No.
    Never,
    /// Yes, after a pause.
    Later,
    /// Yes, after the pause that the server asked for.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether another one has a chance.
    pub(super) again: Again,
    /// The error, should it be the last one.
    pub(super) error: Error,
    /// Whether a plain HTTP server meets TLS this way: it broke off or spoke something else before there was any.
    pub(super) before_tls: bool,
    /// The status of the server's answer, if it answered.
    pub(super) status: Option<StatusCode>,
}

impl From<Error> for Failure {
    /// An error of ours that no repetition mends.
    fn from(error: Error) -> Self {
        Self::new(Again::Never, error)
    }
}

impl Failure {
    pub(super) fn new(again: Again, error: Error) -> Self {
        Self {
            again,
            error,
            before_tls: false,
            status: None,
        }
    }

    /// Whether a connection broke or fell silent: nobody has said anything against another one.
    pub(super) fn broke_off(&self) -> bool {
        self.again == Again::Later && self.status.is_none()
    }

    /// The same failure with a remedy.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error = self.error.hint(hint);
        self
    }

    /// Whether the server found fault with what it was sent, rather than with who sends it, or when.
    pub(super) fn finds_fault(&self) -> bool {
        matches!(
            self.status,
            Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
        )
    }

    /// The server said nothing for `patience`.
    pub(super) fn silent(url: &Url, patience: Duration) -> Self {
        let what = format!("{} sent nothing for {} s", host_of(url), patience.as_secs_f32());
        Self::new(Again::Later, Error::new(ErrorKind::Network, what))
    }

    /// No connection, no TLS, or a connection that broke.
    pub(super) fn transport(error: &reqwest::Error, url: &Url, way: &Way) -> Self {
        let host = host_of(url);
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::tls(tls, &host, way);
        }
        if let Some(proxy) = way.proxy.as_deref().filter(|_| error.is_connect()) {
            return Self::proxy(error, &host, proxy);
        }
        let before_tls = error.is_connect();
        let (what, hint) = if error.is_dns() {
            (
                format!("the name of {host} cannot be resolved"),
                Some("check the name, and this host's DNS and network; behind a proxy, set HTTPS_PROXY"),
            )
        } else if error.is_connect() && error.is_timeout() {
            (
                format!("{host} does not answer"),
                Some("check the network and firewalls between; behind a proxy, set HTTPS_PROXY"),
            )
        } else if error.is_connect() {
            (
                format!("cannot connect to {host}"),
                Some("check the host, its port, and that the registry is running"),
            )
        } else {
            (format!("the connection to {} broke off", way.told(&host)), None)
        };
        // Never with the URL: where a redirect leads is often a signed one.
        let error = Error::new(ErrorKind::Network, what).because(innermost(error));
        let mut failure = Self::new(Again::Later, error);
        failure.before_tls = before_tls;
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// The proxy can't be reached, or does not connect us.
    fn proxy(error: &reqwest::Error, host: &str, proxy: &str) -> Self {
        let cause = innermost(error);
        let variables = "HTTPS_PROXY, HTTP_PROXY and NO_PROXY";
        // The type that tells these apart is not public.
        let (again, kind, what, hint) = if error.is_dns() {
            let what = format!("the name of the proxy {proxy} for {host} cannot be resolved");
            (
                Again::Later,
                ErrorKind::Network,
                what,
                format!("check the environment variables {variables}"),
            )
        } else if cause.contains("proxy authorization required") {
            let what = format!("the proxy {proxy} connects to {host} only whom it knows");
            let hint = "give it user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT".to_owned();
            (Again::Never, ErrorKind::Auth, what, hint)
        } else if cause.contains("tunnel error: ") {
            let what = format!("the proxy {proxy} does not connect to {host}");
            let hint = format!("ask whoever runs the proxy; if {host} can be reached without it, add it to NO_PROXY");
            (Again::Later, ErrorKind::Network, what, hint)
        } else {
            let what = format!("cannot connect to the proxy {proxy} for {host}");
            (
                Again::Later,
                ErrorKind::Network,
                what,
                format!("check the environment variables {variables}"),
            )
        };
        let failure = Self::new(again, Error::new(kind, what).because(cause)).hint(hint);
        Self {
            before_tls: true,
            ..failure
        }
    }

    fn tls(error: &rustls::Error, host: &str, way: &Way) -> Self {
        let name = host;
        let host = way.told(host);
        let (what, hint) = match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) if way.authorities == 0 => (
                format!("the certificate of {host} is not trusted: this host knows no certificate authorities at all"),
                "give the authorities' certificates with `--ca-file`, or install the package `ca-certificates`"
                    .to_owned(),
            ),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
                format!("the certificate of {host} is not trusted"),
                "give the certificate of the registry's authority with `--ca-file`".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => (
                format!("the certificate of {host} is not valid at this time"),
                "check this host's clock, or have the certificate renewed".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => (
                format!("the certificate of {host} is for another name"),
                "use a name that the certificate lists".to_owned(),
            ),
            rustls::Error::InvalidCertificate(_) => (
                format!("the certificate of {host} is not accepted"),
                "have a certificate issued for it by an authority, and give that one with `--ca-file`".to_owned(),
            ),
            rustls::Error::InvalidMessage(_) => (
                format!("{host} does not speak TLS"),
                format!("if it is a plain http registry, allow that with `--insecure-registry {name}`"),
            ),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied,
            ) => (
                format!("{host} wants another client certificate than it was given, if any"),
                format!(
                    "put the certificate that the registry's owner issued for you, and its key, into \
                     ~/.config/containers/certs.d/{name}/ as client.cert and client.key"
                ),
            ),
            _ => (
                format!("the TLS handshake with {host} failed"),
                "look into the registry's log; it may want a newer or older TLS".to_owned(),
            ),
        };
        let before_tls = matches!(error, rustls::Error::InvalidMessage(_));
        let error = Error::new(ErrorKind::Network, what)
            .because(error.to_string())
            .hint(hint);
        Self {
            before_tls,
            ..Self::new(Again::Never, error)
        }
    }

    /// The server answered with a status that is none of success. Reads its words about it.
    pub(super) async fn status(response: Response, patience: Duration) -> Self {
        let status = response.status();
        let host = host_of(response.url());
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Auth,
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::RANGE_NOT_SATISFIABLE => ErrorKind::Integrity,
            _ => ErrorKind::Network,
        };
        let asked = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|value| retry::retry_after(value, jiff::Timestamp::now()));
        let passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let again = match asked {
            _ if !passing && !status.is_server_error() => Again::Never,
            Some(pause) => Again::After(pause),
            None => Again::Later,
        };
        let mut error = Error::new(kind, format!("{host} answered {status}"));
        if let Some(words) = words_of(response, patience).await {
            error = error.because(words);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            error = error.hint("wait a while; registries allow more to those who are logged in");
        }
        Self {
            status: Some(status),
            ..Self::new(again, error)
        }
    }
}

/// What the server says about its refusal, in a form fit for a terminal.
async fn words_of(mut response: Response, patience: Duration) -> Option<String> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= MAX_ERROR_BODY {
                break;
            }
        }
    };
    // Words that come too late are done without.
    let _ = tokio::time::timeout(patience, reading).await;
    error_words(&body)
}

/// The messages of an error document (distribution specification, "Error Codes") or of a token server's.
fn error_words(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |value: &serde_json::Value, key: &str| {
        let text = value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        text.trim().to_owned()
    };
    let mut words: Vec<String> = match document.get("errors").and_then(serde_json::Value::as_array) {
        Some(errors) => errors
            .iter()
            .map(|error| match (text(error, "code"), text(error, "message")) {
                (code, message) if code.is_empty() || message.is_empty() => code + &message,
                (code, message) => format!("{code}: {message}"),
            })
            .collect(),
        None => vec![
            text(&document, "error_description"),
            text(&document, "details"),
            text(&document, "message"),
        ],
    };
    words.retain(|word| !word.is_empty());
    let words = words.join("; ");
    let shown: String = words.escape_debug().take(MAX_SHOWN).collect();
    (!shown.is_empty()).then_some(shown)
}

/// The text of the cause of all causes.
fn innermost(error: &reqwest::Error) -> String {
    let mut current: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = next_cause(current) {
        current = next;
    }
    if std::ptr::addr_eq(current, error) {
        return "the request failed".to_owned();
    }
    current.to_string()
}

/// The first error of type `T` among an error's causes.
fn find<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut current: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        current = next_cause(current)?;
    }
}

/// An `io::Error` hides the error it carries from `source`.
fn next_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e (dyn std::error::Error + 'static)> {
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && let Some(inner) = io.get_ref()
    {
        return Some(inner);
    }
    error.source()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_servers_words_and_nothing_that_harms_a_terminal() {
        for (body, words) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no such luck"}]}"#,
                Some("DENIED: no such luck"),
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, Some("A; b")),
            (r#"{"errors":[]}"#, None),
            (
                r#"{"details":"incorrect username or password"}"#,
                Some("incorrect username or password"),
            ),
            ("{\"message\":\"\\u001b[2Jx\"}", Some("\\u{1b}[2Jx")),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(error_words(body.as_bytes()).as_deref(), words, "{body}");
        }
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(5000));
        assert_eq!(error_words(long.as_bytes()).unwrap().len(), MAX_SHOWN);
    }
}
