//! `sealrs apply`

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use sealrs_image::cluster_image::{ClusterImage, ImageKind};
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress as _};
use sealrs_installer::clusterfile::{Clusterfile, Secrets, Wanted};
use sealrs_installer::preflight::enforce;
use sealrs_installer::{Cluster, Difference, LONGEST_LIFE, Options};

use super::{apps, delete, lint, show_plan, variable};
use crate::access::Access;
use crate::printer::Printer;

/// Make a cluster what a Clusterfile says: install it, or add and remove hosts. The same command again goes on where an
/// interrupted one stopped. With an image of apps, these come onto the cluster, as the Clusterfile's Application says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs gen clusterfile k3s.tar -m 10.0.0.1-10.0.0.3 -n 10.0.0.4 -o Clusterfile
  sealrs apply -f Clusterfile --dry-run
  sealrs apply -f Clusterfile")]
pub(crate) struct Apply {
    /// The Clusterfile, or `-` for one that comes through a pipe.
    #[arg(
        short = 'f',
        long = "Clusterfile",
        alias = "clusterfile",
        value_name = "FILE|-",
        default_value = "Clusterfile"
    )]
    clusterfile: String,

    /// The image, instead of the one that the Clusterfile names: a name in the store, the start of its digest, or an archive
    /// file.
    #[arg(value_name = "NAME|FILE")]
    image: Option<String>,

    #[command(flatten)]
    access: Access,

    /// Variable over those of the Clusterfile; without a value, that of sealrs's own environment, as is right for secrets.
    /// May be given several times.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Setting for the cluster runtime, on top of the image's and the Clusterfile's: for k0s, a flag of its commands. May be given
    /// several times.
    #[arg(long = "runtime-config", value_name = "KEY=VALUE")]
    runtime_config: Vec<String>,

    /// For how many years the certificates are valid that sealrs makes: those of authorities, and the private registry's.
    #[arg(long, value_name = "YEARS", default_value_t = LONGEST_LIFE, value_parser = clap::value_parser!(u16).range(1..=100))]
    certificate_years: u16,

    /// Wait until apps are ready, for 300 seconds or for these.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "300")]
    wait: Option<u64>,

    /// Print what would be done and what stands against it, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Don't ask before hosts are removed.
    #[arg(long)]
    force: bool,
}

impl Apply {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let progress = printer.progress();
        let access = self.access.read()?;
        let text = lint::text(&self.clusterfile)?;
        let clusterfile = Clusterfile::parse(lint::called(&self.clusterfile), &text)?;
        for warning in &clusterfile.warnings {
            progress.event(Event::Warning(&warning.text("")));
        }
        let base = Options {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            env: self.env.into_iter().collect::<BTreeMap<_, _>>(),
            wait: self.wait,
            certificate_years: self.certificate_years,
            runtime_config: self.runtime_config,
            ..Options::default()
        };
        let secrets = Secrets {
            folder: Path::new(&self.clusterfile).parent().unwrap_or_else(|| Path::new("")),
            progress: &*progress,
            ask: None,
        };
        let Wanted { image, options } = clusterfile.wanted(base, &access, &secrets)?;
        let name = self.image.or(image).ok_or_else(|| {
            Error::new(ErrorKind::Input, "the Clusterfile names no image").hint("add `spec.image`, or name one")
        })?;
        let located = locate(&options.root, &name)?;
        let image = ClusterImage::read(&*located.source, &located.root, &Platform::host())?;
        located.check_complete()?;
        if image.extension.kind == ImageKind::AppInstaller {
            let cluster = Cluster {
                root: &options.root,
                name: &options.cluster,
                given: &access,
            };
            return apps(&*located.source, &image, cluster, &options, self.dry_run, printer);
        }
        let difference = sealrs_installer::difference(&image, &options)?;
        if self.dry_run {
            return match difference {
                Difference::Install => {
                    let (plan, findings) = sealrs_installer::plan(&*located.source, &image, &options)?;
                    show_plan(&plan, printer)?;
                    enforce(&findings, &*progress)
                }
                difference => printer.result(&serde_json::json!({ "difference": difference.to_string() }), |_| {
                    difference.to_string()
                }),
            };
        }
        if !difference.is_none() && difference != Difference::Install {
            progress.event(Event::Message(&format!("cluster {}: {difference}", options.cluster)));
        }
        if !difference.leaving().is_empty() {
            let leaving: Vec<String> = difference.leaving().iter().map(ToString::to_string).collect();
            let what = format!("{} from cluster {}", leaving.join(", "), options.cluster);
            delete::confirm(&what, self.force)?;
        }
        let summary = sealrs_installer::apply(&*located.source, &image, &options, &access, difference, &*progress)?;
        printer.result(&summary, |summary| summary.words.join("\n"))
    }
}
