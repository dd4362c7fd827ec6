//! The certificate authorities of a cluster and the certificate of its private registry: ECDSA on P-256.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use p256::SecretKey;
use p256::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::file;

use crate::files;
use crate::node::Pass;

/// Hosts' clocks differ: a certificate that is valid only from now on would be refused by those behind.
const BEFORE: Duration = Duration::from_secs(3600);
/// What kubeadm makes itself.
const RSA_BITS: usize = 2048;
/// Of the sun.
const YEAR: Duration = Duration::from_secs(31_556_952);
/// An authority that is thrown away when a run ends.
const RUN: u16 = 1;

/// Makes `ca.crt`, `ca.key`, `registry.crt` and `registry.key` in the folder `path`, unless they are there.
///
/// # Errors
/// Disk errors; [`ErrorKind::Input`] when a name can't be in a certificate.
pub(crate) fn make(
    path: &Path,
    cluster: &str,
    names: &BTreeSet<String>,
    addresses: &BTreeSet<IpAddr>,
    years: u16,
) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // All four appear at once: a key that does not belong to its certificate would be found much later.
    let staging = path.with_extension("partial");
    files::remove_tree(&staging)?;
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&staging)
        .or_io(|| format!("cannot make the folder {}", staging.display()))?;
    let failed = || "cannot make certificates";
    let ca_key = KeyPair::generate().or_fail(ErrorKind::Internal, failed)?;
    let ca_parameters = authority(cluster, years)?;
    let ca = ca_parameters
        .self_signed(&ca_key)
        .or_fail(ErrorKind::Internal, failed)?;
    file::write(&staging.join("ca.crt"), ca.pem().as_bytes(), 0o644)?;
    file::write(&staging.join("ca.key"), ca_key.serialize_pem().as_bytes(), 0o600)?;
    let key = KeyPair::generate().or_fail(ErrorKind::Internal, failed)?;
    let certificate = server(names, addresses, years)?
        .signed_by(&key, &Issuer::new(ca_parameters, ca_key))
        .or_fail(ErrorKind::Internal, failed)?;
    file::write(&staging.join("registry.crt"), certificate.pem().as_bytes(), 0o644)?;
    file::write(&staging.join("registry.key"), key.serialize_pem().as_bytes(), 0o600)?;
    fs::rename(&staging, path).or_io(|| format!("cannot rename {}", staging.display()))?;
    file::sync_folder(file::folder_of(path))
}

