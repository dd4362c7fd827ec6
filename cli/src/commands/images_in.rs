//! `sealrs images-in`

use std::path::PathBuf;

use clap::Args;
use sealrs_builder::{Discovered, Discovery, Found};
use sealrs_image::error::{Error, Result};
use sealrs_image::progress::{Event, Progress as _};

use crate::printer::Printer;

/// List the container images that manifests, charts and image lists name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs images-in manifests/ charts/
  sealrs images-in charts/app-1.2.3.tgz --values prod.yaml --why
  sealrs images-in . --kube-version 1.36 --output json")]
pub(crate) struct ImagesIn {
    /// File or folder; a chart is a folder with a Chart.yaml, or an archive of one.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

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
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let discovery = self.charts.discovery();
        let mut all = Discovered::default();
        for path in &self.paths {
            let Discovered { images, wrong, notes } = discovery.read(path, &path.display().to_string())?;
            all.images.extend(images);
            all.wrong.extend(wrong);
            all.notes.extend(notes);
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
