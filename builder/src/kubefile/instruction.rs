//! Instructions as they were written: checked for their form, not yet expanded.
//!
//! The second stage, with all values, is [`Step`](super::step::Step).

use super::diagnostic::Span;
use super::keyword::Keyword;
use super::lexer::Heredoc;
use super::step::AppKind;
use super::template::Template;

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// The instruction's name in the file.
    pub(super) span: Span,
    /// The instruction on one line.
    pub(super) original: String,
    pub(super) form: Form,
}

/// The forms of instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    From {
        platform: Option<Template>,
        image: Template,
    },
    Arg(Vec<Declaration>),
    Env(Vec<(String, Template)>),
    Label(Vec<(Template, Template)>),
    Maintainer(String),
    /// COPY and ADD.
    Transfer(Transfer),
    /// APP, CNI and CSI.
    App {
        kind: AppKind,
        name: Template,
        sources: Vec<Template>,
        checksum: Option<Template>,
    },
    AppEnv {
        app: Template,
        variables: Vec<(String, Template)>,
    },
    AppCommands {
        app: Template,
        command: Vec<String>,
    },
    Launch(Vec<Template>),
    /// CMDS, and each CMD.
    Commands(Vec<String>),
    KubeVersion(Template),
}

/// One name of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) default: Option<Template>,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Which of the two.
    pub(super) keyword: Keyword,
    pub(super) sources: Vec<TransferSource>,
    pub(super) destination: Template,
    pub(super) mode: Option<Template>,
    pub(super) owner: Option<Template>,
    pub(super) checksum: Option<Template>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TransferSource {
    /// A path, a pattern or a URL.
    Named(Template),
    Inline {
        heredoc: Heredoc,
        content: Template,
    },
}
