//! `sealrs images-in`

use std::path::{Path, PathBuf};

use clap::Args;
use sealrs_builder::{Discovered, Discovery, Found, discover_image};
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::locate::in_store;
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress as _};
use sealrs_image::store::Store;

use crate::printer::Printer;

/// List the container images that manifests, charts and image lists name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs images-in manifests/ charts/
  sealrs images-in charts/app-1.2.3.tgz --values prod.yaml --why
  sealrs images-in edge/k3s:v1 --why
  sealrs images-in . --kube-version 1.36 --output json")]
pub(crate) struct ImagesIn {
    /// File or folder, or a ClusterImage in the store; a chart is a folder with a Chart.yaml, or an archive of one.
    #[arg(value_name = "PATH|IMAGE", required = true)]
    places: Vec<String>,

    /// Platform to read, of an image that has several; this machine's if left out.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Say of each image how sure it is, and the file, line, field and chart value that name it.
    #[arg(long)]
    why: bool,

    #[command(flatten)]
    charts: Charts,
}

/// How charts are rendered.
#[derive(Debug, Args)]
pub(crate) struct Charts {
    /// helm to render charts with; the one on PATH if left out. Without one their values are read.
    #[arg(long, value_name = "PROGRAM")]
    helm: Option<PathBuf>,

    /// Values for all charts, over `CHART.values.yaml` beside them. May be given several times.
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,

    /// Kubernetes version to render charts for.
    #[arg(long, value_name = "VERSION")]
    kube_version: Option<String>,

    /// API version that the cluster has besides those of Kubernetes. May be given several times.
    #[arg(long = "api-versions", value_name = "GROUP/VERSION", value_delimiter = ',')]
    api_versions: Vec<String>,
}

impl Charts {
    pub(crate) fn discovery(self) -> Discovery {
        Discovery {
            helm: self.helm,
            values: self.values,
            kube_version: self.kube_version,
            api_versions: self.api_versions,
        }
    }
}

impl ImagesIn {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let discovery = self.charts.discovery();
        let platform = self.platform.unwrap_or_else(Platform::host);
        let mut all = Discovered::default();
        for place in &self.places {
            all.extend(match Path::new(place).symlink_metadata() {
                Ok(_) => discovery.read(Path::new(place), place)?,
                Err(_) => in_image(place, &platform, &discovery, root, printer)?,
            });
        }
        for note in &all.notes {
            printer.progress().event(Event::Warning(note));
        }
        let mut lines: Vec<String> = Vec::new();
        for found in &all.images {
            let line = if self.why { why(found) } else { found.image.to_string() };
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        printer.result(&all.images, |_| lines.join("\n"))?;
        if all.wrong.is_empty() {
            return Ok(());
        }
        Err(Error::together(
            "images may be missing: not everything can be understood",
            all.wrong,
        ))
    }
}

fn why(found: &Found) -> String {
    let (kind, file, at) = (found.kind.word(), &found.file, found.line);
    let mut line = format!("{}  {kind}  {file}:{at}", found.image);
    if !found.path.is_empty() {
        line.push_str(&format!("  {}", found.path));
    }
    if let Some(value) = &found.value {
        line.push_str(&format!("  by {value}"));
    }
    line
}

/// What is in an image of the store.
fn in_image(
    name: &str,
    platform: &Platform,
    discovery: &Discovery,
    root: &Path,
    printer: &Printer,
) -> Result<Discovered> {
    let nothing = || format!("there is no file `{name}`, and no such image in the store");
    if !Store::is_there(root) {
        return Err(Error::new(ErrorKind::NotFound, nothing()));
    }
    let store = Store::open(root)?;
    let _lock = store.share()?;
    let (image, _) = in_store(&store, name).context(nothing)?;
    let image = ClusterImage::read(&store, &image, platform)?;
    discover_image(discovery, &image, root, &store, super::cores(), &*printer.progress())
}
