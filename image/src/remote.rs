//! Registries on the network: the client side of the OCI distribution specification 1.1.
//!
//! A [`Client`] serves all registries of one run. Outside it blocks, so that its bodies are plain
//! [`Read`](std::io::Read)ers like those of every other source; inside it is asynchronous.
//!
//! What it holds to:
//! * Plain HTTP and unverified certificates only where [`Options::insecure_hosts`] says so; plain HTTP also for this
//!   very host (loopback). Nothing else ever falls back.
//! * Credentials go to the registry they are for and to its token server, never to where a redirect or a foreign
//!   layer's URL leads (CVE-2020-15157).
//! * Mirrors stand in for a registry when something is read; what is written goes to the registry itself.
//! * Whatever may pass is tried again after a growing pause; a body that breaks off goes on where it stopped.

mod auth;
mod blob_reader;
mod certificates;
mod challenge;
mod client;
mod connections;
mod credentials;
mod endpoint;
mod failure;
mod file_source;
mod gate;
mod login;
mod manifest;
mod mirrors;
mod proxy;
mod registry_name;
mod registry_sink;
mod remote_sink;
mod remote_source;
mod retry;
mod sessions;
mod tags;
mod tls;
mod upload;
mod wire;

pub use blob_reader::BlobReader;
pub use certificates::certificate_folders;
pub use client::{CONNECTIONS, Client, Met, Options};
pub use credentials::{Credentials, Forgotten, Login};
pub use file_source::{FileReader, FileSource, shown};
pub use login::Welcome;
pub use manifest::Document;
pub use mirrors::Mirror;
pub use registry_name::RegistryName;
pub use registry_sink::{RegistrySink, Shipment};
pub use remote_sink::RemoteSink;
pub use remote_source::{RemoteImage, RemoteSource};
