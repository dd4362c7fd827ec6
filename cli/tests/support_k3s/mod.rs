//! What the tests of runtime k3s share: a host with systemd and without a way out, the ClusterImages that are installed
//! on it, and a look at everything that an installation could leave there.

pub mod bundle;
pub mod host;
pub mod state;
pub mod upstream;
