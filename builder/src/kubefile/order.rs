//! Which instructions a Kubefile must have, how often, and in which order.

use super::diagnostic::{Diagnostic, Span};
use super::keyword::Keyword;
use super::lexer::Statement;

/// Checks the order of `statements`, also of those that are wrong in themselves.
pub(super) fn check(statements: &[Statement], problems: &mut Vec<Diagnostic>) {
    let known: Vec<(Keyword, Span)> = statements
        .iter()
        .filter_map(|statement| {
            let keyword = Keyword::parse(statement.keyword.as_str())?;
            Some((keyword, statement.keyword.span()))
        })
        .collect();
    from_is_first(&known, statements.is_empty(), problems);
    at_most_once(&known, problems);
    starts_are_last(&known, statements, problems);
}

fn from_is_first(known: &[(Keyword, Span)], is_empty: bool, problems: &mut Vec<Diagnostic>) {
    const HINT: &str = "begin with `FROM scratch` for a base image, or with `FROM IMAGE` to build on one; only `ARG` can stand before it";
    if is_empty {
        problems.push(Diagnostic::error_in_file("the file has no instructions").hint(HINT));
        return;
    }
    if !known.iter().any(|&(keyword, _)| keyword == Keyword::From) {
        problems.push(Diagnostic::error_in_file("the file has no `FROM`").hint(HINT));
        return;
    }
    let early = known
        .iter()
        .take_while(|&&(keyword, _)| keyword != Keyword::From)
        .find(|&&(keyword, _)| keyword != Keyword::Arg);
    if let Some(&(keyword, span)) = early {
        let message = format!("`{}` can't stand before `FROM`", keyword.name());
        problems.push(Diagnostic::error(span, message).hint(HINT));
    }
}

fn at_most_once(known: &[(Keyword, Span)], problems: &mut Vec<Diagnostic>) {
    let table = [
        (
            Keyword::From,
            "a Kubefile has one stage, so it can't have a second `FROM`",
            "build the other image by itself, and build on it with `FROM`",
        ),
        (
            Keyword::Launch,
            "only one launch could be specified",
            "name all apps in one `LAUNCH`",
        ),
        (
            Keyword::Commands,
            "only one cmds could be specified",
            "write all commands in one `CMDS [\"COMMAND\", \"COMMAND\"]`",
        ),
        (
            Keyword::KubeVersion,
            "only one kubeversion could be specified",
            "write one constraint, for instance `KUBEVERSION >=1.24 <1.37`",
        ),
    ];
    for (keyword, message, hint) in table {
        for &(_, span) in known.iter().filter(|&&(other, _)| other == keyword).skip(1) {
            problems.push(Diagnostic::error(span, message).hint(hint));
        }
    }
}

/// LAUNCH or CMDS ends the file; LAUNCH and CMD exclude each other.
fn starts_are_last(known: &[(Keyword, Span)], statements: &[Statement], problems: &mut Vec<Diagnostic>) {
    let last = statements.last().map(|statement| statement.keyword.span());
    let position = |wanted| {
        let found = known.iter().rfind(|&&(keyword, _)| keyword == wanted);
        found.map(|&(_, span)| span)
    };
    let launch = position(Keyword::Launch);
    let commands = position(Keyword::Commands);
    if let (Some(_), Some(command)) = (launch, position(Keyword::Command)) {
        problems.push(
            Diagnostic::error(command, "cmd and launch are mutually exclusive")
                .hint("start apps with `LAUNCH` alone, or write their commands into `CMDS`"),
        );
    }
    if let (Some(launch), Some(commands)) = (launch, commands) {
        let second = launch.max(commands);
        problems.push(
            Diagnostic::error(second, "`LAUNCH` and `CMDS` are mutually exclusive")
                .hint("start apps with `LAUNCH` alone, or write their commands into `CMDS`"),
        );
        return;
    }
    for (span, name) in [(launch, "launch"), (commands, "cmds")] {
        if let Some(span) = span.filter(|_| span != last) {
            problems.push(
                Diagnostic::error(span, format!("{name} should be the last instruction"))
                    .hint("move the line to the end of the file"),
            );
        }
    }
}
