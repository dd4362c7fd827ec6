//! Container images as files, and the server that gives them out.
//!
//! The files are in the layout of the docker-distribution registry, so that this crate and that registry can
//! take turns on one directory. Knows nothing of cluster images. Prints nothing.
//!
//! * Words: [`name`] (repositories, tags, uploads), [`digest`], [`host`] (the registry that an image is named after).
//! * The directory: [`layout`] (its paths), [`links`] (its small files for given images), [`directory`] (reading and
//!   changing it), `manifest` (what a pushed one needs).
//! * The server: [`server`], which reads a request with [`route`] and answers with [`refusal`] or with content.
//!   `answer` is for those who read, with `verdict` (whether blobs are what they should be), `body` and `wire` (how they are
//!   sent); `push` for those who write, with `receive` (bodies) and `turns` (whose turn it is); `monitor` for those who
//!   watch, with `metrics`.

mod answer;
mod body;
pub mod digest;
pub mod directory;
pub mod host;
pub mod layout;
pub mod links;
mod listen;
mod manifest;
mod metrics;
mod monitor;
pub mod name;
pub mod page;
mod passwords;
mod push;
mod range;
mod receive;
pub mod refusal;
pub mod route;
pub mod server;
pub mod tls;
mod turns;
mod verdict;
mod wire;
