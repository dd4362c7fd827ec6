//! One file a command: take the flags, call a crate, print.

mod app;
mod apply;
mod build;
mod check;
mod completion;
mod copy;
mod delete;
mod generate;
mod images;
mod images_in;
mod inspect;
mod lint;
mod load;
mod login;
mod logout;
mod man;
mod manifest;
mod merge;
mod node;
mod platforms;
mod prune;
mod pull;
mod push;
mod registry;
mod remote;
mod rmi;
mod run;
mod save;
mod scale_up;
mod search;
mod size;
mod status;
mod tag;
mod verify;

use std::path::Path;

use clap::Subcommand;
use indicatif::HumanBytes;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::copy::Copied;
use sealrs_image::digest::Digest;
use sealrs_image::error::{ErrorKind, Result};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress as _};
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;
use sealrs_installer::preflight::enforce;
use sealrs_installer::{Cluster, Options, Plan};

use crate::printer::Printer;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(Box<build::Build>),
    Merge(merge::Merge),
    Images(images::Images),
    ImagesIn(images_in::ImagesIn),
    Inspect(inspect::Inspect),
    Tag(tag::Tag),
    Rmi(rmi::Rmi),
    Prune(prune::Prune),
    Pull(pull::Pull),
    Push(push::Push),
    #[command(subcommand)]
    Manifest(manifest::Manifest),
    Copy(Box<copy::Copy>),
    Save(save::Save),
    Load(load::Load),
    Login(login::Login),
    Logout(logout::Logout),
    Search(search::Search),
    Verify(verify::Verify),
    #[command(subcommand, name = "gen")]
    Generate(generate::Generate),
    Lint(lint::Lint),
    Check(Box<check::Check>),
    Status(status::Status),
    Run(Box<run::Run>),
    Apply(Box<apply::Apply>),
    ScaleUp(Box<scale_up::ScaleUp>),
    #[command(subcommand)]
    App(app::App),
    Delete(Box<delete::Delete>),
    #[command(subcommand)]
    Registry(registry::Registry),
    #[command(subcommand, hide = true)]
    Node(node::Node),
    Completion(completion::Completion),
    Man(man::Man),
}

/// Runs a command.
pub(crate) fn run(command: Command, root: &Path, printer: &Printer) -> Result<()> {
    match command {
        Command::Build(command) => command.run(root, printer),
        Command::Merge(command) => command.run(root, printer),
        Command::Images(command) => command.run(root, printer),
        Command::ImagesIn(command) => command.run(root, printer),
        Command::Inspect(command) => command.run(root, printer),
        Command::Tag(command) => command.run(root, printer),
        Command::Rmi(command) => command.run(root, printer),
        Command::Prune(command) => command.run(root, printer),
        Command::Pull(command) => command.run(root, printer),
        Command::Push(command) => command.run(root, printer),
        Command::Manifest(command) => command.run(root, printer),
        Command::Copy(command) => command.run(root, printer),
        Command::Save(command) => command.run(root, printer),
        Command::Load(command) => command.run(root, printer),
        Command::Login(command) => command.run(printer),
        Command::Logout(command) => command.run(printer),
        Command::Search(command) => command.run(printer),
        Command::Verify(command) => command.run(root, printer),
        Command::Generate(command) => command.run(printer),
        Command::Lint(command) => command.run(printer),
        Command::Check(command) => command.run(root, printer),
        Command::Status(command) => command.run(root, printer),
        Command::Run(command) => command.run(root, printer),
        Command::Apply(command) => command.run(root, printer),
        Command::ScaleUp(command) => command.run(root, printer),
        Command::App(command) => command.run(root, printer),
        Command::Delete(command) => command.run(root, printer),
        Command::Registry(command) => command.run(printer),
        Command::Node(command) => command.run(),
        Command::Completion(command) => command.run(printer),
        Command::Man(command) => command.run(),
    }
}

/// How many blobs are copied at once where hashing is what takes the time.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Says of an image in the store when it is no ClusterImage: it can be carried, but not used.
fn tell_kind(store: &Store, image: &Descriptor, name: &str, printer: &Printer) {
    let read = ClusterImage::read(store, image, &Platform::host());
    if read.is_err_and(|error| error.kind() == ErrorKind::Input) {
        let what = format!(
            "{name} is not a ClusterImage: it can be saved, pushed and copied, but not inspected, installed or built on"
        );
        printer.progress().event(Event::Message(&what));
    }
}

/// Brings an image of apps onto a cluster that runs, or says what that would do.
fn apps(
    source: &dyn Source,
    image: &ClusterImage,
    cluster: Cluster<'_>,
    options: &Options,
    dry_run: bool,
    printer: &Printer,
) -> Result<()> {
    let progress = printer.progress();
    if dry_run {
        let (plan, findings) = sealrs_installer::plan_apps(image, cluster, options)?;
        show_plan(&plan, printer)?;
        return enforce(&findings, &*progress);
    }
    let summary = sealrs_installer::install_apps(source, image, cluster, options, &*progress)?;
    printer.result(&summary, |summary| summary.words.join("\n"))
}

/// Prints a plan, with its digest.
fn show_plan(plan: &Plan, printer: &Printer) -> Result<()> {
    #[derive(serde::Serialize)]
    struct Shown<'p> {
        digest: Digest,
        #[serde(flatten)]
        plan: &'p Plan,
    }
    let shown = Shown {
        digest: plan.digest()?,
        plan,
    };
    printer.result(&shown, |shown| format!("{}plan {}", shown.plan, shown.digest))
}

/// What moved, for people.
fn moved(copied: &Copied) -> String {
    let bytes = HumanBytes(copied.bytes);
    let mounted = match copied.mounted {
        0 => String::new(),
        mounted => format!(", {mounted} were taken over from another repository"),
    };
    format!(
        "{bytes} in {} blobs, {} were there{mounted}",
        copied.blobs, copied.skipped
    )
}

/// Reads `NAME=VALUE`, or `NAME` for what sealrs itself has in its environment: a secret on a command line is seen by all.
fn variable(text: &str) -> Result<(String, String), String> {
    if text.is_empty() || text.contains('=') {
        return assignment(text);
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_owned(), value)),
        Err(std::env::VarError::NotPresent) => {
            Err("it is not set in the environment of sealrs: set it, or write NAME=VALUE".to_owned())
        }
        Err(std::env::VarError::NotUnicode(_)) => Err("its value in the environment of sealrs is not UTF-8".to_owned()),
    }
}

/// Reads `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
