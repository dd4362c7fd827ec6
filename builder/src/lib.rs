//! From a Kubefile to a ClusterImage, and its container images out of one.
//!
//! * `kubefile`: the grammar; pure.
//! * `ignore`, `glob`: which files of the build context are meant; pure. `context` walks it.
//! * `contents`, `pack`, `cache`, `add_tar`: from files to layers, by the cache where it can be.
//! * `rootfs`, `inside`: what the layers so far unpack to.
//! * `image_list`, `image_list_with_auth`, `asked`, `container_images`: from lists of container images to registry data.
//! * `image_sources`: where they are on this machine: [`ImageSource`].
//! * `referrers`: signatures and the like, which come along.
//! * `lock_file`: the lock that a build writes or keeps to.
//! * `discovery`: the container images that files of Kubernetes name: [`Discovery`]. `named` looks for those of the rootfs.
//! * `sources`, `check`: what is wrong, before anything is fetched or packed.
//! * `base`, `transfer`, `download`, `remote_layer`, `apps`: what FROM, COPY, ADD, URLs and APP mean.
//! * `bundled`, `relocate`: the way back: container images out of a ClusterImage, and to a registry: [`Relocation`].
//! * `build`: all of it, in order: [`build()`]. `publish` gives the result its name.
//! * `merge`: several ClusterImages into one: [`merge()`].

mod add_tar;
mod apps;
mod asked;
mod base;
mod build;
mod bundled;
mod cache;
mod check;
mod container_images;
mod contents;
mod context;
mod discovery;
mod download;
mod glob;
mod ignore;
mod image_list;
mod image_list_with_auth;
mod image_sources;
mod inside;
mod kubefile;
mod lock_file;
mod merge;
mod named;
mod pack;
mod publish;
mod referrers;
mod relocate;
mod remote_layer;
mod rootfs;
mod sources;
mod transfer;

pub use build::{Options, build};
pub use discovery::{Discovered, Discovery, Found, Kind};
pub use image_list_with_auth::ImageListWithAuth;
pub use image_sources::ImageSource;
pub use lock_file::LockUse;
pub use merge::{MergeOptions, merge};
pub use named::discover_image;
pub use publish::{Built, BuiltPlatform};
pub use relocate::{Relocated, RelocatedImage, Relocation};
