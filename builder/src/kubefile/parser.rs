//! Statements to instructions: which words, flags and forms each instruction takes.

use sealrs_image::suggest::nearest;

use super::diagnostic::{Diagnostic, quoted};
use super::instruction::{Declaration, Form, Instruction, Transfer, TransferSource};
use super::json_array;
use super::keyword::{self, Keyword};
use super::lexer::{Heredoc, Statement};
use super::source_text::SourceText;
use super::step::AppKind;
use super::template::{Style, Template, is_variable_name};
use super::words::{Flag, refuse_comment, split_at_equals, split_flags, split_words};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Reading ends behind so many errors and warnings.
const MOST_PROBLEMS: usize = 1000;

/// Flags of a Dockerfile's COPY, ADD and FROM that a Kubefile has not, and what to do instead.
const DOCKERFILE_FLAGS: [(&str, &str); 7] = [
    (
        "from",
        "a Kubefile has one stage: build the files before, and copy them from the build context",
    ),
    ("link", "leave the flag out: layers never depend on each other here"),
    ("parents", "write one `COPY` for each folder"),
    ("exclude", "name the files in `.containerignore`"),
    (
        "keep-git-dir",
        "clone the repository before the build, and copy it from the build context",
    ),
    (
        "unpack",
        "leave the flag out: `ADD` unpacks local archives, `COPY` does not",
    ),
    ("mount", "copy the files into the image instead"),
];

/// Reads all statements. What is wrong goes to `problems`.
pub(super) fn parse(statements: &[Statement], escape: char, problems: &mut Vec<Diagnostic>) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    for statement in statements.iter().filter(|statement| !statement.is_broken) {
        // This is no Kubefile; further errors would say the same.
        if problems.len() > MOST_PROBLEMS {
            break;
        }
        let form = match Keyword::parse(statement.keyword.as_str()) {
            None => Err(keyword::unknown(&statement.keyword)),
            Some(keyword) => Parser::new(keyword, statement, escape, problems).form(),
        };
        match form {
            Ok(form) => instructions.push(Instruction {
                span: statement.keyword.span(),
                original: statement.original(),
                form,
            }),
            Err(problem) => problems.push(problem),
        }
    }
    instructions
}