/// A certificate authority of its own: certificate and key as PEM.
///
/// # Errors
/// [`ErrorKind::Internal`] when the name can't be in a certificate.
pub(crate) fn new_authority(name: &str, years: u16) -> Result<(String, String)> {
    let failed = || "cannot make certificates";
    let key = KeyPair::generate().or_fail(ErrorKind::Internal, failed)?;
    let certificate = authority(name, years)?
        .self_signed(&key)
        .or_fail(ErrorKind::Internal, failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// An authority that nobody can use again, and for each address a certificate of it with its key, all as PEM: the hosts of a run
/// know each other by them.
///
/// # Errors
/// [`ErrorKind::Internal`] when there are no random numbers.
pub(crate) fn new_passes(addresses: &[IpAddr]) -> Result<Vec<Pass>> {
    let failed = || "cannot make certificates";
    let ca_key = KeyPair::generate().or_fail(ErrorKind::Internal, failed)?;
    let ca_parameters = authority("run", RUN)?;
    let ca = ca_parameters
        .self_signed(&ca_key)
        .or_fail(ErrorKind::Internal, failed)?;
    let issuer = Issuer::new(ca_parameters, ca_key);
    let pass = |address: &IpAddr| {
        let key = KeyPair::generate().or_fail(ErrorKind::Internal, failed)?;
        let mut parameters = server(&BTreeSet::new(), &BTreeSet::from([*address]), RUN)?;
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let certificate = parameters.signed_by(&key, &issuer);
        Ok(Pass {
            authority: ca.pem(),
            certificate: certificate.or_fail(ErrorKind::Internal, failed)?.pem(),
            key: key.serialize_pem(),
        })
    };
    addresses.iter().map(pass).collect()
}

/// A key to sign with, in the form of RFC 5915 (`EC PRIVATE KEY`): kube-apiserver takes no other of this kind.
///
/// # Errors
/// [`ErrorKind::Internal`] when there are no random numbers.
pub(crate) fn new_signing_key() -> Result<String> {
    let failed = || "cannot make a key";
    let key = KeyPair::generate()
        .or_fail(ErrorKind::Internal, failed)?
        .serialize_der();
    let key = SecretKey::from_pkcs8_der(&key).or_fail(ErrorKind::Internal, failed)?;
    let pem = key.to_sec1_pem(LineEnding::LF).or_fail(ErrorKind::Internal, failed)?;
    Ok(pem.as_str().to_owned())
}

/// The public half of a key that [`new_signing_key`] made.
///
/// # Errors
/// [`ErrorKind::Integrity`] when it is no such key.
pub(crate) fn public_half(key: &str) -> Result<String> {
    let failed = || "a key to sign with is damaged";
    let key = SecretKey::from_sec1_pem(key).or_fail(ErrorKind::Integrity, failed)?;
    let public = key.public_key().to_public_key_pem(LineEnding::LF);
    public.or_fail(ErrorKind::Integrity, failed)
}

/// An RSA key to sign with, as PEM.
///
/// # Errors
/// [`ErrorKind::Internal`] when it can't be made.
pub(crate) fn new_rsa_key() -> Result<String> {
    let failed = || "cannot make a key";
    let key = RsaPrivateKey::new(&mut rand::rng(), RSA_BITS).or_fail(ErrorKind::Internal, failed)?;
    let pem = key.to_pkcs1_pem(LineEnding::LF).or_fail(ErrorKind::Internal, failed)?;
    Ok(pem.as_str().to_owned())
}

/// The public half of a key that [`new_rsa_key`] made.
///
/// # Errors
/// [`ErrorKind::Integrity`] when it is no such key.
pub(crate) fn public_half_of_rsa(key: &str) -> Result<String> {
    let failed = || "a key to sign with is damaged";
    let key = RsaPrivateKey::from_pkcs1_pem(key).or_fail(ErrorKind::Integrity, failed)?;
    let public = key.to_public_key().to_public_key_pem(LineEnding::LF);
    public.or_fail(ErrorKind::Integrity, failed)
}

/// The SHA-256, in hexadecimal, of the public half of an authority's key as its certificate has it.
///
/// # Errors
/// [`ErrorKind::Integrity`] when it is no such key.
pub(crate) fn hash_of_public_half(key: &str) -> Result<String> {
    let failed = || "the key of a certificate authority is damaged";
    let key = SecretKey::from_pkcs8_pem(key).or_fail(ErrorKind::Integrity, failed)?;
    let public = key.public_key().to_public_key_der();
    let public = public.or_fail(ErrorKind::Integrity, failed)?;
    Ok(Digest::of(public.as_bytes()).hex())
}

fn dated(years: u16) -> Result<CertificateParams> {
    let mut parameters =
        CertificateParams::new(Vec::new()).or_fail(ErrorKind::Internal, || "cannot make certificates")?;
    let now = SystemTime::now();
    parameters.not_before = (now - BEFORE).into();
    parameters.not_after = (now + YEAR * u32::from(years)).into();
    Ok(parameters)
}

fn authority(cluster: &str, years: u16) -> Result<CertificateParams> {
    let mut parameters = dated(years)?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("sealrs {cluster}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn server(names: &BTreeSet<String>, addresses: &BTreeSet<IpAddr>, years: u16) -> Result<CertificateParams> {
    let mut parameters = dated(years)?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "sealrs registry");
    for name in names {
        let san = name.as_str().try_into().map_err(|error: rcgen::Error| {
            Error::new(
                ErrorKind::Input,
                format!("`{}` can't be in a certificate", name.escape_debug()),
            )
            .because(error)
        })?;
        parameters.subject_alt_names.push(SanType::DnsName(san));
    }
    for &address in addresses {
        parameters.subject_alt_names.push(SanType::IpAddress(address));
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    fn openssl(arguments: &[&str]) -> Option<String> {
        let Ok(done) = Command::new("openssl").args(arguments).output() else {
            println!("skipped: openssl is not installed");
            return None;
        };
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "{text}");
        Some(text)
    }

    #[test]
    fn certificates_are_valid_for_as_long_as_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        for years in [1, 100] {
            let pki = folder.path().join(years.to_string());
            make(
                &pki,
                "c",
                &BTreeSet::from(["sea.hub".to_owned()]),
                &BTreeSet::new(),
                years,
            )
            .unwrap();
            for file in ["ca.crt", "registry.crt"] {
                let path = pki.join(file).to_str().unwrap().to_owned();
                let Some(text) = openssl(&["x509", "-in", &path, "-noout", "-enddate"]) else {
                    return;
                };
                let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let year = 1970 + (seconds + YEAR * u32::from(years)).as_secs() / YEAR.as_secs();
                assert!(text.contains(&format!(" {year} GMT")), "{years} years: {text}");
            }
        }
    }

    #[test]
    fn openssl_reads_a_signing_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, new_signing_key().unwrap()).unwrap();
        let path = path.to_str().unwrap();
        if let Some(text) = openssl(&["ec", "-in", path, "-noout", "-text"]) {
            assert!(text.contains("prime256v1"), "{text}");
        }
    }

    #[test]
    fn openssl_reads_an_rsa_key_and_its_public_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let key = new_rsa_key().unwrap();
        fs::write(path("key"), &key).unwrap();
        if openssl(&["rsa", "-in", &path("key"), "-check", "-noout"]).is_none() {
            return;
        }
        openssl(&["rsa", "-in", &path("key"), "-pubout", "-out", &path("pub")]).unwrap();
        assert_eq!(
            fs::read_to_string(path("pub")).unwrap(),
            public_half_of_rsa(&key).unwrap()
        );
    }

    #[test]
    fn the_hash_of_a_public_key_is_that_of_openssl() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = new_authority("c", 1).unwrap();
        fs::write(path("crt"), certificate).unwrap();
        let (from, to) = (path("crt"), path("pub"));
        if openssl(&["x509", "-in", &from, "-pubkey", "-noout", "-out", &to]).is_none() {
            return;
        }
        openssl(&["pkey", "-pubin", "-in", &to, "-outform", "der", "-out", &path("der")]).unwrap();
        let der = fs::read(path("der")).unwrap();
        assert_eq!(hash_of_public_half(&key).unwrap(), Digest::of(&der).hex());
    }

    #[test]
    fn openssl_verifies_the_chain_and_the_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pki");
        let names = ["sea.hub", "localhost"].map(str::to_owned).into();
        let addresses = ["10.0.0.1", "::1"].map(|ip| ip.parse().unwrap()).into();
        make(&path, "c", &names, &addresses, 100).unwrap();
        let file = |name: &str| path.join(name).to_str().unwrap().to_owned();
        let before = fs::read(file("ca.crt")).unwrap();
        make(&path, "c", &names, &addresses, 100).unwrap();
        assert_eq!(fs::read(file("ca.crt")).unwrap(), before, "made once");
        for key in ["ca.key", "registry.key"] {
            assert_eq!(fs::metadata(file(key)).unwrap().mode() & 0o777, 0o600);
        }
        let (ca, certificate) = (file("ca.crt"), file("registry.crt"));
        for (flag, name) in [
            ("-verify_hostname", "sea.hub"),
            ("-verify_hostname", "localhost"),
            ("-verify_ip", "10.0.0.1"),
            ("-verify_ip", "::1"),
        ] {
            let arguments = [
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                "-CAfile",
                &ca,
                flag,
                name,
                &certificate,
            ];
            if openssl(&arguments).is_none() {
                return;
            }
        }
        let text = openssl(&["x509", "-in", &certificate, "-noout", "-text"]).unwrap();
        assert!(text.contains("prime256v1"), "{text}");
        let far = (90u64 * 365 * 24 * 3600).to_string();
        openssl(&["x509", "-in", &certificate, "-noout", "-checkend", &far]).unwrap();
        openssl(&["pkey", "-in", &file("registry.key"), "-noout"]).unwrap();
    }
}
