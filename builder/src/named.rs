//! The container images that the manifests, charts and apps of the rootfs name. Those of the base were looked for when
//! it was built, so only what this build brings is read, and the charts of the base whose files or values it changes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;
use sealrs_image::platform::Platform;
use sealrs_image::progress::Progress;
use sealrs_image::store::Store;

use crate::base;
use crate::cache::Cache;
use crate::discovery::{Discovered, Discovery, may_name_images};
use crate::image_list::Wanted;
use crate::inside::Layers;
use crate::rootfs::Rootfs;

/// The folders of the rootfs whose files are applied to the cluster.
const FOLDERS: [&str; 3] = ["manifests", "charts", "application/apps"];
/// The list that lies beside them.
const ROOT_LIST: &str = "imageList";
/// helm of the rootfs.
const HELM: &str = "bin/helm";

/// Which files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that this build brings.
    New,
    All,
}

/// Looks for the images that the manifests, charts, apps and image lists of a ClusterImage in the store name.
///
/// # Errors
/// Layers or helm can't be read. What can't be understood is in the answer.
pub fn discover_image(
    discovery: &Discovery,
    image: &ClusterImage,
    root: &Path,
    store: &Store,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Discovered> {
    let cache = Cache::open(root)?;
    let layers = Layers { store, cache: &cache };
    let rootfs = base::rootfs(image, layers, jobs, progress)?;
    let mut all = named(&rootfs, layers, Which::All, &image.config.platform, discovery)?;
    if let Some(list) = rootfs.base_file(ROOT_LIST, layers)? {
        let scratch = tempfile::tempdir().or_io(|| "cannot make a temporary folder")?;
        let path = scratch.path().join(ROOT_LIST);
        fs::write(&path, list).or_io(|| "cannot write to a temporary folder")?;
        all.extend(discovery.read(&path, ROOT_LIST)?);
    }
    Ok(all)
}

/// Looks for images. Links that lead to no file are among what is wrong.
pub(crate) fn named(
    rootfs: &Rootfs,
    layers: Layers<'_>,
    which: Which,
    platform: &Platform,
    discovery: &Discovery,
) -> Result<Discovered> {
    let mut discovery = discovery.clone();
    discovery.helm = discovery.helm.or_else(|| own_helm(rootfs, platform));
    let mut all = Discovered::default();
    for folder in FOLDERS {
        let files = rootfs.files(folder);
        let links = files
            .iter()
            .filter(|(path, is_new)| is_new.is_err() && !path.is_empty());
        all.wrong.extend(links.map(|(path, _)| Finding {
            hint: Some("copy what it leads to in its place".to_owned()),
            ..Finding::new(
                ErrorKind::Input,
                format!("{folder}/{path}"),
                "this is a link that leads to no file",
            )
        }));
        let files: Vec<(&str, bool)> = files
            .iter()
            .filter_map(|(path, is_new)| Some((path.as_str(), is_new.ok()? || which == Which::All)))
            .collect();
        let chosen = chosen(&files);
        if chosen.is_empty() {
            continue;
        }
        let scratch = tempfile::tempdir().or_io(|| "cannot make a temporary folder")?;
        for path in chosen {
            let to = scratch.path().join(path);
            if let Some(above) = to.parent() {
                fs::create_dir_all(above).or_io(|| "cannot make a temporary folder")?;
            }
            rootfs.copy_out(&format!("{folder}/{path}"), &to, layers)?;
        }
        all.extend(discovery.read(scratch.path(), folder)?);
    }
    Ok(all)
}

/// What was found, as lists ask for it.
pub(crate) fn wanted(discovered: &Discovered) -> Vec<Wanted> {
    let wanted = discovered.images.iter().map(|found| Wanted {
        reference: found.image.clone(),
        asked_by: vec![format!("{}:{}", found.file, found.line)],
    });
    wanted.collect()
}

/// helm that came out of the build context. One of a base is somebody else's program, which is not run here.
fn own_helm(rootfs: &Rootfs, platform: &Platform) -> Option<PathBuf> {
    let path = rootfs.on_disk(HELM).filter(|_| *platform == Platform::host())?;
    let is_program = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
    is_program.then(|| path.to_owned())
}

/// The files to read, of all in a folder with whether they are new.
fn chosen<'f>(files: &[(&'f str, bool)]) -> Vec<&'f str> {
    let parent = |path: &'f str| Path::new(path).parent().unwrap_or(Path::new(""));
    let is_values = |path: &str| path.ends_with(".values.yaml") || path.ends_with(".values.yml");
    let charts: BTreeSet<&Path> = files
        .iter()
        .filter(|(path, _)| Path::new(path).file_name().is_some_and(|name| name == "Chart.yaml"))
        .map(|(path, _)| parent(path))
        .collect();
    // The outermost chart that a file is in.
    let chart = |path: &'f str| {
        Path::new(path)
            .ancestors()
            .skip(1)
            .filter(|above| charts.contains(above))
            .last()
    };
    // Folders with values that are new: they are for the charts beside them.
    let valued: BTreeSet<&Path> = files
        .iter()
        .filter(|(path, is_new)| *is_new && is_values(path))
        .map(|(path, _)| parent(path))
        .collect();
    let is_valued = |chart: &Path| chart.parent().is_some_and(|folder| valued.contains(folder));
    let touched: BTreeSet<&Path> = files
        .iter()
        .filter(|(_, is_new)| *is_new)
        .filter_map(|(path, _)| chart(path))
        .collect();
    let beside: BTreeSet<&Path> = touched.iter().filter_map(|chart| chart.parent()).collect();
    let chosen = files.iter().filter(|(path, is_new)| match chart(path) {
        Some(chart) => touched.contains(chart) || is_valued(chart),
        None if is_values(path) => *is_new || beside.contains(parent(path)) || valued.contains(parent(path)),
        None => {
            let is_archive = path.ends_with(".tgz") || path.ends_with(".tar.gz");
            (*is_new && may_name_images(path)) || (is_archive && valued.contains(parent(path)))
        }
    });
    chosen.map(|(path, _)| *path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_read_and_charts_whole() {
        let files = [
            ("a.yaml", false),
            ("b.yaml", true),
            ("b.txt", true),
            ("app/Chart.yaml", false),
            ("app/templates/x.yaml", true),
            ("app/charts/sub/Chart.yaml", false),
            ("app.values.yaml", false),
            ("old/Chart.yaml", false),
            ("old/x.yaml", false),
            ("in/d/Chart.yaml", false),
            ("in/d.values.yaml", true),
            ("in/e-1.tgz", false),
            ("in/x.yaml", false),
        ];
        assert_eq!(
            chosen(&files),
            [
                "b.yaml",
                "app/Chart.yaml",
                "app/templates/x.yaml",
                "app/charts/sub/Chart.yaml",
                "app.values.yaml",
                "in/d/Chart.yaml",
                "in/d.values.yaml",
                "in/e-1.tgz",
            ]
        );
    }
}
