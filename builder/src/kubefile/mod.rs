//! Kubefiles: the text that says what a ClusterImage consists of.
//!
//! The grammar is the Dockerfile's (comments, continued lines, heredocs, quotes, `--flags`, ARG and ENV), with the
//! instructions of a ClusterImage. [`Kubefile::read`] checks the form, puts in the values and gives the [`Step`]s of
//! the build, and [`Kubefile::check_apps`] looks at the apps once the base image is known. Everything that is wrong is
//! collected and shown with its line. Nothing here reads files or talks to anyone.
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
pub(crate) mod runtime;
mod scope;
mod source_text;
mod step;
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
pub(crate) use step::{
    Action, App, AppKind, BaseImage, Checksum, Destination, FileCopy, RemoteFile, Source, SourceKind, Step,
};

pub(crate) use diagnostic::quoted;
use lexer::Statement;

/// Names and values of `--build-arg`.
pub(crate) type BuildArgs = BTreeMap<String, String>;

/// A Kubefile as far as it is right, and what is wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Kubefile {
    file: String,
    source: Arc<str>,
    steps: Vec<Step>,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
    /// Whether each APP, CNI and CSI became a step.
    apps_are_known: bool,
}

impl Kubefile {
    /// Reads the text of a Kubefile, whose name in messages is `file`, and puts in the values for one target platform.
    /// What is wrong in it, and `build_args` that no ARG takes, comes with [`Kubefile::check`].
    #[must_use]
    pub(crate) fn read(text: &[u8], file: &str, build_args: &BuildArgs, target: &Platform) -> Self {
        let mut kubefile = Self {
            file: file.to_owned(),
            source: String::from_utf8_lossy(text).into(),
            steps: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            apps_are_known: false,
        };
        let problems = match std::str::from_utf8(text) {
            Ok(text) => kubefile.parse(text, build_args, target),
            Err(error) => vec![not_utf8(text, error.valid_up_to())],
        };
        (kubefile.warnings, kubefile.errors) = problems.into_iter().partition(is_warning);
        kubefile
    }

    /// Fills in the steps; gives the problems of both stages.
    fn parse(&mut self, text: &str, build_args: &BuildArgs, target: &Platform) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        let lexed = lexer::lex(text, &mut problems);
        let statements = &lexed.statements;
        // A file that can't be cut into statements has no order either.
        if problems.iter().all(is_warning) || !statements.is_empty() {
            order::check(statements, &mut problems);
        }
        let instructions = parser::parse(statements, lexed.escape, &mut problems);
        let parsed: BTreeSet<Span> = instructions.iter().map(|instruction| instruction.span).collect();
        // Behind an ARG or ENV that is missing, a file would be full of undeclared variables.
        let is_certain = |(at, statement): &(usize, &Statement)| {
            let keyword = &statement.keyword;
            *at < lexed.certain && (!keyword::may_declare(keyword.as_str()) || parsed.contains(&keyword.span()))
        };
        let certain = statements.iter().enumerate().take_while(is_certain).count();
        let end = statements.get(certain).map(|statement| statement.keyword.span());
        let known = instructions.partition_point(|instruction| end.is_none_or(|end| instruction.span < end));
        let known = instructions.get(..known).unwrap_or_default();
        if end.is_none() && !statements.is_empty() {
            resolve::check_build_args(known, build_args, &mut problems);
        }
        self.steps = resolve::resolve(known, build_args, target, &mut problems);
        let resolved: BTreeSet<Span> = self.steps.iter().map(|step| step.span).collect();
        self.apps_are_known = statements
            .iter()
            .take(certain)
            .map(|statement| &statement.keyword)
            .filter(|keyword| keyword::may_define_app(keyword.as_str()))
            .all(|keyword| resolved.contains(&keyword.span()));
        problems
    }

    /// What the build does, in order. If nothing is wrong, the first step is FROM.
    #[must_use]
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether something was wrong already when it was read.
    #[must_use]
    pub(crate) fn is_wrong(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Gives all errors together: those of the file, and `more` that were found by looking at what it names.
    ///
    /// # Errors
    /// All that is wrong, if anything is.
    pub(crate) fn check(&self, more: Vec<Diagnostic>) -> Result<(), Diagnostics> {
        let mut errors = self.errors.clone();
        for error in more {
            // A Kubefile with two FROM is looked at twice.
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(self.diagnostics(errors))
        }
    }

    /// Says which apps that APPENV, APPCMDS and LAUNCH name are neither defined before nor in the base image, whose apps
    /// are `inherited`. Nothing, where a wrong instruction may have defined them.
    #[must_use]
    pub(crate) fn check_apps(&self, inherited: &BTreeSet<String>) -> Vec<Diagnostic> {
        if self.apps_are_known {
            apps::check(&self.steps, inherited)
        } else {
            Vec::new()
        }
    }

    /// What is allowed, but probably not what the author meant.
    #[must_use]
    pub(crate) fn warnings(&self) -> Diagnostics {
        self.diagnostics(self.warnings.clone())
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
fn not_utf8(bytes: &[u8], offset: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(bytes.get(..offset).unwrap_or_default());
    let last = before.rsplit('\n').next().unwrap_or_default();
    let span = Span {
        line: before.matches('\n').count() + 1,
        column: last.trim_start_matches('\u{feff}').chars().count() + 1,
        length: 1,
    };
    Diagnostic::error(span, "the file is not UTF-8 here").hint("save it as UTF-8")
}
