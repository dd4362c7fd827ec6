//! The names of instructions: those of a Kubefile, and those of a Dockerfile that a Kubefile has not.

use sealrs_image::suggest::nearest;

use super::diagnostic::{Diagnostic, quoted};
use super::source_text::SourceText;

/// Which instruction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    From,
    Arg,
    Env,
    Label,
    Maintainer,
    Copy,
    Add,
    Run,
    App,
    Cni,
    Csi,
    AppEnv,
    AppCommands,
    Launch,
    Commands,
    Command,
    KubeVersion,
}

/// All instructions, with the form that a hint shows.
const KEYWORDS: [(Keyword, &str, &str); 17] = [
    (Keyword::From, "FROM", "FROM [--platform=OS/ARCHITECTURE] IMAGE"),
    (Keyword::Arg, "ARG", "ARG NAME[=DEFAULT]..."),
    (Keyword::Env, "ENV", "ENV NAME=VALUE..."),
    (Keyword::Label, "LABEL", "LABEL NAME=VALUE..."),
    (Keyword::Maintainer, "MAINTAINER", "MAINTAINER NAME"),
    (
        Keyword::Copy,
        "COPY",
        "COPY [--chmod=MODE] [--chown=UID:GID] SOURCE... DESTINATION",
    ),
    (
        Keyword::Add,
        "ADD",
        "ADD [--checksum=sha256:HEX] [--chmod=MODE] [--chown=UID:GID] SOURCE... DESTINATION",
    ),
    (Keyword::Run, "RUN", "RUN COMMAND"),
    (Keyword::App, "APP", "APP NAME local://FILE..."),
    (Keyword::Cni, "CNI", "CNI NAME local://FILE..."),
    (Keyword::Csi, "CSI", "CSI NAME local://FILE..."),
    (Keyword::AppEnv, "APPENV", "APPENV APP NAME=VALUE..."),
    (
        Keyword::AppCommands,
        "APPCMDS",
        "APPCMDS APP [\"COMMAND\",\"ARGUMENT\"...]",
    ),
    (Keyword::Launch, "LAUNCH", "LAUNCH APP..."),
    (Keyword::Commands, "CMDS", "CMDS [\"COMMAND\"...]"),
    (Keyword::Command, "CMD", "CMD COMMAND"),
    (Keyword::KubeVersion, "KUBEVERSION", "KUBEVERSION CONSTRAINT"),
];

/// Dockerfile instructions that would have no effect in a ClusterImage, why, and what to do instead.
const DOCKERFILE_ONLY: [(&str, &str, &str); 9] = [
    (
        "WORKDIR",
        "no command runs in a ClusterImage, so it has no working directory",
        "write the folder in the destination of `COPY` or `ADD`",
    ),
    (
        "USER",
        "no process runs in a ClusterImage, so it has no user",
        "give files an owner with `COPY --chown=UID:GID`",
    ),
    (
        "ENTRYPOINT",
        "a ClusterImage is installed on hosts, it is not started as a container",
        "say what is to be started with `LAUNCH` or `CMDS`",
    ),
    (
        "EXPOSE",
        "a ClusterImage listens on no port",
        "describe the ports in the Service of your app's manifests",
    ),
    (
        "VOLUME",
        "a ClusterImage is unpacked on the hosts' disks and mounts nothing",
        "describe volumes in your app's manifests",
    ),
    (
        "SHELL",
        "commands of a Kubefile always run with the host's `/bin/sh`",
        "name another interpreter in the command: `CMDS [\"bash scripts/start.sh\"]`",
    ),
    (
        "ONBUILD",
        "a Kubefile runs no triggers of its base image",
        "write the instruction in the Kubefile that needs it",
    ),
    (
        "HEALTHCHECK",
        "no process of a ClusterImage is watched by a container runtime",
        "describe probes in your app's manifests",
    ),
    (
        "STOPSIGNAL",
        "no process of a ClusterImage is stopped by a container runtime",
        "leave the line out",
    ),
];

impl Keyword {
    /// The instruction that `word` names, in upper or lower case.
    pub(super) fn parse(word: &str) -> Option<Self> {
        KEYWORDS
            .iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(word))
            .map(|&(keyword, ..)| keyword)
    }

    /// Its name, in upper case.
    pub(super) fn name(self) -> &'static str {
        self.entry().1
    }

    /// How it is written.
    pub(super) fn form(self) -> &'static str {
        self.entry().2
    }

    /// Whether a heredoc may follow its line.
    pub(super) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Copy | Self::Add | Self::Run)
    }

    fn entry(self) -> (Self, &'static str, &'static str) {
        KEYWORDS
            .iter()
            .find(|&&(keyword, ..)| keyword == self)
            .copied()
            .unwrap_or((self, "", ""))
    }
}

/// Whether `word` is an instruction that declares variables, or may be a mistyped one.
pub(super) fn may_declare(word: &str) -> bool {
    matches!(meant(word), Some(Keyword::From | Keyword::Arg | Keyword::Env))
}

/// Whether `word` is an instruction that defines an app, or may be a mistyped one.
pub(super) fn may_define_app(word: &str) -> bool {
    matches!(meant(word), Some(Keyword::App | Keyword::Cni | Keyword::Csi))
}

fn meant(word: &str) -> Option<Keyword> {
    Keyword::parse(word).or_else(|| nearest_name(word).and_then(Keyword::parse))
}

/// Why `word` is no instruction of a Kubefile, and what would be right.
pub(super) fn unknown(word: &SourceText) -> Diagnostic {
    let text = word.as_str();
    let dockerfile_only = DOCKERFILE_ONLY
        .iter()
        .find(|(name, ..)| name.eq_ignore_ascii_case(text));
    if let Some((name, why, instead)) = dockerfile_only {
        return Diagnostic::error(word.span(), format!("`{name}` is not available in a Kubefile: {why}"))
            .hint(*instead);
    }
    Diagnostic::error(word.span(), format!("{} is not an instruction", quoted(text))).hint(match nearest_name(text) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "if it belongs to the instruction above, end the line before it with `\\`".to_owned(),
    })
}

fn nearest_name(word: &str) -> Option<&'static str> {
    let known = KEYWORDS.iter().map(|&(_, name, _)| name);
    nearest(word, known.chain(DOCKERFILE_ONLY.iter().map(|&(name, ..)| name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_has_a_name_and_a_form() {
        for (keyword, name, form) in KEYWORDS {
            assert_eq!(Keyword::parse(&name.to_lowercase()), Some(keyword));
            assert_eq!(keyword.name(), name);
            assert!(form.starts_with(name), "{form}");
            assert_eq!(keyword.form(), form);
        }
        assert_eq!(Keyword::parse("WORKDIR"), None);
    }

    #[test]
    fn says_why_a_word_is_no_instruction() {
        let message = |word: &str| unknown(&SourceText::new(word, 1, 1)).message().to_owned();
        for (name, ..) in DOCKERFILE_ONLY {
            assert!(message(name).contains("is not available in a Kubefile"), "{name}");
        }
        assert_eq!(message("COPPY"), "`COPPY` is not an instruction");
    }
}
