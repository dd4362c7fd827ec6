//! Where k3s's images come from: archives that it imports, and the private registry.

use std::path::Path;

use sealrs_image::error::Result;

use super::DATA;
use crate::action::FileCopy;
use crate::mirror::Mirror;
use crate::plan::Context;
use crate::registry;

/// Names of archives that k3s imports, compared without regard to case.
const ARCHIVES: [&str; 9] = [
    ".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".txt",
];

/// `registries.yaml`: k3s asks the mirror with the original host as `?ns=`.
pub(super) fn registries(context: &Context<'_>) -> Result<String> {
    let own_script = context.rootfs.has(registry::INIT_SCRIPT);
    let places = registry::mirrored_hosts(context)?.into_iter().map(|host| {
        let mut places = vec![String::new()];
        // Another registry than ours does not know `?ns=`, but the images lie below their host's name as well.
        if own_script {
            places.push(host.folder());
        }
        (host.to_string(), places)
    });
    Ok(Mirror::of_cluster(context).registries_yaml(&places.collect()))
}

/// The archives that k3s imports, and how many bytes they have unpacked, about.
pub(super) fn archives(context: &Context<'_>, notes: &mut Vec<String>) -> (Vec<FileCopy>, u64) {
    let mut files = Vec::new();
    let mut bytes: u64 = 0;
    for (path, size) in context.rootfs.below("images/") {
        let name = path.trim_start_matches("images/");
        // Folders are not looked into by k3s.
        if name.contains('/') {
            continue;
        }
        let lower = name.to_ascii_lowercase();
        let Some(kind) = ARCHIVES.iter().find(|kind| lower.ends_with(*kind)) else {
            notes.push(format!(
                "{path} of the image is not imported: k3s does not know such archives"
            ));
            continue;
        };
        let factor = if *kind == ".tar" { 1 } else { 4 };
        bytes = bytes.saturating_add(size.saturating_mul(factor));
        files.push(FileCopy {
            from: context.files.rootfs().join(path),
            to: Path::new(DATA).join("agent/images").join(name),
            mode: None,
        });
    }
    (files, bytes)
}
