//! From a request to the answer, for whoever reads. Reads files, so it may block.

use std::io;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, LINK, RANGE, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};
use sealrs_image::error::{Error, IoResultExt as _};
use sealrs_image::progress::{Event, Progress};
use sealrs_image::spec::{canonical, media_type};

use crate::body::{Body, Piece};
use crate::digest::BlobDigest;
use crate::directory::{Directory, Referrers, StoredBlob, StoredManifest};
use crate::host::Host;
use crate::name::Repository;
use crate::page::{Listing, Page};
use crate::range::Wanted;
use crate::refusal::Refusal;
use crate::route::{Item, Route, is_reading};
use crate::verdict::{Judged, Pending, Verdict, Verdicts};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const JSON: &str = "application/json";

/// Why there is no content in the answer.
pub(crate) enum Failure {
    /// The request asks for something that is not there or not possible.
    Refused(Refusal),
    /// The registry's directory is damaged or cannot be read.
    Trouble(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Trouble(error)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What a request asks for.
pub(crate) fn route(request: &Parts, may_change: bool) -> std::result::Result<Route, Refusal> {
    let uri = &request.uri;
    let own = request.headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = uri.authority().map(Authority::as_str).or(own);
    Route::parse(&request.method, uri.path(), uri.query(), own, may_change)
}

/// Whether a request for `item` is about changing the registry.
pub(crate) fn is_push(request: &Parts, item: &Item) -> bool {
    !is_reading(&request.method) || matches!(item, Item::Upload(..))
}

/// The answer, whatever came of a request. What is wrong with the directory itself is told to `progress`, and
/// clients only that it is.
pub(crate) fn whatever(result: Result<Response<Body>>, request: &Parts, progress: &dyn Progress) -> Response<Body> {
    match result {
        Ok(response) => response,
        Err(Failure::Refused(refusal)) => refused(&refusal),
        Err(Failure::Trouble(error)) => {
            let mut message = format!("{} {}: {error}", request.method, request.uri.path());
            for cause in error.causes() {
                message = format!("{message}: {cause}");
            }
            progress.event(Event::Warning(&message));
            match is_full(&error) {
                true => refused(&Refusal::full()),
                false => refused(&Refusal::trouble()),
            }
        }
    }
}

/// Whether there is no room on the disk.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let is_full = |error: &io::Error| full.contains(&error.kind());
    error.downcast_ref().is_some_and(is_full) || error.source().is_some_and(self::is_full)
}

/// The answer that carries a refusal.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = document(JSON, refusal.document());
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            let realm = HeaderValue::from_static("Basic realm=\"registry\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, realm);
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static(refusal.allow));
        }
        _ => {}
    }
    response
}

/// Answers a request that reads.
pub(crate) fn answer(
    directory: &Directory,
    verdicts: &Arc<Verdicts>,
    request: &Parts,
    route: Route,
) -> Result<Response<Body>> {
    match route {
        Route::Version => Ok(document(JSON, "{}")),
        Route::Catalog(page) => {
            let listing = directory.repositories(&page)?;
            let names = serde_json::json!({"repositories": listing.names});
            Ok(listed(names.to_string(), "/v2/_catalog", &listing, &page))
        }
        Route::Repository { name, upstream, item } => {
            content(directory, verdicts, request, &name, upstream.as_ref(), item)
        }
    }
}

fn content(
    directory: &Directory,
    verdicts: &Arc<Verdicts>,
    request: &Parts,
    name: &Repository,
    upstream: Option<&Host>,
    item: Item,
) -> Result<Response<Body>> {
    let Some(repository) = directory.find(name, upstream)? else {
        return match item {
            // Nothing refers to what nobody has; a client would take a 404 for a registry that cannot tell.
            Item::Referrers(_, wanted, _) => referrers(&Referrers::none(), "", wanted.as_deref()),
            _ => Err(Refusal::unknown_name(name).into()),
        };
    };
    match item {
        Item::Tagged(tag) => {
            let digest = directory.tag(&repository, &tag)?;
            let unknown = || Refusal::unknown_manifest(tag.as_str());
            manifest(directory, &repository, &digest.ok_or_else(unknown)?, &request.headers)
        }
        Item::Manifest(digest, _) => manifest(directory, &repository, &digest, &request.headers),
        Item::Blob(digest) => {
            let found = directory.blob(&repository, &digest)?;
            let stored = found.ok_or_else(|| Refusal::unknown_blob(&digest.to_string()))?;
            blob(stored, verdicts, &digest, request)
        }
        Item::Tags(page) => {
            let listing = directory.tags(&repository, &page)?;
            let names = serde_json::json!({"name": name.as_str(), "tags": listing.names});
            Ok(listed(
                names.to_string(),
                &format!("/v2/{name}/tags/list"),
                &listing,
                &page,
            ))
        }
        Item::Referrers(digest, wanted, page) => {
            let found = directory.referrers(&repository, &digest, wanted.as_deref(), &page)?;
            referrers(&found, &format!("/v2/{name}/referrers/{digest}"), wanted.as_deref())
        }
        Item::Uploads(_) => Err(Refusal::unsupported(request.method.as_str(), "POST").into()),
        Item::Upload(id, _) => Err(Refusal::unknown_upload(&id.to_string()).into()),
    }
}

