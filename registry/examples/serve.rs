//! The server as a process of its own, for tests that kill it: `serve DIR`. Prints its address.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use sealrs_image::progress::Silent;
use sealrs_registry::server::{PushPolicy, ServeOptions, run};

fn main() -> ExitCode {
    let options = ServeOptions {
        dir: std::env::args_os().nth(1).map(PathBuf::from).unwrap_or_default(),
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        tls: None,
        htpasswd: None,
        push: PushPolicy::Allow,
        metrics: None,
    };
    match run(&options, Arc::new(Silent), |addresses| say(&format!("{addresses:?}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:?}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is a program")]
fn say(line: &str) {
    println!("{line}");
}
