//! sealrs: offline cluster-image builder and bundler.

mod arguments;
mod bars;
mod commands;
mod printer;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::printer::Printer;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.output, arguments.quiet);
    match commands::run(arguments.command, &arguments.root, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
