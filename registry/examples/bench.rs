//! x
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let tls = a.get(3).map(|d| sealrs_registry::tls::TlsFiles {
        certificate: format!("{d}/c.pem").into(),
        key: format!("{d}/k.pem").into(),
    });
    sealrs_registry::server::run(
        &sealrs_registry::server::ServeOptions {
            dir: a[1].clone().into(),
            listen: vec![a[2].parse().unwrap()],
            tls,
            htpasswd: None,
        },
        Arc::new(sealrs_image::progress::Silent),
        |_| (),
    )
    .unwrap();
}
