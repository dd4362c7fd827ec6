//! A failure on its way from one process to another: its words stay.

use sealrs_image::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// An [`Error`] as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: ErrorKind,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            what: error.to_string(),
            causes: error.causes(),
            hint: error.remedy().map(str::to_owned),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let new = |what: String| Self::new(failure.kind, what);
        // The last cause is the innermost.
        let mut causes = failure.causes.into_iter().rev();
        let innermost = causes.next().map(new);
        let cause = innermost.map(|first| causes.fold(first, |inner, what| new(what).because(inner)));
        let mut error = new(failure.what);
        if let Some(cause) = cause {
            error = error.because(cause);
        }
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay() {
        let cause = Error::new(ErrorKind::Disk, "no room").because(std::io::Error::other("full"));
        let error = Error::new(ErrorKind::Step, "it failed")
            .because(cause)
            .hint("make room");
        let failure = Failure::from(&error);
        let back = Error::from(failure.clone());
        assert_eq!(Failure::from(&back), failure);
        assert_eq!(back.causes(), ["no room", "full"]);
        assert_eq!((back.kind(), back.remedy()), (ErrorKind::Step, Some("make room")));
    }
}
