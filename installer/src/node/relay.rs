//! Hosts that pass on what they unpack, so that the operator need not send it to each.
//!
//! Whoever passes on keeps each blob as it comes, and others read it while it grows: a host begins when the one before it does. They
//! talk as operator and host do ([`super::wire`]), over TLS with certificates that were made for this run on both sides. Nothing is
//! believed: every host verifies what it unpacks. Whoever can't get a blob this way gets it from the operator.

mod keep;
mod peer;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealrs_image::error::{ErrorKind, Result, ResultExt as _};
use sealrs_image::spec::Descriptor;
use serde::{Deserialize, Serialize};

pub(crate) use keep::Kept;
pub(super) use peer::Relayed;

/// What a host needs to talk to others in this run. All of it is PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// The certificate of the authority that all passes of the run are from.
    pub(crate) authority: String,
    /// The host's certificate.
    pub(crate) certificate: String,
    /// The certificate's key.
    pub(crate) key: String,
}

/// Without the key.
impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass")
    }
}

impl Pass {
    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes());
        let authority = authority.or_fail(ErrorKind::Internal, unusable)?;
        roots.add(authority).or_fail(ErrorKind::Internal, unusable)?;
        Ok(roots)
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let certificate = certificate.or_fail(ErrorKind::Internal, unusable)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).or_fail(ErrorKind::Internal, unusable)?;
        Ok((vec![certificate], key))
    }
}

fn unusable() -> &'static str {
    "a certificate for this run can't be used"
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Where a host gets an image from, and how it shows who it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) pass: Pass,
}

/// What a host asks another one for.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    blob: Descriptor,
    offset: u64,
}

/// Which host each gets an image from, by its place in the list: the first one from the operator, and each passes it on to two
/// more at most. A wider tree would have the first hosts' uplinks carry it more often, a narrower one would be as deep as
/// there are hosts.
pub(crate) fn upstream_of(place: usize) -> Option<usize> {
    const EACH: usize = 2;
    Some(place.checked_sub(1)? / EACH)
}

#[cfg(test)]
mod tests;