struct Parser<'a> {
    keyword: Keyword,
    statement: &'a Statement,
    flags: Vec<Flag>,
    /// What follows the flags.
    arguments: SourceText,
    escape: char,
    problems: &'a mut Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn new(keyword: Keyword, statement: &'a Statement, escape: char, problems: &'a mut Vec<Diagnostic>) -> Self {
        let (flags, arguments) = split_flags(&statement.arguments, escape);
        Self {
            keyword,
            statement,
            flags,
            arguments,
            escape,
            problems,
        }
    }

    fn form(&mut self) -> Result<Form> {
        match self.keyword {
            Keyword::From => self.from(),
            Keyword::Arg => self.arg(),
            Keyword::Env => self.env(),
            Keyword::Label => self.label(),
            Keyword::Maintainer => self.maintainer(),
            Keyword::Copy | Keyword::Add => self.transfer(),
            Keyword::Run => Err(self.run()),
            Keyword::App => self.app(AppKind::App),
            Keyword::Cni => self.app(AppKind::Cni),
            Keyword::Csi => self.app(AppKind::Csi),
            Keyword::AppEnv => self.app_env(),
            Keyword::AppCommands => self.app_commands(),
            Keyword::Launch => self.launch(),
            Keyword::Commands => self.commands(),
            Keyword::Command => self.command(),
            Keyword::KubeVersion => self.kube_version(),
        }
    }

    fn from(&mut self) -> Result<Form> {
        let [platform] = self.take_flags(["platform"])?;
        let words = self.shell_words()?;
        let image = match words.as_slice() {
            [image] => image,
            [image, keyword, _] if keyword.as_str().eq_ignore_ascii_case("as") => {
                self.problems.push(
                    Diagnostic::warning(keyword.span(), "a stage name has no effect: a Kubefile has one stage")
                        .hint("leave `AS` and the name out"),
                );
                image
            }
            [] => return Err(self.missing("an image")),
            [_, second, ..] => {
                return Err(Diagnostic::error(second.span(), "`FROM` takes one image")
                    .hint(format!("write `{}`", self.keyword.form())));
            }
        };
        Ok(Form::From {
            platform,
            image: self.template(image.clone())?,
        })
    }

    fn arg(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let words = self.shell_words()?;
        if words.is_empty() {
            return Err(self.missing("a name"));
        }
        let mut declarations = Vec::new();
        for word in words {
            let (name, default) = match split_at_equals(&word, self.escape) {
                Some((name, default)) => (name, Some(self.template(default)?)),
                None => (word, None),
            };
            declarations.push(Declaration {
                name: self.variable_name(name)?,
                default,
            });
        }
        Ok(Form::Arg(declarations))
    }

    fn env(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let arguments = self.arguments.clone();
        Ok(Form::Env(self.variables(&arguments)?))
    }

    fn label(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let arguments = self.arguments.clone();
        let mut labels = Vec::new();
        for (name, value) in self.assignments(&arguments)? {
            let name_span = name.span();
            let name = self.template(name)?;
            if name.literal().is_some_and(|name| name.trim().is_empty()) {
                return Err(Diagnostic::error(name_span, "a label needs a name"));
            }
            labels.push((name, value));
        }
        Ok(Form::Label(labels))
    }

    fn maintainer(&mut self) -> Result<Form> {
        self.take_flags([])?;
        if self.arguments.is_empty() {
            return Err(self.missing("a name"));
        }
        self.problems.push(
            Diagnostic::warning(self.statement.keyword.span(), "`MAINTAINER` is deprecated")
                .hint("write `LABEL org.opencontainers.image.authors=\"NAME\"`"),
        );
        Ok(Form::Maintainer(self.arguments.as_str().to_owned()))
    }

    fn transfer(&mut self) -> Result<Form> {
        let (mode, owner, checksum) = if self.keyword == Keyword::Add {
            let [mode, owner, checksum] = self.take_flags(["chmod", "chown", "checksum"])?;
            (mode, owner, checksum)
        } else {
            let [mode, owner] = self.take_flags(["chmod", "chown"])?;
            (mode, owner, None)
        };
        let mut sources = Vec::new();
        let mut heredocs = self.statement.heredocs.clone().into_iter().peekable();
        let (words, style) = self.words()?;
        for word in words {
            let source = match heredocs.next_if(|heredoc| heredoc.word.span() == word.span()) {
                Some(heredoc) => self.inline(heredoc)?,
                None => TransferSource::Named(Template::parse(word, style, self.escape)?),
            };
            sources.push(source);
        }
        if let Some(heredoc) = heredocs.next() {
            return Err(Diagnostic::error(
                heredoc.word.span(),
                "a heredoc's delimiter must follow its `<<` at once",
            )
            .hint(format!("write `<<{}`", heredoc.delimiter)));
        }
        match sources.pop() {
            Some(TransferSource::Named(destination)) if !sources.is_empty() => Ok(Form::Transfer(Transfer {
                keyword: self.keyword,
                sources,
                destination,
                mode,
                owner,
                checksum,
            })),
            Some(TransferSource::Inline { heredoc, .. }) => {
                Err(
                    Diagnostic::error(heredoc.word.span(), "a heredoc can't be the destination").hint(format!(
                        "write `{} {} DESTINATION`",
                        self.keyword.name(),
                        heredoc.word.as_str()
                    )),
                )
            }
            Some(_) => Err(self.missing("a destination")),
            None => Err(self.missing("a source and a destination")),
        }
    }

    fn inline(&self, heredoc: Heredoc) -> Result<TransferSource> {
        if !heredoc.word.as_str().starts_with("<<") {
            return Err(
                Diagnostic::error(heredoc.word.span(), "a heredoc that is copied has no file descriptor")
                    .hint(format!("write `<<{}`", heredoc.delimiter)),
            );
        }
        if heredoc.delimiter.contains('/') || matches!(heredoc.delimiter.as_str(), "." | "..") {
            return Err(Diagnostic::error(
                heredoc.word.span(),
                "a heredoc's delimiter is also its file's name, so it can't be a path",
            )
            .hint("write the path as the destination"));
        }
        let content = if heredoc.expand {
            Template::parse(heredoc.body.clone(), Style::Heredoc, '\\')?
        } else {
            Template::plain(heredoc.body.clone())
        };
        Ok(TransferSource::Inline { heredoc, content })
    }

    fn run(&self) -> Diagnostic {
        Diagnostic::error(self.statement.keyword.span(), "`RUN` is not available yet").hint(
            "prepare the files before the build and `COPY` them, fetch them with `ADD`, or run the command on the hosts with `CMDS` or `APPCMDS`",
        )
    }

    fn app(&mut self, kind: AppKind) -> Result<Form> {
        let [checksum] = self.take_flags(["checksum"])?;
        let (name, words, style) = match json_array::parse(&self.arguments)? {
            Some(strings) => {
                let mut strings = strings.into_iter();
                let name = strings.next().ok_or_else(|| self.missing("a name and a source"))?;
                let name = Template::parse(name, Style::Json, self.escape)?;
                (name, strings.collect(), Style::Json)
            }
            None => {
                let (name, rest) = self.first_word()?;
                let (words, style) = self.words_of(&rest)?;
                (name, words, style)
            }
        };
        if words.is_empty() {
            return Err(self.missing("a source"));
        }
        Ok(Form::App {
            kind,
            name,
            sources: self.templates(words, style)?,
            checksum,
        })
    }

    fn app_env(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let (app, rest) = self.first_word()?;
        if split_at_equals(&app.source, self.escape).is_some() {
            return Err(self
                .missing("an app")
                .hint("`APPENV` sets variables of one app: write its name before them, or use `ENV` for all apps"));
        }
        if rest.is_empty() {
            return Err(self.missing("a variable"));
        }
        Ok(Form::AppEnv {
            app,
            variables: self.variables(&rest)?,
        })
    }

    fn app_commands(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let (app, rest) = self.first_word()?;
        let command = self.shell_commands(&rest)?;
        Ok(Form::AppCommands { app, command })
    }

    fn launch(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let (words, style) = self.words()?;
        if words.is_empty() {
            return Err(self.missing("an app"));
        }
        Ok(Form::Launch(self.templates(words, style)?))
    }

    fn commands(&mut self) -> Result<Form> {
        self.take_flags([])?;
        let arguments = self.arguments.clone();
        Ok(Form::Commands(self.shell_commands(&arguments)?))
    }

    /// A deprecated CMD is one command. Several strings are the words of it, as in a Dockerfile.
    fn command(&mut self) -> Result<Form> {
        self.take_flags([])?;
        self.problems.push(
            Diagnostic::warning(self.statement.keyword.span(), "`CMD` is deprecated")
                .hint("write `CMDS [\"COMMAND\"...]` as the last instruction, with all commands"),
        );
        let arguments = self.arguments.clone();
        let command = match self.shell_commands(&arguments)?.as_slice() {
            [command] => command.clone(),
            words => words
                .iter()
                .map(|word| shell_quoted(word))
                .collect::<Vec<_>>()
                .join(" "),
        };
        Ok(Form::Commands(vec![command]))
    }

    fn kube_version(&mut self) -> Result<Form> {
        self.take_flags([])?;
        if self.arguments.is_empty() {
            return Err(self.missing("a version constraint"));
        }
        Ok(Form::KubeVersion(self.template(self.arguments.clone())?))
    }

    /// A JSON array, or else the whole text as one command. Commands are left to the host's shell: nothing is
    /// expanded and no quotes are taken off.
    fn shell_commands(&self, text: &SourceText) -> Result<Vec<String>> {
        let strings = json_array::parse(text).map_err(|problem| {
            problem.hint("write `[\"a\", \"b\"]`; for a shell's test, write `test … && …` instead of `[ … ] && …`")
        })?;
        match strings {
            None if text.is_empty() => Err(self.missing("a command")),
            None => Ok(vec![text.as_str().to_owned()]),
            Some(strings) => {
                if let Some(blank) = strings.iter().find(|string| string.as_str().trim().is_empty()) {
                    return Err(Diagnostic::error(blank.span(), "a command can't be empty"));
                }
                if strings.is_empty() {
                    return Err(self.missing("a command"));
                }
                Ok(strings.iter().map(|string| string.as_str().to_owned()).collect())
            }
        }
    }

    /// `NAME=VALUE...` of ENV and APPENV.
    fn variables(&mut self, text: &SourceText) -> Result<Vec<(String, Template)>> {
        self.assignments(text)?
            .into_iter()
            .map(|(name, value)| Ok((self.variable_name(name)?, value)))
            .collect()
    }

    /// `NAME=VALUE...`, or the old form `NAME VALUE` with one value up to the end of the line.
    fn assignments(&mut self, text: &SourceText) -> Result<Vec<(SourceText, Template)>> {
        let words: Vec<SourceText> = self.split(text);
        let Some(first) = words.first() else {
            return Err(self.missing("a name and a value"));
        };
        refuse_comment(&words)?;
        if split_at_equals(first, self.escape).is_none() {
            return self.old_assignment(text, &words);
        }
        let mut assignments = Vec::new();
        for word in words {
            let Some((name, value)) = split_at_equals(&word, self.escape) else {
                return Err(Diagnostic::error(word.span(), format!("{} has no `=`", quoted(word.as_str())))
                    .hint("write `NAME=VALUE` without blanks around `=`, and put a value that has blanks in double quotes"));
            };
            assignments.push((name, self.template(value)?));
        }
        Ok(assignments)
    }

    fn old_assignment(&mut self, text: &SourceText, words: &[SourceText]) -> Result<Vec<(SourceText, Template)>> {
        let [name, second, ..] = words else {
            return Err(self.missing("a value"));
        };
        if second.as_str().starts_with('=') {
            return Err(Diagnostic::error(second.span(), "there can't be blanks around `=`").hint("write `NAME=VALUE`"));
        }
        let form = format!("`{} NAME VALUE` is an old form", self.keyword.name());
        self.problems
            .push(Diagnostic::warning(name.span(), form).hint(format!("write `{} NAME=VALUE`", self.keyword.name())));
        let start = name.as_str().len();
        let value = text.slice(start..text.as_str().len()).trim();
        Ok(vec![(name.clone(), self.template(value)?)])
    }

    fn variable_name(&self, word: SourceText) -> Result<String> {
        let span = word.span();
        if word.is_empty() {
            return Err(Diagnostic::error(span, "a variable's name is missing")
                .hint("write `NAME=VALUE` without blanks around `=`"));
        }
        let shown = quoted(word.as_str());
        self.template(word)?
            .literal()
            .filter(|name| is_variable_name(name))
            .ok_or_else(|| {
                Diagnostic::error(span, format!("{shown} can't be the name of a variable"))
                    .hint("use letters, digits and `_`, and begin with a letter")
            })
    }

    /// The words of all arguments, of a JSON array or separated by blanks.
    fn words(&self) -> Result<(Vec<SourceText>, Style)> {
        self.words_of(&self.arguments)
    }

    fn words_of(&self, text: &SourceText) -> Result<(Vec<SourceText>, Style)> {
        match json_array::parse(text)? {
            Some(strings) => Ok((strings, Style::Json)),
            None => {
                let words = self.split(text);
                refuse_comment(&words)?;
                Ok((words, Style::Word))
            }
        }
    }

    /// The words of all arguments where no JSON array is possible.
    fn shell_words(&self) -> Result<Vec<SourceText>> {
        let words = self.split(&self.arguments);
        refuse_comment(&words)?;
        Ok(words)
    }

    fn split(&self, text: &SourceText) -> Vec<SourceText> {
        split_words(text.as_str(), self.escape)
            .into_iter()
            .map(|range| text.slice(range))
            .collect()
    }

    /// The app's name, and what follows it.
    fn first_word(&self) -> Result<(Template, SourceText)> {
        let text = self.arguments.as_str();
        match split_words(text, self.escape).into_iter().next() {
            None => Err(self.missing("an app's name")),
            Some(range) => {
                let rest = self.arguments.slice(range.end..text.len()).trim();
                Ok((self.template(self.arguments.slice(range))?, rest))
            }
        }
    }

    fn template(&self, word: SourceText) -> Result<Template> {
        Template::parse(word, Style::Word, self.escape)
    }

    fn templates(&self, words: Vec<SourceText>, style: Style) -> Result<Vec<Template>> {
        words
            .into_iter()
            .map(|word| Template::parse(word, style, self.escape))
            .collect()
    }

    /// The values of the flags `known`; any other flag is refused.
    fn take_flags<const N: usize>(&mut self, known: [&str; N]) -> Result<[Option<Template>; N]> {
        let mut values = [const { None }; N];
        for flag in std::mem::take(&mut self.flags) {
            let Some(slot) = known
                .iter()
                .position(|name| *name == flag.name)
                .and_then(|index| values.get_mut(index))
            else {
                return Err(self.unknown_flag(&flag, &known));
            };
            if slot.is_some() {
                return Err(Diagnostic::error(
                    flag.word.span(),
                    format!("`--{}` is given twice", flag.name),
                ));
            }
            let Some(value) = flag.value.filter(|value| !value.is_empty()) else {
                return Err(
                    Diagnostic::error(flag.word.span(), format!("`--{}` has no value", flag.name))
                        .hint(format!("write `--{}=VALUE`", flag.name)),
                );
            };
            *slot = Some(self.template(value)?);
        }
        Ok(values)
    }

    fn unknown_flag(&self, flag: &Flag, known: &[&str]) -> Diagnostic {
        let name = self.keyword.name();
        let shown = quoted(&format!("--{}", flag.name));
        let problem = Diagnostic::error(flag.word.span(), format!("`{name}` has no flag {shown}"));
        let instead = DOCKERFILE_FLAGS.iter().find(|(name, _)| *name == flag.name);
        match (instead, nearest(&flag.name, known.iter().copied())) {
            (Some((_, instead)), _) => problem.hint(*instead),
            (None, Some(near)) => problem.hint(format!("did you mean `--{near}`?")),
            (None, None) if known.is_empty() => problem.hint(format!("write `{}`", self.keyword.form())),
            (None, None) => {
                let list: Vec<String> = known.iter().map(|name| format!("`--{name}`")).collect();
                problem.hint(format!("its flags are {}", list.join(", ")))
            }
        }
    }

    fn missing(&self, what: &str) -> Diagnostic {
        Diagnostic::error(
            self.statement.keyword.span(),
            format!("`{}` needs {what}", self.keyword.name()),
        )
        .hint(format!("write `{}`", self.keyword.form()))
    }
}

/// `word` so that a shell takes it as one word.
fn shell_quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "%+,-./:=@_".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
