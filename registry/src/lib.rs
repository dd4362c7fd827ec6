//! Container images as files, and the server that gives them out.
//!
//! The files are in the layout of the docker-distribution registry, so that this crate and that registry can
//! take turns on one directory. Knows nothing of cluster images. Prints nothing.
//!
//! * Words: [`name`] (repositories and tags), [`host`] (the registry that an image is named after).
//! * The directory: [`layout`] (its paths), [`links`] (writing its small files), [`directory`] (reading it).
//! * The server: [`server`], which reads a request with [`route`] and answers with [`refusal`] or with content.

mod answer;
mod body;
pub mod directory;
pub mod host;
pub mod layout;
pub mod links;
mod listen;
pub mod name;
pub mod page;
mod passwords;
mod range;
pub mod refusal;
pub mod route;
pub mod server;
pub mod tls;
