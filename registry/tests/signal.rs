//! Stopping by a signal. Alone in its process, which is the one that gets the signal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sealrs_image::progress::Silent;
use sealrs_registry::server::run;
use support::{Sample, ask, plainly};

#[test]
fn a_signal_stops_the_server_and_not_the_process() {
    let sample = Sample::new();
    for signal in [Signal::TERM, Signal::INT] {
        let options = plainly(sample.dir.path());
        let (sender, addresses) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let ready = |bound: &[SocketAddr]| sender.send(bound.to_vec()).unwrap();
            run(&options, Arc::new(Silent), ready)
        });
        let [address] = addresses.recv().unwrap().try_into().unwrap();
        assert_eq!(ask(address, "GET", "/v2/", &[]).status, 200);
        let start = Instant::now();
        kill_process(getpid(), signal).unwrap();
        server.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}
