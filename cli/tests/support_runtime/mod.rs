//! What the tests of runtimes share: hosts with systemd and without a way out, the ClusterImages that are installed on them, a
//! look at everything that an installation could leave there, and what every runtime has to go through.

#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    clippy::print_stdout,
    reason = "each test file uses its own part of this"
)]

pub mod bundle;
pub mod host;
pub mod product;
pub mod scenarios;
pub mod state;
pub mod upstream;
