//! `sealrs verify`

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::archive::Archive;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::{in_store, names_archive};
use sealrs_image::reference::Reference;
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;
use sealrs_image::verify::{Fault, Problem, Report, verify};
use sealrs_installer::member::Access;
use sealrs_installer::{Cluster, Gap};

use crate::access::Secrets;
use crate::printer::Printer;

/// Read every blob of an image, an archive file or the whole store again, and tell which ones are damaged or missing; or ask
/// the private registry of a cluster for all of its images.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs verify
  sealrs verify k3s.tar
  sealrs verify k3s:v1 --repair
  sealrs verify --cluster my-cluster")]
pub(crate) struct Verify {
    /// Name of an image in the store, the start of its digest, or an archive file; without it, everything in the store.
    #[arg(value_name = "NAME|FILE")]
    image: Option<String>,

    /// Set damaged blobs of the store aside, so that the next `load` or `pull` of the image brings them again.
    #[arg(long)]
    repair: bool,

    /// Ask the private registry of this cluster for every container image that it was installed with, and for those that
    /// pods name; and each host whether it reaches the registry.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["image", "repair"])]
    cluster: Option<String>,

    #[command(flatten)]
    secrets: Secrets,
}

impl Verify {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        if let Some(name) = &self.cluster {
            return cluster(root, name, &self.secrets.read()?, printer);
        }
        match self.image.as_deref() {
            Some(argument) if names_archive(root, argument)? => self.archive(Path::new(argument), printer),
            argument => self.store(root, argument, printer),
        }
    }

    fn archive(&self, path: &Path, printer: &Printer) -> Result<()> {
        if self.repair {
            return Err(Error::new(ErrorKind::Input, "an archive file can't be repaired")
                .hint("copy it again from where it came, or save it again"));
        }
        let archive = Archive::open(path)?;
        let may_lack = |blob: &Descriptor| !archive.bases().is_empty() && !archive.holds(blob);
        let report = verify(&archive, &labelled(archive.images()), may_lack, &*printer.progress());
        tell(&report, &[], printer)?;
        if report.faults.is_empty() {
            return Ok(());
        }
        let error = failure(&report, &path.display().to_string())
            .hint("copy the archive again from where it came, or save it again");
        Err(archive.explain(error))
    }

    fn store(&self, root: &Path, argument: Option<&str>, printer: &Printer) -> Result<()> {
        let store = Store::look(root)?;
        let lock = store.share()?;
        let images = match argument {
            Some(argument) => {
                let (image, name) = in_store(&store, argument)?;
                vec![(name, image)]
            }
            None => store.list()?,
        };
        let report = verify(&store, &labelled(&images), |_| false, &*printer.progress());
        // Whoever removes has the store alone.
        drop(lock);
        let damaged: Vec<Descriptor> = report
            .faults
            .iter()
            .filter(|fault| fault.problem != Problem::Missing)
            .map(|fault| Descriptor::new(&fault.media_type, fault.digest, fault.size))
            .collect();
        let aside = match self.repair && !damaged.is_empty() {
            true => store.set_aside(&damaged)?,
            false => Vec::new(),
        };
        tell(&report, &aside, printer)?;
        if report.faults.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&str> = report
            .faults
            .iter()
            .flat_map(|fault| &fault.images)
            .map(String::as_str)
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let again = format!("load or pull again: {}", names.join(", "));
        Err(failure(&report, "the store").hint(match damaged.len() > aside.len() {
            true => format!("set the damaged blobs aside with `sealrs verify --repair`, then {again}"),
            false => again,
        }))
    }
}

/// Asks a cluster's registry for all images.
fn cluster(root: &Path, name: &str, given: &Access, printer: &Printer) -> Result<()> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let cluster = Cluster {
        root: &root,
        name,
        given,
    };
    let audit = sealrs_installer::audit(cluster, &*printer.progress())?;
    printer.result(&audit, |audit| {
        let mut text: String = audit.gaps.iter().map(gap).collect();
        let pods = match audit.pod_images {
            Some(count) => format!("{count} images that pods name"),
            None => "no pods looked at".to_owned(),
        };
        text.push_str(&format!(
            "{}: {} images, {} whole blobs, {}; {pods}; asked by {} hosts",
            audit.registry,
            audit.images,
            audit.blobs,
            HumanBytes(audit.bytes),
            audit.hosts.len()
        ));
        text
    })?;
    audit.check()
}

/// What a cluster can't have, in words.
fn gap(gap: &Gap) -> String {
    let mut what = vec![gap.image.clone().unwrap_or_else(|| "the registry".to_owned())];
    what.extend(gap.blob.map(|blob| format!("blob {blob}")));
    what.push(format!("host {}", gap.host));
    let asked_by = match gap.asked_by.as_slice() {
        [] => String::new(),
        places => format!("\n  asked for by {}", places.join(", ")),
    };
    format!(
        "{}: {}{asked_by}\n  {}\n",
        word(gap.problem),
        what.join(", "),
        gap.detail
    )
}

fn word(problem: Problem) -> &'static str {
    match problem {
        Problem::Missing => "missing",
        Problem::Damaged => "damaged",
        Problem::Unreadable => "unreadable",
    }
}

fn labelled(images: &[(Option<Reference>, Descriptor)]) -> Vec<(String, Descriptor)> {
    let label = |(name, image): &(Option<Reference>, Descriptor)| {
        let label = name
            .as_ref()
            .map_or_else(|| image.digest.to_string(), Reference::familiar);
        (label, image.clone())
    };
    images.iter().map(label).collect()
}

fn tell(report: &Report, aside: &[Descriptor], printer: &Printer) -> Result<()> {
    let aside: BTreeSet<_> = aside.iter().map(|blob| blob.digest).collect();
    let document = serde_json::json!({
        "images": report.images, "blobs": report.blobs, "bytes": report.bytes, "leftOut": report.left_out,
        "faults": report.faults, "setAside": aside,
    });
    let line = |fault: &Fault| {
        let problem = word(fault.problem);
        let set_aside = if aside.contains(&fault.digest) {
            ", set aside"
        } else {
            ""
        };
        format!(
            "{problem}: {} ({}), needed by {}{set_aside}\n  {}\n",
            fault.digest,
            HumanBytes(fault.size),
            fault.images.join(", "),
            fault.detail
        )
    };
    printer.result(&document, |_| {
        let mut text: String = report.faults.iter().map(line).collect();
        text.push_str(&format!(
            "{} images, {} whole blobs, {}",
            report.images,
            report.blobs,
            HumanBytes(report.bytes)
        ));
        if report.left_out > 0 {
            text.push_str(&format!("; {} blobs are left out, the base has them", report.left_out));
        }
        text
    })
}

fn failure(report: &Report, place: &str) -> Error {
    let what = match report.faults.len() {
        1 => format!("a blob of {place} is damaged or missing"),
        several => format!("{several} blobs of {place} are damaged or missing"),
    };
    Error::new(ErrorKind::Integrity, what)
}
