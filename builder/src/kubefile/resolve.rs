//! Instructions to steps: expands the texts and checks the values.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use sealrs_image::digest::Digest;
use sealrs_image::error::Error;
use sealrs_image::platform::Platform;

use super::BuildArgs;
use super::diagnostic::{Diagnostic, Span, quoted};
use super::instruction::{Form, Instruction, Transfer, TransferSource};
use super::keyword::Keyword;
use super::path::{self, PathProblem};
use super::remote_file;
use super::runtime;
use super::scope::{self, Scope};
use super::step::{
    Action, App, AppKind, AppName, BaseImage, Checksum, FileCopy, InlineFile, Owner, RemoteFile, Source, SourceKind,
    Step,
};
use super::template::Template;
use crate::glob::Glob;

/// Where sources lie.
const CONTEXT: &str = "build context";

/// What `--checksum` can be given with.
const ONE_URL: &str = "`--checksum` is for one `http://` or `https://` source";

/// An app's name is a folder's name and part of a label.
const LONGEST_APP_NAME: usize = 128;

/// Says which of `build_args` no ARG takes.
pub(super) fn check_build_args(instructions: &[Instruction], build_args: &BuildArgs, problems: &mut Vec<Diagnostic>) {
    let declared = instructions.iter().flat_map(|instruction| match &instruction.form {
        Form::Arg(declarations) => declarations.as_slice(),
        _ => &[],
    });
    scope::check_build_args(
        build_args,
        declared.map(|declaration| declaration.name.as_str()),
        problems,
    );
}

/// Expands all instructions. What is wrong goes to `problems`, and the instruction is left out.
pub(super) fn resolve(
    instructions: &[Instruction],
    build_args: &BuildArgs,
    target: &Platform,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Step> {
    let mut resolver = Resolver {
        scope: Scope::new(build_args, target, &Platform::host()),
        problems,
        apps: BTreeMap::new(),
        commands: BTreeMap::new(),
    };
    let mut steps = Vec::new();
    for instruction in instructions {
        if let Some(action) = resolver.action(instruction) {
            steps.push(Step {
                action,
                span: instruction.span,
                original: instruction.original.clone(),
            });
        }
    }
    steps
}

struct Resolver<'a> {
    scope: Scope<'a>,
    problems: &'a mut Vec<Diagnostic>,
    /// Where each app was defined.
    apps: BTreeMap<String, Span>,
    /// Where each app's commands were given.
    commands: BTreeMap<String, Span>,
}

