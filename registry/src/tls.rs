//! The server's side of TLS, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use tokio_rustls::TlsAcceptor;

/// Where the server's certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// A PEM file with the server's certificate first, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// A PEM file with the certificate's private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
}

impl TlsFiles {
    /// What speaks TLS with these files.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain = certificates(&self.certificate)?;
        let private = private_key(&self.key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .or_fail(ErrorKind::Internal, || "cannot set up TLS")?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .or_fail(ErrorKind::Input, || {
                format!("the certificate `{certificate}` and the key `{key}` cannot be used together")
            })
            .map_err(|error| error.hint("name a certificate and the private key that it was made for"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(path, "certificate", "CERTIFICATE")),
        Err(error) => Err(unusable(path, "certificate", "CERTIFICATE").because(error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let failure = unusable(path, "private key", "PRIVATE KEY");
        match error {
            pem::Error::NoItemsFound => failure,
            error => failure.because(error),
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).or_io(|| format!("cannot read `{}`", path.display()))
}

fn unusable(path: &Path, what: &str, section: &str) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("`{}` has no {what} in PEM form", path.display()),
    )
    .hint(format!(
        "a PEM file has a line `-----BEGIN {section}-----`; an encrypted key has to be decrypted first"
    ))
}
