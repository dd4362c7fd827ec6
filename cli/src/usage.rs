//! What is wrong with the command line, for programs. clap tells it as text only.

use std::ffi::OsString;

use clap::error::ContextKind;
use sealrs_image::error::{Error, ErrorKind};

/// Whether the command line asks for JSON. It can't be parsed, so the flag is looked for as it is written.
pub(crate) fn wants_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter().skip(1).take_while(|argument| argument != "--");
    let mut wants = false;
    while let Some(argument) = arguments.next() {
        if argument == "--output" {
            wants = arguments.next().is_some_and(|format| format == "json");
        } else if let Some(format) = argument
            .to_str()
            .and_then(|argument| argument.strip_prefix("--output="))
        {
            wants = format == "json";
        }
    }
    wants
}

/// The same as an error of ours: clap's first paragraph is the message, its tips are the hint.
pub(crate) fn error(usage: &clap::Error) -> Error {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    let lists_commands = "`sealrs --help` lists all commands";
    if matches!(
        usage.kind(),
        MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return Error::new(ErrorKind::Input, "the command line lacks a command").hint(lists_commands);
    }
    let text = usage.render().to_string();
    let mut paragraphs = text.split("\n\n").map(on_one_line).filter(|text| !text.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let hints: Vec<String> = paragraphs
        .filter(|text| text.starts_with("tip:") || text.starts_with("For more information"))
        .map(|text| text.trim_start_matches("tip:").trim().to_owned())
        .collect();
    let error = Error::new(ErrorKind::Input, message);
    if let Some(remedy) = remedy(usage) {
        return error.hint(remedy);
    }
    match hints.is_empty() {
        true => error.hint(lists_commands),
        false => error.hint(hints.join("; ")),
    }
}

/// What to do about a value that could not be read. clap tells only what is wrong with it.
pub(crate) fn remedy(usage: &clap::Error) -> Option<String> {
    let told = |kind| usage.get(kind).map(ToString::to_string);
    if told(ContextKind::InvalidArg).is_some_and(|argument| argument.starts_with("--output <")) {
        let file = told(ContextKind::InvalidValue).filter(|file| !file.is_empty())?;
        return Some(format!(
            "`--output` is how results are written, as text or JSON; a file is named with `-o {file}`"
        ));
    }
    let ours = std::error::Error::source(usage)?.downcast_ref::<Error>()?;
    ours.remedy().map(str::to_owned)
}

fn on_one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}
