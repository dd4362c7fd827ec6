//! The stand-ins of `testdata` have tests of their own, in Python.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod support;

use std::process::Command;

use support::{needs, succeed};

fn passes(folder: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/");
    // The Python that the packed stand-ins run with.
    succeed(Command::new("/usr/bin/python3").args(["-B", "-m", "unittest", "discover", &format!("{path}{folder}")]));
}

#[test]
fn what_they_share_passes() {
    needs!("python3", "openssl");
    passes("standin");
}

#[test]
fn k3s_passes() {
    needs!("python3", "openssl");
    passes("k3s");
}

#[test]
fn k0s_passes() {
    needs!("python3", "openssl");
    passes("k0s");
}
