//! From a Kubefile to a ClusterImage.
//!
//! * `kubefile`: the grammar; pure.
//! * `ignore`, `glob`: which files of the build context are meant; pure. `context` walks it.
//! * `contents`, `pack`, `cache`, `add_tar`: from files to layers, by the cache where it can be.
//! * `rootfs`, `inside`: what the layers so far unpack to.
//! * `image_list`, `container_images`: from lists of container images to registry data.
//! * `base`, `transfer`, `download`, `remote_layer`, `apps`: what FROM, COPY, ADD, URLs and APP mean.
//! * `build`: all of it, in order: [`build()`]. `publish` gives the result its name.
//! * `merge`: several ClusterImages into one: [`merge()`].

mod add_tar;
mod apps;
mod base;
mod build;
mod cache;
mod container_images;
mod contents;
mod context;
mod download;
mod glob;
mod ignore;
mod image_list;
mod inside;
mod kubefile;
mod merge;
mod pack;
mod publish;
mod remote_layer;
mod rootfs;
mod transfer;

pub use build::{Options, build};
pub use merge::{MergeOptions, merge};
pub use publish::{Built, BuiltPlatform};
