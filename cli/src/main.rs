//! sealrs: offline cluster-image builder and bundler.

mod access;
mod arguments;
mod bars;
mod commands;
mod hosts;
mod printer;
mod usage;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::printer::{Output, Printer};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return refuse(&usage),
    };
    let printer = Printer::new(arguments.output, arguments.quiet);
    match commands::run(arguments.command, &arguments.root, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.failure(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Shows help and version as they are, and what is wrong with the command line as the user wants errors.
fn refuse(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() && usage::wants_json(std::env::args_os()) {
        let error = usage::error(usage);
        Printer::new(Output::Json, true).failure(&error);
        return ExitCode::from(error.kind().exit_code());
    }
    // Whoever has read enough of it may have gone.
    let _ = usage.print();
    if let Some(hint) = usage::remedy(usage) {
        let _ = anstream::stderr()
            .lock()
            .write_all(printer::rendered_hint(&hint).as_bytes());
    }
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
