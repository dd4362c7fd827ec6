//! The only place that prints: data goes to stdout, talk to stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use clap::ValueEnum;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::listed;
use serde::Serialize;

use crate::bars::Bars;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document on stdout; progress and errors as JSON lines on stderr.
    Json,
}

/// Knows how the user wants to be told things.
#[derive(Debug)]
pub(crate) struct Printer {
    output: Output,
    bars: Arc<Bars>,
}

impl Printer {
    pub(crate) fn new(output: Output, quiet: bool) -> Self {
        let bars = match (output, quiet) {
            (_, true) => Bars::hidden(),
            (Output::Json, _) => Bars::json(),
            (Output::Text, _) if io::stderr().is_terminal() => Bars::drawn(),
            (Output::Text, _) => Bars::lines(),
        };
        Self {
            output,
            bars: Arc::new(bars),
        }
    }

    /// Where long operations tell how far they are.
    pub(crate) fn progress(&self) -> Arc<Bars> {
        Arc::clone(&self.bars)
    }

    /// Prints a result: `document` as JSON, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(&self, document: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let mut rendered = match self.output {
            Output::Json => serde_json::to_string_pretty(document)
                .map_err(|error| Error::new(ErrorKind::Internal, "cannot write the result as JSON").because(error))?,
            Output::Text => text(document),
        };
        if !rendered.is_empty() && !rendered.ends_with('\n') {
            rendered.push('\n');
        }
        self.text(&rendered)
    }

    /// Prints data as it is.
    pub(crate) fn text(&self, data: &str) -> Result<()> {
        self.bars.clear();
        let mut out = anstream::stdout().lock();
        match out.write_all(data.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough (`sealrs images | head`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.or_io(|| "cannot write to stdout"),
        }
    }

    /// Prints a failure: what, why, what to do.
    pub(crate) fn failure(&self, error: &Error) {
        self.bars.clear();
        let rendered = match self.output {
            Output::Json => {
                let document = serde_json::json!({
                    "event": "error",
                    "code": error.kind().code(),
                    "message": error.to_string(),
                    "causes": error.causes(),
                    "hint": error.remedy(),
                    "errors": error.findings(),
                });
                format!("{document}\n")
            }
            Output::Text => render(error),
        };
        let _ = anstream::stderr().lock().write_all(rendered.as_bytes());
    }
}

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

fn render(error: &Error) -> String {
    let mut text = format!("{RED}error:{RESET} {error}\n");
    if !error.findings().is_empty() {
        // They tell their causes and remedies themselves.
        text.push_str(&format!("\n{}\n", listed(error.findings())));
        return text;
    }
    for cause in error.causes() {
        let cause = cause.replace('\n', "\n         ");
        text.push_str(&format!("  cause: {cause}\n"));
    }
    if let Some(hint) = error.remedy() {
        text.push_str(&rendered_hint(hint));
    }
    text
}

/// What to do about a failure, as a line.
pub(crate) fn rendered_hint(hint: &str) -> String {
    format!("  {CYAN}hint:{RESET} {hint}\n")
}
