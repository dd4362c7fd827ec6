//! Answers to requests that change the registry: uploads, manifests, and removing them.

use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use sealrs_image::digest::Digest;
use sealrs_image::error::{ErrorKind, IoResultExt as _, ResultExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::answer::{CONTENT_DIGEST, Failure, Result, empty, refused, set};
use crate::body::Body;
use crate::digest::BlobDigest;
use crate::directory::{Directory, Pushed, Upload, UploadEnd};
use crate::host::Host;
use crate::manifest::{MAX_PUSHED, Manifest};
use crate::metrics::Metrics;
use crate::name::{Repository, Tag, UploadId};
use crate::receive::{BodyEnd, receive, small};
use crate::refusal::Refusal;
use crate::route::{Begin, Item};
use crate::turns::{Turn, Turns};
use crate::verdict::Verdicts;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// How many manifests are taken in at once: they wait in memory.
const MANIFESTS_AT_ONCE: usize = 32;

/// How many threads may change the directory, or wait until they may. Those who read have the others.
const WRITERS: usize = 256;

/// What takes pushes.
#[derive(Debug)]
pub(crate) struct Pushes {
    directory: Arc<Directory>,
    turns: Turns,
    manifests: Semaphore,
    writers: Arc<Semaphore>,
    verdicts: Arc<Verdicts>,
    metrics: Arc<Metrics>,
    may_be_sparse: bool,
}

impl Pushes {
    pub(crate) fn to(
        directory: Arc<Directory>,
        verdicts: Arc<Verdicts>,
        metrics: Arc<Metrics>,
        may_be_sparse: bool,
    ) -> Self {
        Self {
            directory,
            turns: Turns::default(),
            manifests: Semaphore::new(MANIFESTS_AT_ONCE),
            writers: Arc::new(Semaphore::new(WRITERS)),
            verdicts,
            metrics,
            may_be_sparse,
        }
    }

    /// Answers a request for something of the repository that the client knows as `name`, at `upstream`.
    pub(crate) async fn answer(
        &self,
        request: &Parts,
        (name, upstream, item): (Repository, Option<Host>, Item),
        body: &mut Incoming,
    ) -> Result<Response<Body>> {
        let place = upstream.clone();
        let repository = self
            .blocking(move |directory| place_of(directory, &name, place.as_ref()))
            .await?;
        let headers = &request.headers;
        match (&request.method, item) {
            (_, Item::Uploads(begin)) => self.begin(&repository, begin, upstream, headers, body).await,
            (&Method::PATCH, Item::Upload(id, _)) => self.add(&repository, &id, headers, body).await,
            (&Method::PUT, Item::Upload(id, digest)) => {
                let digest = digest.ok_or_else(Refusal::no_digest)?;
                self.complete(&repository, &id, &digest, headers, body).await
            }
            (&Method::DELETE, Item::Upload(id, _)) => self.cancel(&repository, &id).await,
            (_, Item::Upload(id, _)) => {
                let size = self.size(&repository, &id).await?;
                Ok(upload_state(StatusCode::NO_CONTENT, &repository, &id, size))
            }
            (&Method::PUT, Item::Tagged(tag)) => self.manifest(repository, None, vec![tag], headers, body).await,
            (&Method::PUT, Item::Manifest(digest, tags)) => {
                self.manifest(repository, Some(digest), tags, headers, body).await
            }
            (&Method::DELETE, item) => {
                self.blocking(move |directory| remove(directory, &repository, item))
                    .await
            }
            (method, _) => Err(Refusal::unsupported(method.as_str(), "GET, HEAD").into()),
        }
    }

    async fn begin(
        &self,
        repository: &Repository,
        begin: Begin,
        upstream: Option<Host>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Response<Body>> {
        if let Begin::Mount(digest, from) = &begin {
            let (digest, from, target) = (*digest, from.clone(), repository.clone());
            let verdicts = Arc::clone(&self.verdicts);
            let mounted = self
                .blocking(move |directory| {
                    mount(
                        (directory, &verdicts),
                        &target,
                        &digest,
                        from.as_deref(),
                        upstream.as_ref(),
                    )
                })
                .await?;
            if mounted {
                return Ok(stored(repository, "blobs", &digest));
            }
        }
        let target = repository.clone();
        let id = self
            .blocking(move |directory| Ok(Upload::begin(directory, &target)?))
            .await?;
        let Begin::Whole(digest) = begin else {
            return Ok(upload_state(StatusCode::ACCEPTED, repository, &id, 0));
        };
        let answered = self.complete(repository, &id, &digest, headers, body).await;
        if !answered.as_ref().is_ok_and(|response| response.status().is_success()) {
            // Its client was never told of it, and cannot go on with it.
            let _ = self.cancel(repository, &id).await;
        }
        answered
    }

    async fn add(
        &self,
        repository: &Repository,
        id: &UploadId,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Response<Body>> {
        match self.take_in(repository, id, headers, body).await? {
            Taken::In(upload, mut turn) => {
                let size = upload.size();
                turn.remember(upload.into_hasher());
                Ok(upload_state(StatusCode::ACCEPTED, repository, id, size))
            }
            Taken::Refused(response) => Ok(response),
        }
    }

    async fn complete(
        &self,
        repository: &Repository,
        id: &UploadId,
        digest: &BlobDigest,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Response<Body>> {
        let (upload, _turn) = match self.take_in(repository, id, headers, body).await? {
            Taken::In(upload, turn) => (upload, turn),
            Taken::Refused(response) => return Ok(response),
        };
        let (wanted, file) = (*digest, upload.file());
        let end = self.blocking(move |_| Ok(upload.finish(&wanted)?)).await?;
        self.turns.forget(repository, id);
        match end {
            UploadEnd::Stored => {
                self.verdicts.vouch(digest, &file);
                Ok(stored(repository, "blobs", digest))
            }
            UploadEnd::OtherDigest(found) => Err(Refusal::other_digest(&digest.to_string(), &found.to_string()).into()),
        }
    }

    /// Adds a request's body to an upload.
    async fn take_in(
        &self,
        repository: &Repository,
        id: &UploadId,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Taken> {
        let range = ContentRange::of(headers)?;
        self.size(repository, id).await?;
        let mut turn = self.turns.take(repository, id).await;
        let known = turn.recall();
        let (target, own_id) = (repository.clone(), id.clone());
        let opened = self
            .blocking(move |directory| Ok(Upload::open(directory, &target, &own_id, known)?))
            .await?;
        let Some(upload) = opened else {
            self.turns.forget(repository, id);
            return Err(Refusal::unknown_upload(&id.to_string()).into());
        };
        let start = upload.size();
        let length = range.map(|range| range.length);
        let refusal = match range {
            Some(range) if range.first != start => Some(Refusal::other_offset(range.first, start)),
            _ if length.is_some() && body.size_hint().exact().is_some_and(|exact| Some(exact) != length) => {
                Some(Refusal::other_length(start))
            }
            _ => None,
        };
        let (upload, refusal) = match refusal {
            Some(refusal) => (upload, Some(refusal)),
            None => {
                let _held = self.metrics.uploads.hold();
                let (upload, end) = receive(upload, body, length, &mut turn).await?;
                let size = upload.size();
                let refusal = match end {
                    BodyEnd::Whole if length.is_none_or(|length| size - start == length) => None,
                    BodyEnd::Whole | BodyEnd::TooLong => Some(Refusal::other_length(size)),
                    BodyEnd::Cut => Some(Refusal::cut_off(size)),
                    BodyEnd::TakenOver => Some(Refusal::taken_over()),
                };
                (upload, refusal)
            }
        };
        let Some(refusal) = refusal else {
            return Ok(Taken::In(upload, turn));
        };
        let mut response = refused(&refusal);
        name_upload(&mut response, repository, id, upload.size());
        turn.remember(upload.into_hasher());
        Ok(Taken::Refused(response))
    }

    async fn size(&self, repository: &Repository, id: &UploadId) -> Result<u64> {
        let (target, own_id) = (repository.clone(), id.clone());
        let size = self
            .blocking(move |directory| Ok(directory.upload_size(&target, &own_id)?))
            .await?;
        Ok(size.ok_or_else(|| Refusal::unknown_upload(&id.to_string()))?)
    }

    async fn cancel(&self, repository: &Repository, id: &UploadId) -> Result<Response<Body>> {
        self.size(repository, id).await?;
        let _turn = self.turns.take(repository, id).await;
        let (target, own_id) = (repository.clone(), id.clone());
        self.blocking(move |directory| Ok(directory.cancel_upload(&target, &own_id)?))
            .await?;
        self.turns.forget(repository, id);
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn manifest(
        &self,
        repository: Repository,
        digest: Option<BlobDigest>,
        tags: Vec<Tag>,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Response<Body>> {
        let too_big = || Refusal::big_manifest(MAX_PUSHED);
        if body.size_hint().lower() > MAX_PUSHED as u64 {
            return Err(too_big().into());
        }
        let room = self.manifests.acquire().await;
        let _room = room.or_fail(ErrorKind::Internal, || "the registry takes no manifests any more")?;
        let bytes = small(body, MAX_PUSHED).await.map_err(|end| match end {
            BodyEnd::TooLong => too_big(),
            _ => Refusal::bad_manifest("the request broke off"),
        })?;
        let content_type = headers
            .get(CONTENT_TYPE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let may_be_sparse = self.may_be_sparse;
        self.blocking(move |directory| {
            let found = match &digest {
                Some(asked) => asked.same_of(&bytes),
                None => Digest::of(&bytes).into(),
            };
            if let Some(asked) = digest.filter(|asked| *asked != found) {
                return Err(Refusal::other_digest(&asked.to_string(), &found.to_string()).into());
            }
            let manifest = Manifest::parse(&bytes, content_type.as_deref())?;
            let pushed = Pushed {
                digest: found,
                bytes: &bytes,
                manifest: &manifest,
                tags: &tags,
                may_be_sparse,
            };
            if let Some(refusal) = directory.push(&repository, &pushed)? {
                return Err(refusal.into());
            }
            let mut response = stored(&repository, "manifests", &found);
            if let Some(subject) = &manifest.subject {
                set(&mut response, SUBJECT, &subject.to_string());
            }
            if !tags.is_empty() {
                let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                set(&mut response, TAG, &tags.join(", "));
            }
            Ok(response)
        })
        .await
    }

    /// A place among those who may have to wait until something is removed.
    pub(crate) async fn writer(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.writers).acquire_owned().await.ok()
    }

    /// Does something with the directory that may take its time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Directory>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = Arc::clone(&self.directory);
        let place = self.writer().await;
        let work = move || {
            let _place = place;
            work(&directory)
        };
        spawn_blocking(work)
            .await
            .or_fail(ErrorKind::Internal, || "a thread of the registry died")?
    }
}

/// What became of a body.
enum Taken {
    In(Upload, Turn),
    /// The upload stays, with what arrived.
    Refused(Response<Body>),
}

/// The bytes that a chunk says it is, as registries write it: `FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    length: u64,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> std::result::Result<Option<Self>, Refusal> {
        let Some(value) = headers.get(CONTENT_RANGE) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u64>().ok()).flatten()
        };
        text.split_once('-')
            .and_then(|(first, last)| {
                let (first, last) = (number(first)?, number(last)?);
                let length = last.checked_sub(first)?.checked_add(1)?;
                Some(Some(Self { first, length }))
            })
            .ok_or_else(|| Refusal::bad_content_range(&text))
    }
}

/// The repository that a change is for: the one that a pull of that name would find, else a new one.
fn place_of(directory: &Directory, name: &Repository, upstream: Option<&Host>) -> Result<Repository> {
    let Some(upstream) = upstream else {
        return Ok(name.clone());
    };
    match directory.find(name, Some(upstream))? {
        Some(repository) => Ok(repository),
        None => Repository::on(upstream, name.as_str()).map_err(|_| Refusal::bad_name(name.as_str()).into()),
    }
}

fn mount(
    (directory, verdicts): (&Directory, &Verdicts),
    repository: &Repository,
    digest: &BlobDigest,
    from: Option<&str>,
    upstream: Option<&Host>,
) -> Result<bool> {
    // What is damaged has to be sent again.
    if let Some(stored) = directory.content(digest)?
        && verdicts
            .is_damaged(digest, &stored.file)
            .or_io(|| format!("cannot read {digest}"))?
    {
        return Ok(false);
    }
    let Some(from) = from else {
        return Ok(directory.mount(repository, digest, None)?);
    };
    // From where there is nothing, nothing can be mounted; the client uploads then.
    let Ok(from) = from.parse() else {
        return Ok(false);
    };
    match directory.find(&from, upstream)? {
        Some(from) => Ok(directory.mount(repository, digest, Some(&from))?),
        None => Ok(false),
    }
}

fn remove(directory: &Directory, repository: &Repository, item: Item) -> Result<Response<Body>> {
    let (was_there, unknown) = match item {
        Item::Tagged(tag) => (
            directory.remove_tag(repository, &tag)?,
            Refusal::unknown_manifest(tag.as_str()),
        ),
        Item::Manifest(digest, _) => (
            directory.remove_manifest(repository, &digest)?,
            Refusal::unknown_manifest(&digest.to_string()),
        ),
        Item::Blob(digest) => (
            directory.remove_blob(repository, &digest)?,
            Refusal::unknown_blob(&digest.to_string()),
        ),
        _ => return Err(Refusal::no_such_path().into()),
    };
    match was_there {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(Failure::from(unknown)),
    }
}

/// The answer that says that something was stored, and where.
fn stored(repository: &Repository, kind: &str, digest: &BlobDigest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, LOCATION, &format!("/v2/{repository}/{kind}/{digest}"));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

/// The answer that says how far an upload is.
fn upload_state(status: StatusCode, repository: &Repository, id: &UploadId, size: u64) -> Response<Body> {
    let mut response = empty(status);
    name_upload(&mut response, repository, id, size);
    response
}

/// Says how far an upload is, as docker-distribution does: an empty one ends at 0, like one of one byte.
fn name_upload(response: &mut Response<Body>, repository: &Repository, id: &UploadId, size: u64) {
    set(response, LOCATION, &format!("/v2/{repository}/blobs/uploads/{id}"));
    set(response, RANGE, &format!("0-{}", size.saturating_sub(1)));
    set(response, UPLOAD_ID, &id.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            ContentRange::of(&headers)
        };
        for (text, first, length) in [("0-0", 0, 1), ("5-9", 5, 5), ("0-18446744073709551614", 0, u64::MAX)] {
            assert_eq!(of(text).unwrap(), Some(ContentRange { first, length }), "{text}");
        }
        for bad in [
            "",
            "5",
            "-",
            "5-",
            "-5",
            "6-5",
            "+1-2",
            "0-18446744073709551615",
            "bytes 0-1/2",
            "a-b",
        ] {
            assert_eq!(of(bad).unwrap_err().code, "BLOB_UPLOAD_INVALID", "{bad}");
        }
        assert_eq!(ContentRange::of(&HeaderMap::new()).unwrap(), None);
    }
}
