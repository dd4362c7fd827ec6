//! What tests need beside the crate: a registry, a server of their own, a proxy that breaks things.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

pub mod fault_proxy;
pub mod http;
pub mod image;
pub mod registry;
pub mod token_server;

use std::path::Path;
use std::process::Command;

/// Whether all programs are there; prints the reason for skipping the test if not.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&&str> = programs
        .iter()
        .filter(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        .collect();
    if !missing.is_empty() {
        println!("skipped: {missing:?} not installed");
    }
    missing.is_empty()
}

/// Runs a program that has to succeed; gives its output.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Whether the test runs in its own process; if not, this runs it in one, with other environment variables.
pub fn own_process(test: &str, variables: &[(&str, &str)]) -> bool {
    const MARK: &str = "SEALRS_TEST_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Bytes that no compression shortens, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Makes a key and a certificate for `subject_alternative_names`, signed by `authority` (certificate and key), or by
/// itself. Files: `NAME.pem`, `NAME.key`.
pub fn certificate(folder: &Path, name: &str, subject_alternative_names: &str, authority: Option<&str>) {
    let path = |file: &str| folder.join(file).display().to_string();
    let (pem, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
    let subject = format!("/CN={name}");
    let names = format!("subjectAltName={subject_alternative_names}");
    let mut arguments = vec![
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &pem,
    ];
    let (ca, ca_key);
    if let Some(authority) = authority {
        ca = path(&format!("{authority}.pem"));
        ca_key = path(&format!("{authority}.key"));
        arguments.extend(["-CA", &ca, "-CAkey", &ca_key, "-addext", "basicConstraints=CA:FALSE"]);
    }
    if !subject_alternative_names.is_empty() {
        arguments.extend(["-addext", &names]);
    }
    run("openssl", &arguments);
}
