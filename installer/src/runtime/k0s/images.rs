//! Where k0s's images come from: archives that it imports, and the private registry.

use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};

use super::{CONTAINERD, DATA, secret_file};
use crate::action::{Action, Content, FileCopy, FileWrite, Mode};
use crate::mirror::Mirror;
use crate::plan::{Context, Step};
use crate::registry::{self, HOSTS_TOML};

/// From here on containerd is of version 2, and refuses what is written for version 1.
const NEW_CONTAINERD: (u32, u32) = (1, 36);

/// What k0s's containerd has to know to pull from the private registry, by the images' own names.
pub(super) fn registries(context: &Context<'_>, minor: (u32, u32)) -> Result<Step> {
    let folder = Path::new(CONTAINERD).join("certs.d");
    let (version, plugin) = if minor >= NEW_CONTAINERD {
        (3, "io.containerd.cri.v1.images")
    } else {
        (2, "io.containerd.grpc.v1.cri")
    };
    let drop_in = format!(
        "# Written by sealrs.\nversion = {version}\n\n[plugins.\"{plugin}\".registry]\n  config_path = \"{}\"\n",
        folder.display()
    );
    let places = registry::mirrored_hosts(context)?
        .iter()
        .map(|host| (host.to_string(), vec![host.folder(), String::new()]))
        .collect();
    let readable = |path, text| FileWrite {
        mode: Mode(0o644),
        ..secret_file(path, Content::Text(text))
    };
    let mut files = vec![readable(Path::new(CONTAINERD).join("sealrs.toml"), drop_in)];
    for (host, text) in Mirror::of_cluster(context).hosts_toml(&places) {
        let text = format!("# Written by sealrs.\n{text}\n");
        files.push(readable(folder.join(host).join(HOSTS_TOML), text));
    }
    context.step(
        "k0s-registries",
        "let k0s pull from the private registry",
        Action::WriteFiles(files),
    )
}

/// The archives that k0s imports, and how many bytes they have.
///
/// # Errors
/// [`ErrorKind::Input`] when one is packed: k0s says so in its log alone and goes on without the images.
pub(super) fn archives(context: &Context<'_>) -> Result<(Vec<FileCopy>, u64)> {
    let mut files = Vec::new();
    let mut bytes: u64 = 0;
    for (path, size) in context.rootfs.below("images/") {
        let name = path.trim_start_matches("images/");
        // k0s opens every file, and a folder as if it were one.
        if !name.to_ascii_lowercase().ends_with(".tar") || name.contains('/') {
            return Err(
                Error::new(ErrorKind::Input, format!("k0s can't import {path} of the image"))
                    .hint("have nothing in `images/` but archives that are not packed, with names that end in .tar"),
            );
        }
        bytes = bytes.saturating_add(size);
        files.push(FileCopy {
            from: context.files.rootfs().join(path),
            to: Path::new(DATA).join("images").join(name),
            mode: None,
        });
    }
    Ok((files, bytes))
}
