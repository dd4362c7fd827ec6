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
    /// The methods that are possible, when the one that was used is not.
    pub allow: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self {
            status,
            code,
            message,
            allow: "",
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "this registry asks for a user name and password".to_owned(),
        )
    }

    pub(crate) fn read_only(method: &str) -> Self {
        let message = format!("{} is not supported: this registry is read-only", shown(method));
        Self {
            allow: "GET, HEAD",
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
        }
    }

    pub(crate) fn unsupported(method: &str, allow: &'static str) -> Self {
        let message = format!("{} is not supported here", shown(method));
        Self {
            allow,
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
        }
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
            format!("`{}` is not a sha256 or sha512 digest", shown(digest)),
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

    /// Its bytes on the disk are not those of its digest.
    pub(crate) fn damaged_blob(digest: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "BLOB_DAMAGED",
            format!("the registry's copy of {digest} is damaged: it has to be pushed or unpacked again"),
        )
    }

    pub(crate) fn bad_tag(tag: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            format!("`{}` is not a tag", shown(tag)),
        )
    }

    pub(crate) fn too_many_tags(most: usize) -> Self {
        Self::new(
            StatusCode::URI_TOO_LONG,
            "TAG_INVALID",
            format!("a manifest gets at most {most} tags at once"),
        )
    }

    pub(crate) fn unknown_upload(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            format!("the repository has no upload `{}`: begin again", shown(id)),
        )
    }

    pub(crate) fn no_digest() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "name the digest of what was uploaded: `?digest=`".to_owned(),
        )
    }

    pub(crate) fn other_digest(asked: &str, found: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("what was sent for {asked} has the digest {found}"),
        )
    }

    pub(crate) fn bad_content_range(header: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BLOB_UPLOAD_INVALID",
            format!("Content-Range: `{}` is not FIRST-LAST", shown(header)),
        )
    }

    pub(crate) fn other_offset(asked: u64, size: u64) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            format!("the upload has {size} bytes and goes on there, not at {asked}"),
        )
    }

    pub(crate) fn other_length(size: u64) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "SIZE_INVALID",
            format!("more or fewer bytes came than were announced: the upload has {size} bytes now"),
        )
    }

    pub(crate) fn cut_off(size: u64) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BLOB_UPLOAD_INVALID",
            format!("the request broke off: the upload has {size} bytes now, and can go on there"),
        )
    }

    pub(crate) fn taken_over() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "BLOB_UPLOAD_INVALID",
            "another request goes on with this upload".to_owned(),
        )
    }

    pub(crate) fn bad_manifest(why: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "MANIFEST_INVALID",
            format!("this is no manifest that can be stored: {why}"),
        )
    }

    pub(crate) fn big_manifest(most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            format!("a manifest has at most {most} bytes"),
        )
    }

    pub(crate) fn incomplete_manifest(digest: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "MANIFEST_BLOB_UNKNOWN",
            format!("the manifest names {digest}, which the repository does not have: push that first"),
        )
    }

    pub(crate) fn other_size(digest: &str, told: u64, size: u64) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "SIZE_INVALID",
            format!("the manifest says that {digest} has {told} bytes, and it has {size}"),
        )
    }

    /// The disk is full.
    pub(crate) fn full() -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "UNKNOWN",
            "the registry's disk is full: what arrived is kept, and the upload can go on once there is room".to_owned(),
        )
    }

    /// The registry's own trouble, of which clients need not know more.
    pub(crate) fn trouble() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN",
            "the registry cannot do what is asked for: its own messages say why".to_owned(),
        )
    }

    /// The error document.
    #[must_use]
    pub fn document(&self) -> String {
        serde_json::json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]}).to_string()
    }
}
