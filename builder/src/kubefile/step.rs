//! What a build does, in order: instructions with all their values known and checked.

use sealrs_image::digest::Digest;
use sealrs_image::error::Error;
use sealrs_image::platform::Platform;

use super::diagnostic::{Diagnostic, Span};
use crate::glob::Glob;

/// One instruction, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is to be done.
    pub(crate) action: Action,
    /// The instruction's name in the Kubefile, for messages.
    pub(crate) span: Span,
    /// The instruction on one line, as written: not expanded, so that values of `--build-arg` stay out of the
    /// image's history.
    pub(crate) original: String,
}

impl Step {
    /// The step's failure, at its line.
    pub(crate) fn failure(&self, error: Error) -> Diagnostic {
        let instruction = self.original.split_whitespace().next().unwrap_or(&self.original);
        let failed = Error::new(error.kind(), format!("{instruction} failed")).because(error);
        Diagnostic::failure(self.span, &failed)
    }
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `FROM`: always the first step, and only there.
    From(BaseImage),
    /// `ENV`: variables of the image and of all apps, a later one of the same name replacing an earlier one.
    Env(Vec<(String, String)>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `COPY` and `ADD`.
    Copy(FileCopy),
    /// `APP`, `CNI` and `CSI`.
    App(App),
    /// `APPENV`: variables of one app, over those of `ENV`.
    AppEnv {
        /// The app.
        app: AppName,
        /// Names and values.
        variables: Vec<(String, String)>,
    },
    /// `APPCMDS`: how an app is started, instead of what its type says.
    AppCommands {
        /// The app.
        app: AppName,
        /// Words of one shell command, to be joined with blanks.
        command: Vec<String>,
    },
    /// `LAUNCH`: the apps to start, in order.
    Launch(Vec<AppName>),
    /// `CMDS` and `CMD`: shell commands to run on the first master, in order; several steps add up.
    Commands(Vec<String>),
    /// `KUBEVERSION`: versions of Kubernetes that the image is for.
    KubeVersion(String),
}

/// What the image is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BaseImage {
    /// Nothing.
    Scratch,
    /// An image.
    Image {
        /// Its name, or the path of an archive.
        name: String,
        /// Which of its platforms; `None` means the target's.
        platform: Option<Platform>,
    },
}

/// Files to be put into the rootfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileCopy {
    /// What is copied, at least one.
    pub(crate) sources: Vec<Source>,
    /// Where to.
    pub(crate) destination: Destination,
    /// Permission bits for all files and folders, at most 0o7777; `None` keeps theirs.
    pub(crate) mode: Option<u32>,
    /// Owner of all files and folders; `None` means 0:0.
    pub(crate) owner: Option<Owner>,
    /// Whether local tar archives are unpacked: `ADD` does, `COPY` doesn't.
    pub(crate) unpack: bool,
}

/// Numeric, because a rootfs has no user database to look names up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User.
    pub(crate) uid: u32,
    /// Group; the user's number if none was given.
    pub(crate) gid: u32,
}

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Below the rootfs, with slashes, without `.` and `..` and without slashes around it; empty for the rootfs itself.
    pub(crate) path: String,
    /// Whether it was written as a folder (`x/`, `.`): files go into it under their own names.
    pub(crate) is_directory: bool,
}

/// Something that is copied, and where it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// What it is.
    pub(crate) kind: SourceKind,
    /// Its place in the Kubefile, for messages.
    pub(crate) span: Span,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A path or pattern below the build context; `.` is the context itself.
    Local(Glob),
    /// A file to be fetched.
    Remote(RemoteFile),
    /// A heredoc.
    Inline(InlineFile),
}

/// A file to be fetched with HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// `http://` or `https://`, without credentials.
    pub(crate) url: String,
    /// The last part of its path; `None` if that can't be a file's name.
    pub(crate) file_name: Option<String>,
    /// What its bytes must hash to.
    pub(crate) checksum: Option<Checksum>,
}

/// A digest that somebody wrote down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum {
    /// The digest.
    pub(crate) digest: Digest,
    /// The line of the Kubefile.
    pub(crate) line: usize,
}

/// A file written in the Kubefile itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InlineFile {
    /// Its name if it is copied into a folder.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) content: String,
}

/// An app of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct App {
    /// Its name, unique in the Kubefile; replaces an inherited app of the same name.
    pub(crate) name: AppName,
    /// Which instruction made it.
    pub(crate) kind: AppKind,
    /// Its files: local and remote ones, never inline.
    pub(crate) sources: Vec<Source>,
}

/// An app's name where it stands in the Kubefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppName {
    /// Lower-case letters, digits, `-`, `.` and `_`; fit for a folder's name.
    pub(crate) name: String,
    /// Its place, for messages.
    pub(crate) span: Span,
}

/// What an app is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppKind {
    /// `APP`.
    App,
    /// `CNI`: a network plugin; the image gets a label that says so.
    Cni,
    /// `CSI`: a storage plugin; the image gets a label that says so.
    Csi,
}
