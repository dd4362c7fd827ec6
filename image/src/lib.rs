//! Cluster images: blobs, layers, the store, archives, the registry client, and the engine that moves them.
//!
//! Knows nothing of Kubefiles, hosts or clusters. Prints nothing.
//!
//! * Words of the field: [`digest`], [`reference`], [`platform`], [`spec`] (OCI documents), [`cluster_image`],
//!   [`images_lock`] (the container images inside).
//! * Places: [`store`], [`archive`], [`layout`], [`remote`]; [`locate`] finds what a user names; [`rootfs`] is where an image
//!   is unpacked.
//! * Several platforms under one name: [`image_index`].
//! * Movement: [`source`], [`copy`], [`graph`] (which blobs an image has), [`wanted`] (which platforms), [`pull`], [`push`],
//!   [`transfer`] (from anywhere to anywhere, written as a [`transport`]), [`layer`] (writing them); [`verify`] reads all of
//!   it again.
//! * What went wrong and how far it is: [`error`], [`finding`], [`suggest`], [`progress`]. Files that appear whole:
//!   [`mod@file`]. Two processes at once: [`lock`].

pub mod archive;
pub mod cluster_image;
pub mod copy;
pub mod digest;
pub mod error;
pub mod file;
pub mod finding;
pub mod graph;
pub mod image_index;
pub mod images_lock;
pub mod layer;
pub mod layout;
pub mod locate;
pub mod lock;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod remote;
pub mod rootfs;
pub mod source;
pub mod spec;
pub mod store;
pub mod suggest;
pub mod transfer;
pub mod transport;
pub mod verify;
pub mod wanted;

#[cfg(test)]
mod testing;
