//! The connections to everybody: by what is verified, by which way, and apart for hosts with certificates of their own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url};

use crate::error::{ErrorKind, Result, ResultExt as _};
use crate::remote::certificates::HostCertificates;
use crate::remote::endpoint::host_of;
use crate::remote::proxy::Proxies;
use crate::remote::tls::Tls;

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    tls: Tls,
    proxies: Proxies,
    connect_timeout: Duration,
    certificate_folders: Vec<PathBuf>,
    common: Pools,
    /// By host and port; none where the host has no certificates of its own.
    of_hosts: Mutex<HashMap<String, Option<Pools>>>,
}

/// Connections that one [`Tls`] is good for.
#[derive(Debug, Clone)]
struct Pools {
    verified: Client,
    unverified: Client,
    /// The same two past any proxy.
    verified_direct: Client,
    unverified_direct: Client,
    authorities: usize,
}

/// How a server is met.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) client: Client,
    /// Host and port of the proxy between, if there is one.
    pub(super) proxy: Option<String>,
    /// How many authorities are known.
    pub(super) authorities: usize,
}

impl Way {
    /// A server's name, with the proxy that it is met through.
    pub(super) fn told(&self, host: &str) -> String {
        match &self.proxy {
            Some(proxy) => format!("{host} (through the proxy {proxy})"),
            None => host.to_owned(),
        }
    }
}

impl Connections {
    pub(super) fn new(tls: Tls, certificate_folders: Vec<PathBuf>, connect_timeout: Duration) -> Result<Self> {
        Ok(Self {
            common: Pools::new(&tls, connect_timeout)?,
            proxies: Proxies::from_environment()?,
            tls,
            connect_timeout,
            certificate_folders,
            of_hosts: Mutex::default(),
        })
    }

    /// The way to a URL's server; `insecure`: any certificate will do.
    pub(super) fn way(&self, url: &Url, insecure: bool) -> Result<Way> {
        let pools = self.of_host(url)?;
        let pools = pools.as_ref().unwrap_or(&self.common);
        let proxy = self.proxies.of(url);
        let client = match (proxy.is_none(), insecure) {
            (false, false) => &pools.verified,
            (false, true) => &pools.unverified,
            (true, false) => &pools.verified_direct,
            (true, true) => &pools.unverified_direct,
        };
        Ok(Way {
            client: client.clone(),
            proxy,
            authorities: pools.authorities,
        })
    }

    fn of_host(&self, url: &Url) -> Result<Option<Pools>> {
        if self.certificate_folders.is_empty() || url.scheme() != "https" {
            return Ok(None);
        }
        let mut known = self.of_hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pools) = known.get(&host_of(url)) {
            return Ok(pools.clone());
        }
        let pools = match HostCertificates::find(&self.certificate_folders, url)? {
            Some(certificates) => Some(Pools::new(&self.tls.with(&certificates)?, self.connect_timeout)?),
            None => None,
        };
        known.insert(host_of(url), pools.clone());
        Ok(pools)
    }
}

impl Pools {
    fn new(tls: &Tls, connect_timeout: Duration) -> Result<Self> {
        let build = |configuration: &rustls::ClientConfig, direct: bool| {
            let mut builder = Client::builder()
                .tls_backend_preconfigured(configuration.clone())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(connect_timeout)
                .user_agent(concat!("sealrs/", env!("CARGO_PKG_VERSION")));
            if direct {
                builder = builder.no_proxy();
            }
            builder
                .build()
                .or_fail(ErrorKind::Internal, || "cannot set up the registry client")
        };
        Ok(Self {
            verified: build(&tls.verified, false)?,
            unverified: build(&tls.unverified, false)?,
            verified_direct: build(&tls.verified, true)?,
            unverified_direct: build(&tls.unverified, true)?,
            authorities: tls.authorities,
        })
    }
}
