//! One file a command: take the flags, call a crate, print.

mod build;
mod completion;
mod images;
mod inspect;
mod load;
mod man;
mod prune;
mod registry;
mod remote;
mod rmi;
mod save;
mod tag;

use std::path::Path;

use clap::Subcommand;
use sealrs_image::error::Result;

use crate::printer::Printer;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(build::Build),
    Images(images::Images),
    Inspect(inspect::Inspect),
    Tag(tag::Tag),
    Rmi(rmi::Rmi),
    Prune(prune::Prune),
    Save(save::Save),
    Load(load::Load),
    #[command(subcommand)]
    Registry(registry::Registry),
    Completion(completion::Completion),
    #[command(hide = true)]
    Man(man::Man),
}

/// Runs a command.
pub(crate) fn run(command: Command, root: &Path, printer: &Printer) -> Result<()> {
    match command {
        Command::Build(command) => command.run(root, printer),
        Command::Images(command) => command.run(root, printer),
        Command::Inspect(command) => command.run(root, printer),
        Command::Tag(command) => command.run(root, printer),
        Command::Rmi(command) => command.run(root, printer),
        Command::Prune(command) => command.run(root, printer),
        Command::Save(command) => command.run(root, printer),
        Command::Load(command) => command.run(root, printer),
        Command::Registry(command) => command.run(printer),
        Command::Completion(command) => command.run(printer),
        Command::Man(command) => command.run(),
    }
}