impl Resolver<'_> {
    /// What the instruction does; `None` if it does nothing (ARG) or something is wrong.
    fn action(&mut self, instruction: &Instruction) -> Option<Action> {
        match &instruction.form {
            Form::From { platform, image } => {
                let base = self.base_image(platform.as_ref(), image);
                self.scope.pass_from();
                Some(Action::From(base?))
            }
            Form::Arg(declarations) => {
                self.scope.declare(declarations, self.problems);
                None
            }
            Form::Env(variables) => self.env(variables),
            Form::Label(labels) => self.labels(labels),
            Form::Maintainer(name) => Some(Action::Maintainer(name.clone())),
            Form::Transfer(transfer) => Some(Action::Copy(self.transfer(transfer)?)),
            Form::App {
                kind,
                name,
                sources,
                checksum,
            } => Some(Action::App(self.app(*kind, name, sources, checksum.as_ref())?)),
            Form::AppEnv { app, variables } => {
                let app = self.app_name(app);
                let variables = self.values(variables);
                Some(Action::AppEnv {
                    app: app?,
                    variables: all(variables)?,
                })
            }
            Form::AppCommands { app, command } => {
                let app = self.app_name(app)?;
                self.once(Keyword::AppCommands, &app)?;
                Some(Action::AppCommands {
                    app,
                    command: command.clone(),
                })
            }
            Form::Launch(apps) => self.launch(apps),
            Form::Commands(commands) => Some(Action::Commands(commands.clone())),
            Form::KubeVersion(constraint) => Some(Action::KubeVersion(self.expand(constraint)?)),
        }
    }

    fn base_image(&mut self, platform: Option<&Template>, image: &Template) -> Option<BaseImage> {
        let platform = platform.map(|platform| self.parsed::<Platform>(platform));
        let name = self.expand(image)?;
        let platform = flatten(platform)?;
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return self.refuse(image, format!("{} is not the name of an image", quoted(&name)));
        }
        Some(if name == "scratch" {
            BaseImage::Scratch
        } else {
            BaseImage::Image { name, platform }
        })
    }

    /// The whole instruction sees the variables from before it: `ENV A=1 B=$A` takes the old A.
    fn env(&mut self, variables: &[(String, Template)]) -> Option<Action> {
        let values = self.values(variables);
        for (name, value) in &values {
            self.scope.set_env(name, value.as_deref());
        }
        Some(Action::Env(all(values)?))
    }

    fn values(&mut self, variables: &[(String, Template)]) -> Vec<(String, Option<String>)> {
        variables
            .iter()
            .map(|(name, value)| (name.clone(), self.expand(value)))
            .collect()
    }

    fn labels(&mut self, labels: &[(Template, Template)]) -> Option<Action> {
        let mut resolved = Some(Vec::new());
        for (name, value) in labels {
            let pair = (self.expand(name), self.expand(value));
            match (pair, &mut resolved) {
                ((Some(name_text), Some(value)), Some(resolved)) => {
                    if name_text.trim().is_empty() {
                        return self.refuse(name, "a label needs a name");
                    }
                    if let Some((message, hint)) = runtime::doubt(&name_text, &value) {
                        self.problems
                            .push(Diagnostic::warning(name.source.span(), message).hint(hint));
                    }
                    resolved.push((name_text, value));
                }
                _ => resolved = None,
            }
        }
        resolved.map(Action::Label)
    }

    fn transfer(&mut self, transfer: &Transfer) -> Option<FileCopy> {
        let mode = transfer.mode.as_ref().map(|mode| self.mode(mode));
        let owner = transfer.owner.as_ref().map(|owner| self.owner(owner));
        let mut sources: Vec<Option<Source>> = transfer
            .sources
            .iter()
            .map(|source| self.transfer_source(transfer.keyword, source))
            .collect();
        self.checksum(transfer.checksum.as_ref(), &mut sources)?;
        let destination_text = self.expand(&transfer.destination)?;
        let sources: Vec<Source> = sources.into_iter().collect::<Option<_>>()?;
        let destination = match path::destination(&destination_text) {
            Ok(destination) => destination,
            Err(problem) => {
                return self.bad_path(&transfer.destination, &destination_text, problem, "rootfs");
            }
        };
        if !destination.is_directory {
            if sources.len() > 1 {
                return self.refuse_with(
                    &transfer.destination,
                    "several sources need a folder as their destination",
                    format!("end it with a slash: {}", quoted(&format!("{destination_text}/"))),
                );
            }
        } else if let Some(unnamed) = sources
            .iter()
            .find(|source| matches!(&source.kind, SourceKind::Remote(RemoteFile { file_name: None, .. })))
        {
            self.problems.push(
                Diagnostic::error(unnamed.span, "the URL's path does not end with a file's name")
                    .hint("write the file's name as the destination, without a slash at its end"),
            );
            return None;
        }
        Some(FileCopy {
            sources,
            destination,
            mode: flatten(mode)?,
            owner: flatten(owner)?,
            unpack: transfer.keyword == Keyword::Add,
        })
    }

    fn transfer_source(&mut self, keyword: Keyword, source: &TransferSource) -> Option<Source> {
        match source {
            TransferSource::Inline { heredoc, content } => Some(Source {
                kind: SourceKind::Inline(InlineFile {
                    name: heredoc.delimiter.clone(),
                    content: self.expand(content)?,
                }),
                span: heredoc.word.span(),
            }),
            TransferSource::Named(template) => {
                let text = self.expand(template)?;
                match remote_file::scheme(&text).as_deref() {
                    Some("http" | "https") if keyword == Keyword::Add => self.remote(template, &text),
                    Some("http" | "https") => self.refuse_with(
                        template,
                        "`COPY` takes files of the build context only",
                        "write `ADD` to fetch a URL",
                    ),
                    Some("local") => self.refuse_with(
                        template,
                        format!("`local://` is not for `{}`", keyword.name()),
                        "write the path without `local://`",
                    ),
                    Some(scheme) => {
                        let message = format!("{} can't be fetched", quoted(&format!("{scheme}://")));
                        let hint = match keyword {
                            Keyword::Add => "write a path, or a URL with `http://` or `https://`",
                            _ => "write a path; `ADD` fetches `http://` and `https://`",
                        };
                        self.refuse_with(template, message, hint)
                    }
                    None => self.local(template, &text),
                }
            }
        }
    }

    fn app(
        &mut self,
        kind: AppKind,
        name: &Template,
        sources: &[Template],
        checksum: Option<&Template>,
    ) -> Option<App> {
        let name = self.app_name(name);
        let mut sources: Vec<Option<Source>> = sources.iter().map(|source| self.app_source(source)).collect();
        self.checksum(checksum, &mut sources)?;
        let name = name?;
        self.once(Keyword::App, &name)?;
        Some(App {
            name,
            kind,
            sources: sources.into_iter().collect::<Option<_>>()?,
        })
    }

    fn app_source(&mut self, template: &Template) -> Option<Source> {
        let text = self.expand(template)?;
        match (remote_file::scheme(&text).as_deref(), text.split_once("://")) {
            (Some("http" | "https"), _) => {
                let source = self.remote(template, &text)?;
                match &source.kind {
                    SourceKind::Remote(RemoteFile { file_name: None, .. }) => {
                        self.refuse(template, "the URL's path does not end with a file's name")
                    }
                    _ => Some(source),
                }
            }
            (Some("local"), Some((_, path))) => self.local(template, path),
            (None, _) if text.starts_with("--") => self.refuse_with(
                template,
                format!("{} is not a source", quoted(&text)),
                "flags stand before the name of the app: `APP --checksum=sha256:… NAME https://…`",
            ),
            (None, _) => self.refuse_with(
                template,
                "a source needs a scheme: `local://`, `http://` or `https://`",
                format!(
                    "write {} for a file of the build context",
                    quoted(&format!(
                        "local://{}",
                        text.strip_prefix("local:").unwrap_or(&text).trim_start_matches('/')
                    ))
                ),
            ),
            (Some(_), _) => self.refuse_with(
                template,
                format!("{} can't be fetched", quoted(&text)),
                "write `local://`, `http://` or `https://`",
            ),
        }
    }

    fn local(&mut self, template: &Template, text: &str) -> Option<Source> {
        let pattern = match path::clean(text) {
            Ok(pattern) if pattern.is_empty() => ".".to_owned(),
            Ok(pattern) => pattern,
            Err(problem) => return self.bad_path(template, text, problem, CONTEXT),
        };
        match Glob::parse(&pattern) {
            Ok(glob) => Some(Source {
                kind: SourceKind::Local(glob),
                span: template.source.span(),
            }),
            Err(problem) => self.refuse_with(
                template,
                format!("{} is not a pattern: {problem}", quoted(text)),
                "to name a file that has such characters, write `[[]`, `[*]` or `[?]` for them",
            ),
        }
    }

    fn remote(&mut self, template: &Template, url: &str) -> Option<Source> {
        match remote_file::parse(url) {
            Ok(file) => Some(Source {
                kind: SourceKind::Remote(file),
                span: template.source.span(),
            }),
            Err((message, hint)) => self.refuse_with(template, message, hint),
        }
    }

    /// Puts the checksum at its source. `None` if it is wrong.
    fn checksum(&mut self, checksum: Option<&Template>, sources: &mut [Option<Source>]) -> Option<()> {
        let Some(template) = checksum else {
            return Some(());
        };
        let digest = self.parsed::<Digest>(template)?;
        match sources {
            [
                Some(Source {
                    kind: SourceKind::Remote(file),
                    ..
                }),
            ] => {
                let line = template.source.span().line;
                file.checksum = Some(Checksum { digest, line });
                Some(())
            }
            // That source is wrong itself, and was reported.
            [None] => Some(()),
            [_] => self.refuse_with(
                template,
                ONE_URL,
                "leave it out: only files that are fetched have to be checked",
            ),
            _ => self.refuse_with(
                template,
                ONE_URL,
                "write an instruction of its own for each file that has a checksum",
            ),
        }
    }

    fn mode(&mut self, template: &Template) -> Option<u32> {
        let text = self.expand(template)?;
        let is_octal = !text.is_empty() && text.chars().all(|character| character.is_digit(8));
        match u32::from_str_radix(&text, 8)
            .ok()
            .filter(|&mode| is_octal && mode <= 0o7777)
        {
            Some(mode) => Some(mode),
            None => self.refuse_with(
                template,
                format!("{} is not a mode", quoted(&text)),
                "write an octal number from 0 to 7777, for instance `--chmod=755`",
            ),
        }
    }

    fn owner(&mut self, template: &Template) -> Option<Owner> {
        let text = self.expand(template)?;
        let number = |text: &str| match text {
            "root" => Some(0),
            _ if text.starts_with(|first: char| first.is_ascii_digit()) => text.parse::<u32>().ok(),
            _ => None,
        };
        let owner = match text.split_once(':') {
            Some((user, group)) => number(user).zip(number(group)),
            None => number(&text).map(|user| (user, user)),
        };
        match owner {
            Some((uid, gid)) => Some(Owner { uid, gid }),
            None => self.refuse_with(
                template,
                format!("{} is not an owner", quoted(&text)),
                "write numbers, `--chown=UID:GID`: a rootfs has no user names, except `root`",
            ),
        }
    }

    fn launch(&mut self, apps: &[Template]) -> Option<Action> {
        let mut names = Vec::new();
        let mut seen = BTreeSet::new();
        let mut complete = true;
        for template in apps {
            let Some(app) = self.app_name(template) else {
                complete = false;
                continue;
            };
            if !seen.insert(app.name.clone()) {
                self.problems.push(
                    Diagnostic::error(app.span, format!("{} is launched twice", quoted(&app.name)))
                        .hint("name each app once"),
                );
                complete = false;
            }
            names.push(app);
        }
        complete.then_some(Action::Launch(names))
    }

    fn app_name(&mut self, template: &Template) -> Option<AppName> {
        let name = self.expand(template)?;
        let is_edge = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
        let is_valid = name.len() <= LONGEST_APP_NAME
            && name.starts_with(is_edge)
            && name.ends_with(is_edge)
            && name
                .chars()
                .all(|character| is_edge(character) || matches!(character, '-' | '.' | '_'));
        if !is_valid {
            return self.refuse_with(
                template,
                format!("{} can't be the name of an app", quoted(&name)),
                format!("use lower-case letters, digits, `-`, `.` and `_`, begin and end with a letter or digit, {LONGEST_APP_NAME} characters at most"),
            );
        }
        Some(AppName {
            name,
            span: template.source.span(),
        })
    }

    /// Each app is defined once, and has commands once.
    fn once(&mut self, keyword: Keyword, app: &AppName) -> Option<()> {
        let seen = if keyword == Keyword::App {
            &mut self.apps
        } else {
            &mut self.commands
        };
        let Some(first) = seen.insert(app.name.clone(), app.span) else {
            return Some(());
        };
        let shown = quoted(&app.name);
        let (message, hint) = if keyword == Keyword::App {
            (
                format!("the app {shown} is defined twice, first in line {}", first.line),
                "name all its files in one `APP`, or give the other app another name",
            )
        } else {
            (
                format!("the app {shown} has commands already, in line {}", first.line),
                "write one `APPCMDS` for it, with `&&` between commands",
            )
        };
        self.problems.push(Diagnostic::error(app.span, message).hint(hint));
        None
    }

    fn expand(&mut self, template: &Template) -> Option<String> {
        self.scope.expand(template, self.problems)
    }

    /// The template's text as a value that knows how to parse itself.
    fn parsed<T: FromStr<Err = Error>>(&mut self, template: &Template) -> Option<T> {
        match self.expand(template)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = error.remedy().unwrap_or_default().to_owned();
                self.refuse_with(template, error.to_string(), hint)
            }
        }
    }

    fn bad_path<T>(&mut self, template: &Template, text: &str, problem: PathProblem, root: &str) -> Option<T> {
        let shown = quoted(text);
        match problem {
            PathProblem::Empty => self.refuse_with(template, "the path is empty", "write `.` for the whole folder"),
            PathProblem::Outside => {
                let more = match root {
                    CONTEXT => ", or choose a higher folder as the build context",
                    _ => "",
                };
                self.refuse_with(
                    template,
                    format!("{shown} leads out of the {root}"),
                    format!("write a path below the {root}, without `..` at its beginning{more}"),
                )
            }
            PathProblem::ControlCharacter => self.refuse(template, format!("{shown} has a control character")),
        }
    }

    fn refuse<T>(&mut self, template: &Template, message: impl Into<String>) -> Option<T> {
        self.problems.push(Diagnostic::error(template.source.span(), message));
        None
    }

    fn refuse_with<T>(
        &mut self,
        template: &Template,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        self.problems
            .push(Diagnostic::error(template.source.span(), message).hint(hint));
        None
    }
}

/// `None` if one value is missing.
fn all(values: Vec<(String, Option<String>)>) -> Option<Vec<(String, String)>> {
    values.into_iter().map(|(name, value)| Some((name, value?))).collect()
}

/// Of a flag that may be absent and a value that may be wrong: `None` if it is wrong.
fn flatten<T>(flag: Option<Option<T>>) -> Option<Option<T>> {
    match flag {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}
