//! What a request asks for: the paths of the registry API (OCI distribution specification 1.1, "Endpoints").

use hyper::Method;

use crate::digest::BlobDigest;
use crate::host::Host;
use crate::name::{Repository, Tag, UploadId};
use crate::page::Page;
use crate::refusal::Refusal;

/// How many tags a manifest can be given at once.
const TAGS_AT_ONCE: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Whether there is a registry here: `/v2/`.
    Version,
    /// The repositories: `/v2/_catalog`.
    Catalog(Page),
    /// Something of a repository.
    Repository {
        /// The repository's name, as the client knows it.
        name: Repository,
        /// The registry that the client means by that name, if it is another one than this.
        upstream: Option<Host>,
        /// What of it.
        item: Item,
    },
}

/// A thing in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `/v2/NAME/manifests/TAG`
    Tagged(Tag),
    /// `/v2/NAME/manifests/DIGEST`, and the tags that it gets when it is pushed: `?tag=TAG`.
    Manifest(BlobDigest, Vec<Tag>),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(BlobDigest),
    /// `/v2/NAME/tags/list`
    Tags(Page),
    /// `/v2/NAME/referrers/DIGEST`, and the one type that is wanted: `?artifactType=TYPE`.
    Referrers(BlobDigest, Option<String>, Page),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(Begin),
    /// `/v2/NAME/blobs/uploads/ID`, and what it is when it is complete: `?digest=DIGEST`.
    Upload(UploadId, Option<BlobDigest>),
}

/// How an upload begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// With nothing yet.
    Empty,
    /// With all of a blob: `?digest=DIGEST`.
    Whole(BlobDigest),
    /// With a blob that may be here already, in the repository `from` or in any: `?mount=DIGEST&from=NAME`.
    Mount(BlobDigest, Option<String>),
}

impl Route {
    /// Reads a request's method, raw path and raw query. `own` is what the client calls this server: its `Host`
    /// header. `may_change` says whether anything but reading is possible at all.
    ///
    /// # Errors
    /// The refusal to answer with, when it asks for nothing that can exist here.
    pub fn parse(
        method: &Method,
        path: &str,
        query: Option<&str>,
        own: Option<&str>,
        may_change: bool,
    ) -> Result<Self, Refusal> {
        let rest = match path {
            "/v2" => "",
            _ => path.strip_prefix("/v2/").ok_or_else(Refusal::no_such_path)?,
        };
        if !may_change && !is_reading(method) {
            return Err(Refusal::read_only(method.as_str()));
        }
        let route = Self::of_path(rest, &Query::parse(query.unwrap_or_default())?, own)?;
        let methods = route.methods();
        if !methods.split(", ").any(|allowed| allowed == method.as_str()) {
            return Err(match may_change {
                true => Refusal::unsupported(method.as_str(), methods),
                false => Refusal::read_only(method.as_str()),
            });
        }
        Ok(route)
    }

    fn of_path(rest: &str, query: &Query, own: Option<&str>) -> Result<Self, Refusal> {
        match rest {
            "" => return Ok(Self::Version),
            "_catalog" => return Ok(Self::Catalog(query.page()?)),
            _ => {}
        }
        // A name may have `manifests` or `tags` among its parts, so the end of the path decides.
        let mut parts = rest.rsplitn(3, '/');
        let (Some(last), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Refusal::no_such_path());
        };
        let last = decoded(last)?;
        let digest = || parse_digest(&last);
        let (name, item) = match (kind, name.strip_suffix("/blobs")) {
            ("uploads", Some(name)) if last.is_empty() => (name, Item::Uploads(query.begin()?)),
            ("uploads", Some(name)) => {
                let id = last.parse().map_err(|_| Refusal::unknown_upload(&last))?;
                (name, Item::Upload(id, query.digest()?))
            }
            ("manifests", _) if last.contains(':') => (name, Item::Manifest(digest()?, query.tags()?)),
            ("manifests", _) => {
                let tag = last.parse().map_err(|_| Refusal::unknown_manifest(&last))?;
                (name, Item::Tagged(tag))
            }
            ("blobs", _) if last == "uploads" => (name, Item::Uploads(query.begin()?)),
            ("blobs", _) => (name, Item::Blob(digest()?)),
            ("referrers", _) => {
                let wanted = query.artifact_type.clone().filter(|wanted| !wanted.is_empty());
                (name, Item::Referrers(digest()?, wanted, query.page()?))
            }
            ("tags", _) if last == "list" => (name, Item::Tags(query.page()?)),
            _ => return Err(Refusal::no_such_path()),
        };
        let name = decoded(name)?;
        let name = name.parse().map_err(|_| Refusal::bad_name(&name))?;
        let upstream = query.upstream(own)?;
        Ok(Self::Repository { name, upstream, item })
    }

    /// What can be done with it, as an `Allow` header says it.
    fn methods(&self) -> &'static str {
        let Self::Repository { item, .. } = self else {
            return "GET, HEAD";
        };
        match item {
            Item::Tagged(_) | Item::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Item::Blob(_) => "GET, HEAD, DELETE",
            Item::Tags(_) | Item::Referrers(..) => "GET, HEAD",
            Item::Uploads(_) => "POST",
            Item::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }
}

