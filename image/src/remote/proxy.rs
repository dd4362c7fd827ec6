//! Which proxy a request takes: the word of the environment, as curl and docker read it.
//!
//! `HTTPS_PROXY` and `HTTP_PROXY` for the two schemes, `ALL_PROXY` for both, `NO_PROXY` for what goes past them; each may
//! be written in small letters. Nothing to this very host goes to a proxy: it could not get there.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::remote::endpoint::is_loopback;

/// The proxies of the environment.
#[derive(Debug)]
pub(super) struct Proxies {
    matcher: Matcher,
    /// Entries of `NO_PROXY` that hold for one port. The library knows entries without a port only; each of these is one
    /// of those that sends everything else to a proxy.
    past: Vec<(u16, Matcher)>,
}

impl Proxies {
    /// Those of this process's environment.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when a variable names a proxy that can't be used: passing it by in silence could lead
    /// around a wall that the user relies on.
    pub(super) fn from_environment() -> Result<Self> {
        Self::new(|name| std::env::var(name).ok())
    }

    fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()));
            value.unwrap_or_default()
        };
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            check(name, &get(name))?;
        }
        let no_proxy = get("NO_PROXY");
        let with_port = no_proxy.split(',').filter_map(|entry| {
            let (host, port) = entry.trim().rsplit_once(':')?;
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            // An IPv6 address without brackets has no port.
            let host = bracketed.unwrap_or(host);
            (bracketed.is_some() || !host.contains(':')).then_some(())?;
            Some((
                port.parse().ok()?,
                Matcher::builder().all("http://proxy").no(host).build(),
            ))
        });
        Ok(Self {
            past: with_port.collect(),
            matcher: Matcher::builder()
                .all(get("ALL_PROXY"))
                .https(get("HTTPS_PROXY"))
                .http(get("HTTP_PROXY"))
                .no(no_proxy.as_str())
                .build(),
        })
    }

    /// Host and port of the proxy that a request to `url` takes, none if it goes straight.
    pub(super) fn of(&self, url: &Url) -> Option<String> {
        if is_loopback(url) {
            return None;
        }
        let uri = url.as_str().parse().ok()?;
        let proxy = self.matcher.intercept(&uri)?;
        let port = url.port_or_known_default();
        let past = |(of, matcher): &(u16, Matcher)| Some(*of) == port && matcher.intercept(&uri).is_none();
        if self.past.iter().any(past) {
            return None;
        }
        // Never with the user and the password, which the library has taken out.
        proxy.uri().authority().map(ToString::to_string)
    }
}

fn check(name: &str, value: &str) -> Result<()> {
    let scheme = value.split_once("://").map_or("http", |(scheme, _)| scheme);
    let usable = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https")
        && "http://a.invalid/"
            .parse()
            .is_ok_and(|uri| Matcher::builder().all(value).build().intercept(&uri).is_some());
    if usable || value.is_empty() {
        return Ok(());
    }
    // The value may hold a password.
    Err(Error::new(
        ErrorKind::Input,
        format!("the environment variable {name} names no proxy that can be used"),
    )
    .hint("write http://HOST:PORT, https://HOST:PORT or http://USER:PASSWORD@HOST:PORT; special characters as %XX"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::new(|name| {
            let pair = variables.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_scheme_and_no_proxy_decide() {
        let proxies = proxies(&[
            ("HTTPS_PROXY", "http://user:pa%40ss@secure.proxy:3128"),
            ("http_proxy", "plain.proxy:8080"),
            (
                "NO_PROXY",
                "direct.com, .sub.com,10.0.0.0/8,port.com:5000,192.168.1.1:5000,[fd00::1]:5000,fd00::2",
            ),
        ])
        .unwrap();
        let (secure, plain) = (Some("secure.proxy:3128"), Some("plain.proxy:8080"));
        for (url, proxy) in [
            ("https://a.com/", secure),
            ("https://a.com:5000/", secure),
            ("http://a.com/", plain),
            ("https://direct.com/", None),
            ("https://direct.com:5000/", None),
            ("https://x.direct.com/", None),
            ("https://indirect.com/", secure),
            ("https://x.sub.com/", None),
            ("https://10.1.2.3/", None),
            ("https://11.1.2.3/", secure),
            ("https://port.com:5000/", None),
            ("https://x.port.com:5000/", None),
            ("https://port.com/", secure),
            ("http://port.com:5000/", None),
            ("https://192.168.1.1:5000/", None),
            ("https://192.168.1.1/", secure),
            ("https://[fd00::1]:5000/", None),
            ("https://[fd00::1]/", secure),
            ("https://[fd00::2]/", None),
            ("https://localhost:5000/", None),
            ("https://127.0.0.9/", None),
            ("http://[::1]:5000/", None),
        ] {
            assert_eq!(proxies.of(&url.parse().unwrap()).as_deref(), proxy, "{url}");
        }
        assert!(!format!("{proxies:?}").contains("pa@ss") && !format!("{proxies:?}").contains("pa%40ss"));
    }

    #[test]
    fn everything_or_nothing() {
        let of = |variables: &[(&str, &str)]| proxies(variables).unwrap().of(&"https://a.com/".parse().unwrap());
        assert_eq!(of(&[("ALL_PROXY", "http://all:1")]).as_deref(), Some("all:1"));
        assert_eq!(of(&[("all_proxy", "http://all:1"), ("NO_PROXY", "*")]), None);
        assert_eq!(of(&[("HTTP_PROXY", "http://plain:1")]), None);
        assert_eq!(of(&[("HTTPS_PROXY", "")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_passed_by() {
        for value in [
            "socks5://a:1080",
            "ftp://a",
            "http://",
            "http://u:hunter2@",
            "a b",
            "http://u:hunter2@a b:1",
        ] {
            let error = proxies(&[("https_proxy", value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{value}");
            let text = format!("{error:?}");
            assert!(text.contains("HTTPS_PROXY") && !text.contains("hunter2"), "{text}");
        }
    }
}
