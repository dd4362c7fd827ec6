//! Whom the client believes, and which ways it takes: certificates, plain HTTP, proxies.

use std::time::{Duration, Instant};

use sealrs_image::error::ErrorKind;
use sealrs_image::remote::{Client, Options};

use crate::support::registry::{Registry, Setup};
use crate::support::{self, certificate, have, own_process};
use crate::{TOOLS, client, filled, manifest, quick, read, reference, whole};

#[test]
fn believes_only_certificates_that_it_has_reason_to() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = filled(folder.path(), 1000);
    certificate(folder.path(), "ca", "", None);
    certificate(folder.path(), "signed", "IP:127.0.0.1", Some("ca"));
    certificate(folder.path(), "elsewhere", "DNS:elsewhere.example.com", Some("ca"));
    certificate(folder.path(), "self", "IP:127.0.0.1", None);
    certificate(folder.path(), "self-elsewhere", "DNS:elsewhere.example.com", None);
    let registry = |name: &str| {
        Registry::start(&Setup {
            tls: Some((path(&format!("{name}.pem")), path(&format!("{name}.key")))),
            storage: Some(source.storage().to_owned()),
            ..Setup::default()
        })
    };
    let pull = |registry: &Registry, ca: &str, insecure: bool| {
        let client = Client::new(Options {
            ca_files: [ca].iter().filter(|ca| !ca.is_empty()).map(|ca| path(ca)).collect(),
            insecure_hosts: insecure.then(|| "127.0.0.1".to_owned()).into_iter().collect(),
            ..quick()
        });
        let app = reference(&format!("{}/library/app:1", registry.host()));
        let client = client.unwrap();
        read(&client, &app, &manifest(&client, &app)?.layers[0])
    };
    let began = Instant::now();
    let signed = registry("signed");
    assert!(pull(&signed, "ca.pem", false).is_ok());
    assert!(pull(&signed, "", true).is_ok());
    let error = pull(&signed, "", false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(whole(&error).contains("is not trusted"), "{error:?}");
    assert!(error.remedy().unwrap().contains("--ca-file"), "{error:?}");

    let elsewhere = registry("elsewhere");
    let error = pull(&elsewhere, "ca.pem", false).unwrap_err();
    assert!(whole(&error).contains("is for another name"), "{error:?}");
    assert!(pull(&elsewhere, "ca.pem", true).is_ok());

    // `openssl req -x509` makes a server's certificate that is an authority too.
    let own = registry("self");
    assert!(pull(&own, "self.pem", false).is_ok());
    let error = pull(&own, "ca.pem", false).unwrap_err();
    assert!(whole(&error).contains("certificate of 127.0.0.1"), "{error:?}");
    let error = pull(&registry("self-elsewhere"), "self-elsewhere.pem", false).unwrap_err();
    assert!(whole(&error).contains("certificate of 127.0.0.1"), "{error:?}");
    // None of these is a thing to try again.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn needs_no_authorities_until_it_meets_a_certificate() {
    let nothing = "/nonexistent";
    let variables = [("SSL_CERT_FILE", nothing), ("SSL_CERT_DIR", nothing)];
    let name = "tls::needs_no_authorities_until_it_meets_a_certificate";
    if !have(&[&TOOLS[..], &["openssl"]].concat()) || !own_process(name, &variables) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    certificate(folder.path(), "ca", "", None);
    certificate(folder.path(), "server", "IP:127.0.0.1", Some("ca"));
    let plain = filled(folder.path(), 1000);
    let registry = Registry::start(&Setup {
        tls: Some((path("server.pem"), path("server.key"))),
        storage: Some(plain.storage().to_owned()),
        ..Setup::default()
    });
    let app = |registry: &Registry| reference(&format!("{}/library/app:1", registry.host()));
    assert!(manifest(&client(), &app(&plain)).is_ok());
    let error = manifest(&client(), &app(&registry)).unwrap_err();
    assert!(whole(&error).contains("knows no certificate authorities"), "{error:?}");
    let client = Client::new(Options {
        ca_files: vec![path("ca.pem")],
        ..quick()
    });
    assert!(manifest(&client.unwrap(), &app(&registry)).is_ok());
}

#[test]
fn speaks_plain_http_to_others_only_when_told() {
    // An address of this host that is not loopback; nothing is sent to find it.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Some(address) = address.ok().filter(|address| !address.ip().is_loopback()) else {
        println!("skipped: this host has no address but loopback");
        return;
    };
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path(), 1000);
    let registry = Registry::start(&Setup {
        storage: Some(source.storage().to_owned()),
        address: Some(address.ip().to_string()),
        ..Setup::default()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let error = manifest(&client(), &app).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(whole(&error).contains("does not speak TLS"), "{error:?}");
    let hint = format!("--insecure-registry {}", registry.host());
    assert!(error.remedy().unwrap().contains(&hint), "{error:?}");
    for insecure in [registry.host(), address.ip().to_string()] {
        let client = Client::new(Options {
            insecure_hosts: vec![insecure],
            ..quick()
        });
        assert!(manifest(&client.unwrap(), &app).is_ok());
    }
}

#[test]
fn shows_a_client_certificate_to_the_host_that_it_is_for() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = filled(folder.path(), 1000);
    certificate(folder.path(), "ca", "", None);
    certificate(folder.path(), "server", "IP:127.0.0.1", Some("ca"));
    certificate(folder.path(), "clients", "", None);
    certificate(folder.path(), "member", "", Some("clients"));
    certificate(folder.path(), "stranger", "", Some("ca"));
    let registry = Registry::start(&Setup {
        tls: Some((path("server.pem"), path("server.key"))),
        client_authority: Some(path("clients.pem")),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let certs = path("certs.d").join(registry.host());
    std::fs::create_dir_all(&certs).unwrap();
    let put = |from: &str, to: &str| std::fs::copy(path(from), certs.join(to)).unwrap();
    let pull = || {
        let client = Client::new(Options {
            certificate_folders: vec![path("nothing"), path("certs.d")],
            ..quick()
        });
        let client = client.unwrap();
        read(&client, &app, &manifest(&client, &app)?.layers[0])
    };
    // The folder's authority is believed, and without a certificate of ours that is not enough.
    put("ca.pem", "ca.crt");
    let refused = |words: &str| {
        let error = pull().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(whole(&error).contains(words), "{error:?}");
        let hint = format!("certs.d/{}/ as client.cert and client.key", registry.host());
        assert!(error.remedy().unwrap().contains(&hint), "{error:?}");
    };
    refused("wants another client certificate");
    put("stranger.pem", "client.cert");
    put("stranger.key", "client.key");
    refused("wants another client certificate");
    put("member.pem", "client.cert");
    let error = pull().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Input,
        "a key of another certificate: {error:?}"
    );
    assert!(whole(&error).contains("client.cert"), "{error:?}");
    put("member.key", "client.key");
    assert!(pull().is_ok());
    // As skopeo has it.
    let folders = path("certs.d").join(registry.host()).display().to_string();
    support::run(
        "skopeo",
        &["inspect", "--cert-dir", &folders, &format!("docker://{app}")],
    );

    // To an insecure host too.
    std::fs::remove_file(certs.join("ca.crt")).unwrap();
    assert!(whole(&pull().unwrap_err()).contains("is not trusted"));
    let client = Client::new(Options {
        certificate_folders: vec![path("certs.d")],
        insecure_hosts: vec![registry.host()],
        ..quick()
    });
    assert!(manifest(&client.unwrap(), &app).is_ok());
}