/// Whether a method leaves everything as it is.
pub(crate) fn is_reading(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn parse_digest(text: &str) -> Result<BlobDigest, Refusal> {
    text.parse().map_err(|_| Refusal::bad_digest(text))
}

/// The parameters that mean something here; others are ignored.
#[derive(Debug, Default)]
struct Query {
    size: Option<String>,
    after: Option<String>,
    upstream: Option<String>,
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    artifact_type: Option<String>,
    tags: Vec<String>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match key {
                "n" => &mut query.size,
                "last" => &mut query.after,
                "ns" => &mut query.upstream,
                "digest" => &mut query.digest,
                "mount" => &mut query.mount,
                "from" => &mut query.from,
                "artifactType" => &mut query.artifact_type,
                "tag" => {
                    query.tags.push(decoded(value)?);
                    continue;
                }
                _ => continue,
            };
            *slot = Some(decoded(value)?);
        }
        Ok(query)
    }

    fn page(&self) -> Result<Page, Refusal> {
        Page::parse(self.size.as_deref(), self.after.as_deref())
    }

    fn digest(&self) -> Result<Option<BlobDigest>, Refusal> {
        self.digest.as_deref().map(parse_digest).transpose()
    }

    fn begin(&self) -> Result<Begin, Refusal> {
        if let Some(mount) = &self.mount {
            let from = self.from.clone().filter(|from| !from.is_empty());
            return Ok(Begin::Mount(parse_digest(mount)?, from));
        }
        Ok(self.digest()?.map_or(Begin::Empty, Begin::Whole))
    }

    fn tags(&self) -> Result<Vec<Tag>, Refusal> {
        if self.tags.len() > TAGS_AT_ONCE {
            return Err(Refusal::too_many_tags(TAGS_AT_ONCE));
        }
        let tag = |text: &String| text.parse().map_err(|_| Refusal::bad_tag(text));
        self.tags.iter().map(tag).collect()
    }

    fn upstream(&self, own: Option<&str>) -> Result<Option<Host>, Refusal> {
        match self.upstream.as_deref() {
            None | Some("") => Ok(None),
            Some(host) if own.is_some_and(|own| own.eq_ignore_ascii_case(host)) => Ok(None),
            Some(host) => host.parse().map(Some).map_err(|_| Refusal::bad_upstream(host)),
        }
    }
}

/// Percent-decodes (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
                bytes.push(
                    value
                        .and_then(|value| u8::try_from(value).ok())
                        .ok_or_else(Refusal::bad_encoding)?,
                );
                after
            }
            (b'%', _) => return Err(Refusal::bad_encoding()),
            _ => {
                bytes.push(byte);
                after
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| Refusal::bad_encoding())
}

#[cfg(test)]
mod tests {
    use sealrs_image::digest::Digest;

    use super::*;

