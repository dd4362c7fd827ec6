//! Whom we believe: rustls configurations with the system's authorities and the user's own.
//!
//! The one place of this crate that names the cryptography provider. It is given explicitly, so nothing has to be
//! installed for the process first. A host without any authorities is fine until it meets a certificate.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{ErrorKind, Result, ResultExt as _};
use crate::remote::certificates::{Authority, HostCertificates, Identity, read_authorities};

/// The two ways to meet a server.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    /// Certificates are verified.
    pub(super) verified: ClientConfig,
    /// Any certificate will do: for hosts that the user calls insecure.
    pub(super) unverified: ClientConfig,
    /// How many authorities are known.
    pub(super) authorities: usize,
    roots: RootCertStore,
    given: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Reads the system's authorities and those of `ca_files` (PEM).
    ///
    /// # Errors
    /// When one of `ca_files` can't be read or holds no certificate. What is wrong with the system's own is seen
    /// when a certificate fails for it.
    pub(super) fn load(ca_files: &[PathBuf]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut authorities = Vec::new();
        for file in ca_files {
            authorities.extend(read_authorities(file)?);
        }
        Self::new(roots, Vec::new(), &authorities, None)
    }

    /// The same for a host with certificates of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when one of them can't be used.
    pub(super) fn with(&self, certificates: &HostCertificates) -> Result<Self> {
        let identity = certificates.identity.as_ref();
        Self::new(
            self.roots.clone(),
            self.given.clone(),
            &certificates.authorities,
            identity,
        )
    }

    fn new(
        mut roots: RootCertStore,
        mut given: Vec<CertificateDer<'static>>,
        more: &[Authority],
        identity: Option<&Identity>,
    ) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        for authority in more {
            roots.add(authority.certificate.clone()).or_fail(ErrorKind::Input, || {
                format!("a certificate in {} cannot be used", authority.file.display())
            })?;
            given.push(authority.certificate.clone());
        }
        let authorities = roots.len();
        let verifier = Verifier {
            // rustls's own refuses to be made without any root.
            authorities: match authorities {
                0 => None,
                _ => Some(
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(&provider))
                        .build()
                        .or_fail(ErrorKind::Internal, || "cannot set up the verification of certificates")?,
                ),
            },
            given: given.clone(),
            provider: Arc::clone(&provider),
        };
        Ok(Self {
            verified: configuration(&provider, Arc::new(verifier), identity)?,
            unverified: configuration(&provider, Arc::new(Unverified(Arc::clone(&provider))), identity)?,
            authorities,
            roots,
            given,
        })
    }
}

fn configuration(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&Identity>,
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .or_fail(ErrorKind::Internal, || "cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder
        .with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())
        .or_fail(ErrorKind::Input, || {
            format!(
                "the client certificate {} and its key cannot be used",
                identity.file.display()
            )
        })
}

/// The usual verification, and one thing that it lacks: a server's self-signed certificate that says it is an
/// authority (what `openssl req -x509` makes, and so very many registries have) is believed when the user gave that
/// very certificate. It still has to be for the server's name and in its time.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    given: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let verified = authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Time and purpose were looked at before this, the name was not.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string() == "CaUsedAsEndEntity" && self.given.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes every certificate, but not that a stranger holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.pem");
        let error = Tls::load(std::slice::from_ref(&missing)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("missing.pem"), "{error:?}");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let broken = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "hello", key, broken, nonsense] {
            let path = directory.path().join("ca.pem");
            std::fs::write(&path, content).unwrap();
            let error = Tls::load(&[path]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{content}: {error:?}");
        }
    }
}
