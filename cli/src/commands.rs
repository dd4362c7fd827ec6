//! One file a command: take the flags, call a crate, print.

mod build;
mod completion;
mod delete;
mod images;
mod inspect;
mod load;
mod login;
mod logout;
mod man;
mod node;
mod prune;
mod registry;
mod remote;
mod rmi;
mod run;
mod save;
mod search;
mod tag;

use std::path::Path;

use clap::Subcommand;
use sealrs_image::error::Result;

use crate::printer::Printer;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(Box<build::Build>),
    Images(images::Images),
    Inspect(inspect::Inspect),
    Tag(tag::Tag),
    Rmi(rmi::Rmi),
    Prune(prune::Prune),
    Save(save::Save),
    Load(load::Load),
    Login(login::Login),
    Logout(logout::Logout),
    Search(search::Search),
    Run(Box<run::Run>),
    Delete(delete::Delete),
    #[command(subcommand)]
    Registry(registry::Registry),
    #[command(subcommand, hide = true)]
    Node(node::Node),
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
        Command::Login(command) => command.run(printer),
        Command::Logout(command) => command.run(printer),
        Command::Search(command) => command.run(printer),
        Command::Run(command) => command.run(root, printer),
        Command::Delete(command) => command.run(root, printer),
        Command::Registry(command) => command.run(printer),
        Command::Node(command) => command.run(),
        Command::Completion(command) => command.run(printer),
        Command::Man(command) => command.run(),
    }
}

/// Reads `NAME=VALUE`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
