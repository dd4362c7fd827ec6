//! From a ClusterImage to a running cluster, and back to a host without a trace.
//!
//! Parses no Kubefiles. Prints nothing. A run is decided first and executed then:
//!
//! * What is wanted and what is there: [`options`], [`inputs`], [`facts`], [`rootfs`] (with its templates, `template`),
//!   [`preflight`].
//! * What will be done, as data: [`mod@plan`], [`action`]; cluster runtimes plan their part ([`runtime`]).
//! * Doing it so that it can be interrupted at any point: [`journal`] (what was done), [`host_manifest`] (what was
//!   made), `execute`, `undo`, [`service`].
//! * Hosts, this one and those over SSH: [`host`].
//! * For hosts that sealrs does not install: [`mirror`], what they have to know to pull from another registry.
//! * Many hosts: what they are ([`member`]), reaching them ([`host`], `sites`), and what is done on each, by this process
//!   or by the sealrs that is put there (`node`). What is wanted of them, as a file: [`clusterfile`].
//! * What runs on hosts besides: a balancer before API servers (`balancer`).
//! * Apps: how they are launched (`apps`), and those that come onto a cluster that runs (`app`).
//! * The commands: [`check()`], [`run`], [`plan()`], [`delete()`], [`status()`], [`audit()`], [`supervise`].

pub mod action;
mod app;
mod apply;
mod approval;
mod apps;
mod audit;
mod balancer;
mod check;
mod cluster;
pub mod clusterfile;
mod command;
pub mod configuration;
mod delete;
mod environment;
mod execute;
pub mod facts;
mod files;
pub mod hook;
pub mod host;
mod host_lock;
pub mod host_manifest;
mod hosts_file;
pub mod inputs;
mod install;
pub mod journal;
mod labels;
mod lines;
pub mod member;
pub mod mirror;
mod node;
pub mod options;
mod pki;
pub mod plan;
pub mod preflight;
mod probe;
mod process;
mod registry;
pub mod rootfs;
pub mod runtime;
mod scale;
mod secrets;
pub mod service;
mod shared_file;
mod sites;
mod status;
mod summary;
mod template;
mod undo;
mod work;
mod yaml;

pub use app::{App, AppState, install_apps, list_apps, plan_apps, remove_apps};
pub use apply::{Difference, apply, difference};
pub use approval::Approval;
pub use apps::AppSettings;
pub use audit::{Audit, Gap, audit};
pub use balancer::{Balance, balance};
pub use check::{Checked, Machine, Report, check};
pub use cluster::ClusterFiles;
pub use delete::delete;
pub use install::{plan, run};
pub use node::serve;
pub use options::{LONGEST_LIFE, Options};
pub use plan::Plan;
pub use scale::{Cluster, image_of, remove, scale_up};
pub use service::{Supervise, supervise};
pub use status::{At, HostStatus, Status, status};
pub use summary::{Outcome, Summary};
