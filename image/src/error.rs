//! The one error type of sealrs.
//!
//! An error says what could not be done and where, why (its causes), and what to do about it (its hint).
//! Its [`ErrorKind`] decides the exit code and the stable code that scripts match. The same type is used by
//! all crates, so that an error is shown in one way whatever it came from.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::finding::{self, Finding};

/// A result with sealrs's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. Stable: scripts match on [`ErrorKind::code`] and [`ErrorKind::exit_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line or a file written by the user (Kubefile, image list) is wrong.
    Input,
    /// Something that was named does not exist: an image, a file, a tag.
    NotFound,
    /// Bytes are not what their digest, size or format says.
    Integrity,
    /// A registry or server could not be reached, or broke off.
    Network,
    /// A registry or host refused the credentials.
    Auth,
    /// The local disk: no space, no permission, an I/O error.
    Disk,
    /// The state of things forbids it: a lock is held, a cluster exists already.
    Conflict,
    /// This host does not meet what the installation needs.
    Preflight,
    /// A step on a host, a script or a cluster runtime failed.
    Step,
    /// A defect in sealrs itself.
    Internal,
}

impl ErrorKind {
    /// All kinds: what trying again helps least comes first.
    const ALL: [Self; 10] = [
        Self::Internal,
        Self::Input,
        Self::NotFound,
        Self::Auth,
        Self::Integrity,
        Self::Preflight,
        Self::Step,
        Self::Disk,
        Self::Conflict,
        Self::Network,
    ];

    /// The stable word for this kind, as printed with `--output json`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::NotFound => "not-found",
            Self::Integrity => "integrity",
            Self::Network => "network",
            Self::Auth => "auth",
            Self::Disk => "disk",
            Self::Conflict => "conflict",
            Self::Preflight => "preflight",
            Self::Step => "step",
            Self::Internal => "internal",
        }
    }

    /// The process's exit code. 1 is left to the unexpected, 2 to the command line parser.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Input => 2,
            Self::NotFound => 3,
            Self::Integrity => 4,
            Self::Network => 5,
            Self::Auth => 6,
            Self::Disk => 7,
            Self::Conflict => 8,
            Self::Preflight => 9,
            Self::Step => 10,
        }
    }

    /// The sort of several failures together: theirs if they agree, else the one that trying again helps least. What has
    /// to be corrected by hand comes first, so that nobody tries again in vain.
    #[must_use]
    pub fn of_all(kinds: impl IntoIterator<Item = Self>) -> Self {
        let rank = |kind: &Self| Self::ALL.iter().position(|other| other == kind);
        kinds.into_iter().min_by_key(rank).unwrap_or(Self::Internal)
    }
}

/// As its stable word.
impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// From its stable word.
impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let kind = Self::ALL.into_iter().find(|kind| kind.code() == word);
        kind.ok_or_else(|| serde::de::Error::custom(format!("`{word}` is no kind of failure")))
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A failure: what, why and what to do.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    cause: Option<Cause>,
    hint: Option<String>,
    findings: Vec<Finding>,
}

impl Error {
    /// A failure described by `what`: one sentence without a full stop that names the thing and the place.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            cause: None,
            hint: None,
            findings: Vec::new(),
        }))
    }

    /// Several failures as one. `what` says how many there are, or what they are about.
    #[must_use]
    pub fn together(what: impl Into<String>, findings: Vec<Finding>) -> Self {
        let mut error = Self::new(ErrorKind::of_all(findings.iter().map(|finding| finding.kind)), what);
        error.0.findings = findings;
        error
    }

    /// What is wrong in detail, when it is several things or has a place in a file.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        self.chain()
            .map(|error| error.0.findings.as_slice())
            .find(|findings| !findings.is_empty())
            .unwrap_or_default()
    }

    /// The same failure with the reason why it happened.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The same failure with a remedy: an imperative sentence. An earlier (more specific) hint stays.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same failure as another sort of failure: that of its cause, for instance.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it: the hint nearest to the top of the chain, or that of the only finding.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        let hint = self.chain().find_map(|error| error.0.hint.as_deref());
        match self.findings() {
            [only] => hint.or(only.hint.as_deref()),
            _ => hint,
        }
    }

    /// The causes as text, outermost first, without this error's own text.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Library errors often repeat their source's text; say each thing once.
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        if let [only] = self.findings() {
            causes.push(only.message.clone());
            causes.extend(only.causes.iter().cloned());
        }
        causes
    }

    /// The first cause of this type.
    #[must_use]
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            if let Some(found) = cause.downcast_ref::<T>() {
                return Some(found);
            }
            next = cause.source();
        }
        None
    }

    /// Of a full disk's failure, the same with the room that was needed in all.
    #[must_use]
    pub fn needing(self, bytes: u64) -> Self {
        if !self.is_full_disk() {
            return self;
        }
        let what = format!("there is no room for all of it: {} MiB", bytes.div_ceil(1 << 20));
        Self::new(self.kind(), what).because(self)
    }

    fn is_full_disk(&self) -> bool {
        self.cause::<std::io::Error>().is_some_and(is_full)
    }

    fn chain(&self) -> impl Iterator<Item = &Error> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let current = next?;
            next = current.0.cause.as_ref().and_then(|cause| cause.downcast_ref::<Error>());
            Some(current)
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