fn manifest(
    directory: &Directory,
    repository: &Repository,
    digest: &BlobDigest,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let found = directory.manifest(repository, digest)?;
    let StoredManifest {
        digest,
        media_type,
        bytes,
    } = found.ok_or_else(|| Refusal::unknown_manifest(&digest.to_string()))?;
    let mut response = match client_has(headers, &digest) {
        true => not_modified(),
        false => document(&media_type, bytes),
    };
    name_content(&mut response, &digest);
    Ok(response)
}

fn blob(
    StoredBlob { file, size }: StoredBlob,
    verdicts: &Arc<Verdicts>,
    digest: &BlobDigest,
    request: &Parts,
) -> Result<Response<Body>> {
    let headers = &request.headers;
    let file = Arc::new(file);
    let failed = || format!("cannot read {digest}");
    let pending = if request.method == Method::GET {
        match verdicts.judge(digest, &file).or_io(failed)? {
            Judged::Settled(Verdict::Damaged) => return Err(Refusal::damaged_blob(&digest.to_string()).into()),
            Judged::Settled(Verdict::Whole) => None,
            Judged::Pending(pending) => Some(pending),
        }
    } else {
        // Who asks whether it is here wants to push it otherwise: that mends it.
        if verdicts.is_damaged(digest, &file).or_io(failed)? {
            return Err(Refusal::unknown_blob(&digest.to_string()).into());
        }
        None
    };
    // Ranges mean something for GET only (RFC 9110, section 14.2), and only of the very content that the client has a piece of.
    let is_ranged = request.method == Method::GET
        && headers
            .get(IF_RANGE)
            .is_none_or(|etag| etag.as_bytes() == entity_tag(digest).as_bytes());
    let range = headers.get(RANGE).filter(|_| is_ranged);
    let wanted = Wanted::parse(range.and_then(|value| value.to_str().ok()), size);
    let mut response = match wanted {
        _ if client_has(headers, digest) => not_modified(),
        Wanted::All => octets(file, 0, size, pending),
        Wanted::Part { offset, length } => {
            let mut response = octets(file, offset, length, pending);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = offset + length - 1;
            set(&mut response, CONTENT_RANGE, &format!("bytes {offset}-{last}/{size}"));
            response
        }
        Wanted::Nothing => {
            let mut response = refused(&Refusal::bad_range(size));
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    response
        .headers_mut()
        .insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    name_content(&mut response, digest);
    Ok(response)
}

fn referrers(found: &Referrers, path: &str, wanted: Option<&str>) -> Result<Response<Body>> {
    let mut response = document(media_type::INDEX, canonical(found)?);
    if wanted.is_some() {
        set(&mut response, FILTERS_APPLIED, "artifactType");
    }
    if let (true, Some(last)) = (found.more, found.manifests.last()) {
        let wanted = wanted.map_or_else(String::new, |wanted| format!("&artifactType={}", encoded(wanted)));
        set(
            &mut response,
            LINK,
            &format!("<{path}?last={}{wanted}>; rel=\"next\"", last.digest),
        );
    }
    Ok(response)
}

/// Percent-encodes all that does not stand for itself anywhere (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// A part of a list, with the address of the next part.
fn listed(names: String, path: &str, listing: &Listing, page: &Page) -> Response<Body> {
    let mut response = document(JSON, names);
    if let (true, Some(last), Some(size)) = (listing.more, listing.names.last(), page.size) {
        // Names consist of characters that stand for themselves in a query.
        set(
            &mut response,
            LINK,
            &format!("<{path}?n={size}&last={last}>; rel=\"next\""),
        );
    }
    response
}

fn document(content_type: &str, bytes: impl Into<hyper::body::Bytes>) -> Response<Body> {
    let bytes = bytes.into();
    let length = bytes.len();
    let mut response = basic(Body::whole(bytes));
    set(&mut response, CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn octets(file: Arc<std::fs::File>, offset: u64, length: u64, pending: Option<Pending>) -> Response<Body> {
    let mut response = basic(Body::Piece(Piece {
        file,
        offset,
        length,
        pending,
    }));
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn not_modified() -> Response<Body> {
    empty(StatusCode::NOT_MODIFIED)
}

/// An answer of nothing but its headers.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = basic(Body::whole(""));
    *response.status_mut() = status;
    response
}

fn basic(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

fn name_content(response: &mut Response<Body>, digest: &BlobDigest) {
    set(response, CONTENT_DIGEST, &digest.to_string());
    set(response, ETAG, &entity_tag(digest));
}

fn entity_tag(digest: &BlobDigest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client says that it has this content already.
fn client_has(headers: &HeaderMap, digest: &BlobDigest) -> bool {
    let own = entity_tag(digest);
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|etag| etag.trim().trim_start_matches("W/"))
        .any(|etag| etag == "*" || etag == own)
}

/// All values are digests, numbers, checked names and media types: none can be refused as a header's value.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
