//! From a ClusterImage to a running cluster, and back to a host without a trace.
//!
//! Parses no Kubefiles. Prints nothing. A run is decided first and executed then:
//!
//! * What is wanted and what is there: [`options`], [`inputs`], [`facts`], [`rootfs`] (with its templates, `template`),
//!   [`preflight`].
//! * What will be done, as data: [`mod@plan`], [`action`]; cluster runtimes plan their part ([`runtime`]).
//! * Doing it so that it can be interrupted at any point: [`journal`] (what was done), [`host_manifest`] (what was
//!   made), `execute`, `undo`, [`service`].
//! * For hosts that sealrs does not install: [`mirror`], what they have to know to pull from another registry.
//! * What is wanted of many hosts, as a file: [`clusterfile`].
//! * The commands: [`run`], [`plan()`], [`delete()`], [`supervise`].

pub mod action;
mod apps;
mod cluster;
pub mod clusterfile;
mod command;
mod delete;
mod environment;
mod execute;
pub mod facts;
mod files;
mod host_lock;
pub mod host_manifest;
mod hosts_file;
pub mod inputs;
mod install;
pub mod journal;
mod lines;
pub mod mirror;
pub mod options;
mod pki;
pub mod plan;
pub mod preflight;
mod probe;
mod process;
mod registry;
pub mod rootfs;
pub mod runtime;
pub mod service;
mod shared_file;
mod summary;
mod template;
mod undo;
mod yaml;

pub use cluster::ClusterFiles;
pub use delete::delete;
pub use install::{plan, run};
pub use options::Options;
pub use plan::Plan;
pub use service::{Supervise, supervise};
pub use summary::{Outcome, Summary};