/// The whole chain on one line, for logs and failed tests.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.kind().code(), self.0.what)?;
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        if let [_, _, ..] = self.findings() {
            write!(f, "\n{}", finding::listed(self.findings()))?;
        }
        if let Some(hint) = self.remedy() {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

/// Adds what was being done to a failure.
pub trait ResultExt<T> {
    /// Turns a foreign error into ours, of the given kind, with `what` as its text.
    ///
    /// # Errors
    /// The failure, if it was one.
    fn or_fail<S: Into<String>>(self, kind: ErrorKind, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> ResultExt<T> for std::result::Result<T, E> {
    fn or_fail<S: Into<String>>(self, kind: ErrorKind, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(kind, what()).because(error))
    }
}

/// Adds a place to one of our own failures, whose kind and hint stay.
pub trait Context<T> {
    /// Puts `what` in front of the failure.
    ///
    /// # Errors
    /// The failure, if it was one.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(error.kind(), what()).because(error))
    }
}

/// Turns I/O errors into ours. Full disks, missing permissions and missing files get their own kind and hint.
pub trait IoResultExt<T> {
    /// Says which operation on which path failed, for instance `"cannot write /var/lib/x"`.
    ///
    /// # Errors
    /// The failure, if it was one.
    fn or_io<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;

    /// The same for a file of the user's that is only read.
    ///
    /// # Errors
    /// The failure, if it was one.
    fn or_read<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

const MAY_WRITE: &str = "run as a user who may write there, or choose another place with `--root`";
const MAY_READ: &str = "run as a user who may read it, or give that user the permission";

impl<T> IoResultExt<T> for std::io::Result<T> {
    fn or_io<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| of_io(error, what(), MAY_WRITE))
    }

    fn or_read<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| of_io(error, what(), MAY_READ))
    }
}

fn of_io(error: std::io::Error, what: impl Into<String>, permission: &str) -> Error {
    // One of ours that travelled through an `io::Error` (a `Read` or `Write` of this crate) comes out whole.
    if error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
    {
        let inner = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok());
        return match inner {
            Some(inner) => Error::new(inner.kind(), what).because(*inner),
            None => Error::new(ErrorKind::Disk, what),
        };
    }
    let (kind, hint) = match error.kind() {
        _ if is_full(&error) => (
            ErrorKind::Disk,
            Some(
                "free some space on that file system, or choose another place with `--root`; what was done so far is kept and is not repeated",
            ),
        ),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Disk, Some(permission))
        }
        std::io::ErrorKind::NotFound => (ErrorKind::NotFound, None),
        _ => (ErrorKind::Disk, None),
    };
    let failure = Error::new(kind, what).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

/// Lets a `Read` or `Write` of ours fail with our error; [`IoResultExt::or_io`] takes it out again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_chain_once_and_the_nearest_hint() {
        let io: std::io::Result<()> = Err(std::io::ErrorKind::StorageFull.into());
        let error = io
            .or_io(|| "cannot write /x/y")
            .context(|| "cannot save image a:1")
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot save image a:1");
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert_eq!(error.causes(), ["cannot write /x/y", "no storage space"]);
        assert!(error.remedy().unwrap().starts_with("free some space"));
    }

    #[test]
    fn several_failures_are_of_the_sort_that_trying_again_helps_least() {
        use ErrorKind::{Auth, Input, Integrity, Internal, Network, NotFound};
        for (kinds, together) in [
            (&[Network, Network][..], Network),
            (&[Network, Auth], Auth),
            (&[Auth, NotFound, Input], Input),
            (&[Integrity, NotFound], NotFound),
            (&[], Internal),
        ] {
            assert_eq!(ErrorKind::of_all(kinds.iter().copied()), together, "{kinds:?}");
        }
        let finding = Error::new(Auth, "no").because(Error::new(Auth, "why")).hint("log in");
        let one = Error::together("1 of 2", vec![finding.in_file("list")]);
        assert_eq!((one.kind(), one.remedy()), (Auth, Some("log in")));
        assert_eq!(one.causes(), ["no", "why"]);
        let two = Error::together("2 of 2", vec![finding.in_file("list"), finding.in_file("list")]);
        assert_eq!((two.remedy(), two.causes().len(), two.findings().len()), (None, 0, 2));
    }

    #[test]
    fn a_missing_permission_is_one_to_read_or_to_write() {
        let denied = || -> std::io::Result<()> { Err(std::io::ErrorKind::PermissionDenied.into()) };
        let remedy = |error: Error| error.remedy().unwrap().to_owned();
        assert!(remedy(denied().or_io(|| "x").unwrap_err()).contains("may write"));
        assert!(remedy(denied().or_read(|| "x").unwrap_err()).contains("may read"));
    }

    #[test]
    fn only_a_full_disk_needs_room() {
        let full: std::io::Result<()> = Err(std::io::ErrorKind::StorageFull.into());
        let error = full.or_io(|| "cannot write /x/y").unwrap_err().needing((5 << 20) + 1);
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert_eq!(error.to_string(), "there is no room for all of it: 6 MiB");
        assert_eq!(error.causes(), ["cannot write /x/y", "no storage space"]);
        assert!(error.remedy().unwrap().starts_with("free some space"));
        let other: std::io::Result<()> = Err(std::io::ErrorKind::PermissionDenied.into());
        let error = other.or_io(|| "cannot write /x/y").unwrap_err().needing(5 << 20);
        assert_eq!(error.to_string(), "cannot write /x/y");
    }

    #[test]
    fn our_error_survives_a_trip_through_io() {
        let ours = Error::new(ErrorKind::Integrity, "blob sha256:0 is not what it says").hint("copy it again");
        let through: std::io::Result<()> = Err(ours.into());
        let error = through.or_io(|| "cannot unpack").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(error.remedy(), Some("copy it again"));
        assert_eq!(error.causes(), ["blob sha256:0 is not what it says"]);
    }
}
