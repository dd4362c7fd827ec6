//! What the server needs, whatever the size of a blob. Alone in its process, so that the measure is its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs;
use std::process::Command;

use support::{Ours, Sample, have, succeed};

#[test]
fn memory_does_not_grow_with_the_blob() {
    if !have(&["curl"]) {
        return;
    }
    let (small, large) = (Sample::new().with_zeros(1 << 20), Sample::new().with_zeros(512 << 20));
    let download = |sample: &Sample| {
        let ours = Ours::plain(sample.dir.path());
        // The first time it is hashed as well, the second time only sent.
        for _ in 0..2 {
            let url = format!("http://{}{}", ours.address, sample.blob());
            let got = succeed(Command::new("curl").args(["-sSf", "-o", "/dev/null", "-w", "%{size_download}", &url]));
            assert_eq!(got, fs::metadata(sample.data()).unwrap().len().to_string());
        }
    };
    download(&small);
    let before = peak_memory();
    download(&large);
    let grown = peak_memory() - before;
    println!(
        "serving 512 MiB took {} KiB more memory than serving 1 MiB",
        grown >> 10
    );
    assert!(grown < 16 << 20, "{grown} bytes more");
}

/// The most memory that this process has used so far, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}
