//! Kubefiles: the text that says what a ClusterImage consists of.
//!
//! The grammar is the Dockerfile's (comments, continued lines, heredocs, quotes, `--flags`, ARG and ENV), with the
//! instructions of a ClusterImage. [`Kubefile::load`] checks the form, puts in the values and gives the [`Step`]s of
//! the build, and [`Kubefile::check_apps`] looks at the apps once the base image is known. Everything that is wrong is collected and shown with its line. Nothing here
//! reads files or talks to anyone.
//!
//! # What is expanded
//!
//! | instruction | variables |
//! |---|---|
//! | FROM, ARG, ENV, LABEL, COPY, ADD, APP, CNI, CSI, APPENV, LAUNCH, KUBEVERSION | expanded, values of flags too |
//! | the app's name in APPCMDS | expanded |
//! | commands of APPCMDS, CMDS, CMD; MAINTAINER | taken as they are: a host's shell expands commands |
//! | heredocs | expanded, unless the delimiter is quoted |
//!
//! # Where it differs from a Dockerfile
//!
//! * A variable that is not declared, or has no value, is an error instead of an empty text; `${X:-}` allows it.
//!   So is a `--build-arg` that no ARG takes. Variables of the base image are not seen.
//! * `ARCH` (the target's architecture, as Go names it) and `TARGETPLATFORM`, `TARGETARCH`, `BUILDARCH` and so on
//!   need no ARG.
//! * Quotes hold a word together everywhere: `COPY "two words" x` has one source. In JSON arrays quotes are plain.
//! * An array that is meant as JSON and is broken is an error, not a list of words.
//! * Heredocs keep their backslashes, except `\$` and `\\`; their lines end with a line feed also in a CRLF file.
//! * CMDS without a JSON array is one shell command. CMD with an array of several strings is one command of these
//!   words; with one string, that string.

mod apps;
mod diagnostic;
mod instruction;
mod json_array;
mod keyword;
mod lexer;
mod order;
mod parser;
mod path;
mod remote_file;
mod resolve;
mod scope;
mod source_text;
mod step;
mod suggest;
mod template;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealrs_image::error::Error;
use sealrs_image::platform::Platform;

pub(crate) use diagnostic::{Diagnostic, Diagnostics, Severity, Span};
#[cfg(test)]
use step::AppName;
pub(crate) use step::{Action, App, AppKind, BaseImage, Destination, FileCopy, RemoteFile, Source, SourceKind, Step};

pub(crate) use diagnostic::quoted;
use instruction::Instruction;

/// Names and values of `--build-arg`.
pub(crate) type BuildArgs = BTreeMap<String, String>;

/// A Kubefile whose form is right.
#[derive(Debug, Clone)]
pub(crate) struct Kubefile {
    file: String,
    source: Arc<str>,
    instructions: Vec<Instruction>,
    warnings: Diagnostics,
}

impl Kubefile {
    /// Reads the text of a Kubefile, whose name in messages is `file`, and puts in the values for one target platform:
    /// gives the steps of the build, in order, the first of them FROM. Errors of both stages are shown together.
    ///
    /// # Errors
    /// All that is wrong in it, and `build_args` that no ARG takes.
    pub(crate) fn load(
        text: &[u8],
        file: &str,
        build_args: &BuildArgs,
        target: &Platform,
    ) -> Result<(Self, Vec<Step>), Diagnostics> {
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => return Err(not_utf8(text, error.valid_up_to(), file)),
        };
        let (kubefile, mut errors, scope_is_complete) = Self::read(text, file);
        let mut steps = Vec::new();
        // Without its ARGs and ENVs, a file would be full of undeclared variables.
        if scope_is_complete {
            steps = resolve::resolve(&kubefile.instructions, build_args, target, &mut errors);
        }
        if errors.is_empty() {
            Ok((kubefile, steps))
        } else {
            Err(kubefile.diagnostics(errors))
        }
    }

    /// The file with what is right in it, what is wrong in it, and whether all that declares variables is right.
    fn read(text: &str, file: &str) -> (Self, Vec<Diagnostic>, bool) {
        let mut problems = Vec::new();
        let lexed = lexer::lex(text, &mut problems);
        let mut scope_is_complete = problems.iter().all(is_warning);
        // A file that can't be cut into statements has no order either.
        if scope_is_complete || !lexed.statements.is_empty() {
            order::check(&lexed.statements, &mut problems);
        }
        let instructions = parser::parse(&lexed.statements, lexed.escape, &mut problems);
        let parsed: BTreeSet<Span> = instructions.iter().map(|instruction| instruction.span).collect();
        scope_is_complete &= lexed
            .statements
            .iter()
            .map(|statement| &statement.keyword)
            .filter(|keyword| keyword::may_declare(keyword.as_str()))
            .all(|keyword| parsed.contains(&keyword.span()));
        let (warnings, errors) = problems.into_iter().partition(is_warning);
        let source: Arc<str> = text.into();
        let kubefile = Self {
            warnings: Diagnostics::new(file, Arc::clone(&source), warnings),
            file: file.to_owned(),
            source,
            instructions,
        };
        (kubefile, errors, scope_is_complete)
    }

    /// Checks that the apps that APPENV, APPCMDS and LAUNCH name are defined before, or are in the base image, whose
    /// apps are `inherited`.
    ///
    /// # Errors
    /// All names that are not.
    pub(crate) fn check_apps(&self, steps: &[Step], inherited: &BTreeSet<String>) -> Result<(), Diagnostics> {
        let errors = apps::check(steps, inherited);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(self.diagnostics(errors))
        }
    }

    /// What is allowed, but probably not what the author meant.
    #[must_use]
    pub(crate) fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// An error of a later stage that shows the lines that asked for what failed, for instance a source that does not
    /// exist.
    #[must_use]
    pub(crate) fn error(&self, failures: Vec<Diagnostic>) -> Error {
        self.diagnostics(failures).into()
    }

    fn diagnostics(&self, entries: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(self.file.as_str(), Arc::clone(&self.source), entries)
    }
}

fn is_warning(problem: &Diagnostic) -> bool {
    problem.severity() == Severity::Warning
}

/// The error for a file that is not UTF-8 from this byte on.
fn not_utf8(bytes: &[u8], offset: usize, file: &str) -> Diagnostics {
    let before = String::from_utf8_lossy(bytes.get(..offset).unwrap_or_default());
    let last = before.rsplit('\n').next().unwrap_or_default();
    let span = Span {
        line: before.matches('\n').count() + 1,
        column: last.trim_start_matches('\u{feff}').chars().count() + 1,
        length: 1,
    };
    let error = Diagnostic::error(span, "the file is not UTF-8 here").hint("save it as UTF-8");
    Diagnostics::new(file, String::from_utf8_lossy(bytes), vec![error])
}
