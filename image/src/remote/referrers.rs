//! What a registry says that refers to a manifest: signatures, attestations, lists of parts.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::remote::client::Client;
use crate::remote::failure::Failure;
use crate::remote::tags::next_query;
use crate::spec::{self, Descriptor, Index, MAX_DOCUMENT, media_type, null_is_empty};

/// More than this refer to no image that is in use.
const MOST: usize = 10_000;

/// A list, or a page of one. Registries may leave the rest of an index out.
#[derive(Deserialize)]
struct Page {
    #[serde(default, deserialize_with = "null_is_empty")]
    manifests: Vec<Descriptor>,
}

impl Client {
    /// What a repository lists as referring to a manifest (OCI distribution specification 1.1, "Listing Referrers"), be it by
    /// its own list or by the one that clients keep under a tag where the registry has none.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when a list can't be read or has no end; [`ErrorKind::Auth`] and [`ErrorKind::Network`].
    pub fn referrers(&self, repository: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let place = || format!("cannot ask what refers to {}@{subject}", repository.repository());
        let mut found = BTreeMap::new();
        let mut query = String::new();
        loop {
            let page = self.block_on(
                self.backoff()
                    .run(async || self.referrers_page(repository, subject, &query).await),
            );
            let Some((page, next)) = page.context(place)? else {
                return self.listed_by_hand(repository, subject).context(place);
            };
            let before = found.len();
            found.extend(page.into_iter().map(|referrer| (referrer.digest, referrer)));
            let Some(next) = next else { break };
            if found.len() == before || found.len() > MOST {
                let what = format!("the registry lists more than {MOST} of them, or the same ones without end");
                return Err(Error::new(ErrorKind::Integrity, what)).context(place);
            }
            query = format!("?{next}");
        }
        Ok(found.into_values().collect())
    }

    /// A page, and the query for the next one; none where the registry knows no such lists.
    async fn referrers_page(
        &self,
        repository: &Reference,
        subject: &Digest,
        query: &str,
    ) -> Result<Option<(Vec<Descriptor>, Option<String>)>, Failure> {
        let path = format!("{}/referrers/{subject}{query}", repository.path());
        let response = match self.ask(repository, &path, None).await {
            Err(failure) if failure.status.is_some_and(is_unknown) => return Ok(None),
            response => response?,
        };
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let next = next_query(response.url(), response.headers());
        let body = self.wire().body(response, MAX_DOCUMENT).await?;
        // What answers all paths alike, as some proxies do, knows no lists either.
        Ok(serde_json::from_slice::<Page>(&body)
            .ok()
            .map(|page| (page.manifests, next)))
    }

    fn listed_by_hand(&self, repository: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self.manifest(repository, &list_tag(subject)) {
            Ok(list) if media_type::is_index(&list.descriptor.media_type) => {
                Ok(spec::parse::<Index>(&list.bytes, "the list of referrers")?.manifests)
            }
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The tag of the list of a manifest's referrers, where the registry has none ("Referrers Tag Schema").
#[must_use]
pub fn list_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Whether a registry that answers so has never heard of lists of referrers.
fn is_unknown(status: StatusCode) -> bool {
    let other = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status == StatusCode::NOT_IMPLEMENTED || status.is_client_error() && !other.contains(&status)
}
