//! Why a request gets no content: a status and an error document (OCI distribution specification 1.1, "Error Codes").

use hyper::StatusCode;

use crate::name::{Repository, shown};

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The code that clients match.
    pub code: &'static str,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "this registry asks for a user name and password".to_owned(),
        )
    }

    pub(crate) fn unsupported(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            format!("{} is not supported: this registry is read-only", shown(method)),
        )
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "there is nothing here: the registry's API is under /v2/".to_owned(),
        )
    }

    pub(crate) fn bad_encoding() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "UNSUPPORTED",
            "the address is not percent-encoded UTF-8".to_owned(),
        )
    }

    pub(crate) fn bad_name(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "NAME_INVALID",
            format!("`{}` is not a repository's name", shown(name)),
        )
    }

    pub(crate) fn bad_upstream(host: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "NAME_INVALID",
            format!("ns: `{}` is not a registry's host", shown(host)),
        )
    }

    pub(crate) fn bad_digest(digest: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("`{}` is not a sha256 digest", shown(digest)),
        )
    }

    pub(crate) fn bad_page(size: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PAGINATION_NUMBER_INVALID",
            format!("n: `{}` is not a number of names", shown(size)),
        )
    }

    pub(crate) fn bad_range(size: u64) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "RANGE_INVALID",
            format!("the blob has {size} bytes"),
        )
    }

    pub(crate) fn unknown_name(name: &Repository) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            format!("there is no repository `{name}`"),
        )
    }

    pub(crate) fn unknown_manifest(target: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("the repository has no manifest `{}`", shown(target)),
        )
    }

    pub(crate) fn unknown_blob(digest: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            format!("the repository has no blob {digest}"),
        )
    }

    /// The registry's own trouble, of which clients need not know more.
    pub(crate) fn trouble() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN",
            "the registry cannot read what is asked for: its own messages say why".to_owned(),
        )
    }

    /// The error document.
    #[must_use]
    pub fn document(&self) -> String {
        serde_json::json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]}).to_string()
    }
}