    fn get(target: &str) -> Result<Route, Refusal> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Route::parse(&Method::GET, path, query, Some("sea.hub:5000"), false)
    }

    #[test]
    fn routes() {
        let digest = BlobDigest::from(Digest::of(b""));
        let encoded = digest.to_string().replace(':', "%3A");
        let of = |name: &str, upstream: Option<&str>, item| Route::Repository {
            name: name.parse().unwrap(),
            upstream: upstream.map(|host| host.parse().unwrap()),
            item,
        };
        let tagged = |tag: &str| Item::Tagged(tag.parse().unwrap());
        let page = |size, after: Option<&str>| Page {
            size,
            after: after.map(str::to_owned),
        };
        for (target, expected) in [
            ("/v2/".to_owned(), Route::Version),
            ("/v2".to_owned(), Route::Version),
            ("/v2/_catalog".to_owned(), Route::Catalog(Page::default())),
            (
                "/v2/_catalog?n=2&last=a%2Fb".to_owned(),
                Route::Catalog(page(Some(2), Some("a/b"))),
            ),
            ("/v2/a/manifests/latest".to_owned(), of("a", None, tagged("latest"))),
            (
                format!("/v2/a/b/manifests/{digest}"),
                of("a/b", None, Item::Manifest(digest, Vec::new())),
            ),
            (
                format!("/v2/a/manifests/{encoded}"),
                of("a", None, Item::Manifest(digest, Vec::new())),
            ),
            (format!("/v2/a/blobs/{digest}"), of("a", None, Item::Blob(digest))),
            (
                "/v2/a%2Fb/tags/list?n=5".to_owned(),
                of("a/b", None, Item::Tags(page(Some(5), None))),
            ),
            (
                format!("/v2/a/referrers/{digest}?artifactType=x%2By"),
                of(
                    "a",
                    None,
                    Item::Referrers(digest, Some("x+y".to_owned()), Page::default()),
                ),
            ),
            (
                "/v2/manifests/tags/manifests/list".to_owned(),
                of("manifests/tags", None, tagged("list")),
            ),
            (
                "/v2/blobs/tags/list".to_owned(),
                of("blobs", None, Item::Tags(Page::default())),
            ),
            (
                "/v2/a/manifests/1?ns=docker.io".to_owned(),
                of("a", Some("docker.io"), tagged("1")),
            ),
            (
                "/v2/a/manifests/1?x&ns=h%3A5000".to_owned(),
                of("a", Some("h:5000"), tagged("1")),
            ),
            (
                "/v2/a/manifests/1?ns=Sea.Hub:5000".to_owned(),
                of("a", None, tagged("1")),
            ),
            ("/v2/a/manifests/1?ns=".to_owned(), of("a", None, tagged("1"))),
        ] {
            assert_eq!(get(&target).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn refusals() {
        let long = "a".repeat(300);
        for (target, status, code) in [
            ("/", 404, "UNSUPPORTED"),
            ("/v1/", 404, "UNSUPPORTED"),
            ("/v2/..", 404, "UNSUPPORTED"),
            ("/v2/x", 404, "UNSUPPORTED"),
            ("/v2//", 404, "UNSUPPORTED"),
            ("/v2/x/manifests", 404, "UNSUPPORTED"),
            ("/v2/x/tags/other", 404, "UNSUPPORTED"),
            ("/v2/x/files/y", 404, "UNSUPPORTED"),
            ("/v2/../../etc/passwd", 404, "UNSUPPORTED"),
            ("/v2/x/manifests/", 404, "MANIFEST_UNKNOWN"),
            ("/v2/x/manifests/..", 404, "MANIFEST_UNKNOWN"),
            ("/v2/x/manifests/%2e%2e", 404, "MANIFEST_UNKNOWN"),
            ("/v2/x/manifests/..%2f..%2fy", 404, "MANIFEST_UNKNOWN"),
            ("/v2/x/manifests/a%00b", 404, "MANIFEST_UNKNOWN"),
            (&format!("/v2/x/manifests/{long}"), 404, "MANIFEST_UNKNOWN"),
            ("/v2/../x/manifests/1", 400, "NAME_INVALID"),
            ("/v2/%2e%2e/%2E%2E/manifests/1", 400, "NAME_INVALID"),
            ("/v2/..%2f..%2fetc/manifests/1", 400, "NAME_INVALID"),
            ("/v2/x%00/manifests/1", 400, "NAME_INVALID"),
            ("/v2//manifests/1", 400, "NAME_INVALID"),
            ("/v2/x//y/tags/list", 400, "NAME_INVALID"),
            ("/v2/x/_manifests/tags/list", 400, "NAME_INVALID"),
            ("/v2/UPPER/tags/list", 400, "NAME_INVALID"),
            (&format!("/v2/{long}/tags/list"), 400, "NAME_INVALID"),
            ("/v2/x/blobs/latest", 400, "DIGEST_INVALID"),
            ("/v2/x/blobs/sha256:..%2f..", 400, "DIGEST_INVALID"),
            ("/v2/x/manifests/sha256:00", 400, "DIGEST_INVALID"),
            ("/v2/x/referrers/x", 400, "DIGEST_INVALID"),
            ("/v2/x/manifests/%", 400, "UNSUPPORTED"),
            ("/v2/x/manifests/%4", 400, "UNSUPPORTED"),
            ("/v2/x/manifests/%zz", 400, "UNSUPPORTED"),
            ("/v2/x/manifests/%ff", 400, "UNSUPPORTED"),
            ("/v2/x/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
            ("/v2/x/manifests/1?ns=..", 400, "NAME_INVALID"),
            ("/v2/x/manifests/1?ns=a.b/c", 400, "NAME_INVALID"),
            ("/v2/x/manifests/1?ns=library", 400, "NAME_INVALID"),
        ] {
            let refusal = get(target).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{target}");
            assert!(refusal.message.len() < 600, "{target}");
        }
    }

    #[test]
    fn pushes() {
        let digest = BlobDigest::from(Digest::of(b""));
        let id = UploadId::random().unwrap();
        let ask = |method: Method, target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            Route::parse(&method, path, Some(query), None, true)
        };
        let item = |method: Method, target: &str| match ask(method, target).unwrap() {
            Route::Repository { name, item, .. } => (name.to_string(), item),
            other => panic!("{other:?}"),
        };
        let a = || "a/blobs".to_owned();
        for (method, target, expected) in [
            (
                Method::POST,
                "/v2/a/blobs/blobs/uploads/".to_owned(),
                Item::Uploads(Begin::Empty),
            ),
            (
                Method::POST,
                "/v2/a/blobs/blobs/uploads".to_owned(),
                Item::Uploads(Begin::Empty),
            ),
            (
                Method::POST,
                format!("/v2/a/blobs/blobs/uploads/?digest={digest}"),
                Item::Uploads(Begin::Whole(digest)),
            ),
            (
                Method::POST,
                format!("/v2/a/blobs/blobs/uploads/?from=b%2Fc&mount={digest}"),
                Item::Uploads(Begin::Mount(digest, Some("b/c".to_owned()))),
            ),
            (
                Method::POST,
                format!("/v2/a/blobs/blobs/uploads/?mount={digest}"),
                Item::Uploads(Begin::Mount(digest, None)),
            ),
            (
                Method::PATCH,
                format!("/v2/a/blobs/blobs/uploads/{id}"),
                Item::Upload(id.clone(), None),
            ),
            (
                Method::PUT,
                format!("/v2/a/blobs/blobs/uploads/{id}?digest={digest}"),
                Item::Upload(id.clone(), Some(digest)),
            ),
            (
                Method::PUT,
                format!("/v2/a/blobs/manifests/{digest}?tag=1&tag=2"),
                Item::Manifest(digest, vec!["1".parse().unwrap(), "2".parse().unwrap()]),
            ),
            (
                Method::DELETE,
                format!("/v2/a/blobs/blobs/{digest}"),
                Item::Blob(digest),
            ),
        ] {
            assert_eq!(item(method, &target), (a(), expected), "{target}");
        }

        let many = "tag=x&".repeat(65);
        for (method, target, status, code) in [
            (Method::GET, "/v2/a/blobs/uploads/".to_owned(), 405, "UNSUPPORTED"),
            (Method::PATCH, "/v2/a/manifests/1".to_owned(), 405, "UNSUPPORTED"),
            (Method::PUT, "/v2/_catalog".to_owned(), 405, "UNSUPPORTED"),
            (Method::DELETE, "/v2/a/tags/list".to_owned(), 405, "UNSUPPORTED"),
            (
                Method::PATCH,
                "/v2/a/blobs/uploads/x".to_owned(),
                404,
                "BLOB_UPLOAD_UNKNOWN",
            ),
            (
                Method::PATCH,
                "/v2/a/blobs/uploads/%2e%2e".to_owned(),
                404,
                "BLOB_UPLOAD_UNKNOWN",
            ),
            (
                Method::PUT,
                format!("/v2/a/blobs/uploads/{id}?digest=x"),
                400,
                "DIGEST_INVALID",
            ),
            (
                Method::POST,
                "/v2/a/blobs/uploads/?mount=x".to_owned(),
                400,
                "DIGEST_INVALID",
            ),
            (Method::POST, "/v2/blobs/uploads/".to_owned(), 404, "UNSUPPORTED"),
            (Method::POST, "/v2/A/blobs/uploads/".to_owned(), 400, "NAME_INVALID"),
            (
                Method::PUT,
                format!("/v2/a/manifests/{digest}?tag=.."),
                400,
                "TAG_INVALID",
            ),
            (
                Method::PUT,
                format!("/v2/a/manifests/{digest}?{many}"),
                414,
                "TAG_INVALID",
            ),
        ] {
            let refusal = ask(method, &target).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{target}");
        }
    }

    #[test]
    fn pushes_are_refused() {
        for (method, path) in [
            (Method::POST, "/v2/x/blobs/uploads/"),
            (Method::PUT, "/v2/x/manifests/1"),
            (Method::PATCH, "/v2/x/blobs/uploads/1"),
            (Method::DELETE, "/v2/x/manifests/1"),
        ] {
            let refusal = Route::parse(&method, path, None, None, false).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (405, "UNSUPPORTED"));
            assert_eq!(refusal.allow, "GET, HEAD");
        }
    }
}
