//! The tags of a repository, page by page.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::reference::{Reference, check_tag};
use crate::remote::client::Client;
use crate::remote::failure::Failure;
use crate::spec::{MAX_DOCUMENT, null_is_empty};

/// Tags that are asked for at once. Registries may give fewer.
const PAGE: &str = "n=1000";
/// Tags that a repository may have: what they take stays below 100 MiB.
const MAX_TAGS: usize = 500_000;

#[derive(Deserialize)]
struct Page {
    /// Some registries say null when there are none.
    #[serde(default, deserialize_with = "null_is_empty")]
    tags: Vec<String>,
}

impl Client {
    /// All tags of a repository, numbers in them in the order of their values: `v1.9` before `v1.10`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such repository; [`ErrorKind::Integrity`] when the registry lists what is
    /// no tag, or without end; [`ErrorKind::Auth`] and [`ErrorKind::Network`].
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        let place = || format!("cannot list the tags of {}", repository.repository());
        let mut tags = BTreeSet::new();
        let mut query = PAGE.to_owned();
        loop {
            let before = tags.len();
            let page = self.block_on(self.backoff().run(async || self.page(repository, &query).await));
            let (page, next) = page.context(place)?;
            for tag in page {
                check_tag(&tag)
                    .map_err(|_| {
                        let what = format!("the registry lists `{}`, which is no tag", tag.escape_debug());
                        Error::new(ErrorKind::Integrity, what)
                    })
                    .context(place)?;
                tags.insert(tag);
            }
            let Some(next) = next else { break };
            // A page with nothing new would be followed by another such.
            if tags.len() == before || tags.len() > MAX_TAGS {
                let what = format!("the registry lists more than {MAX_TAGS} tags, or the same ones without end");
                return Err(Error::new(ErrorKind::Integrity, what)).context(place);
            }
            query = next;
        }
        let mut tags: Vec<String> = tags.into_iter().collect();
        tags.sort_by(|one, other| by_numbers(one, other));
        Ok(tags)
    }

    /// A page, and the query for the next one.
    async fn page(&self, repository: &Reference, query: &str) -> Result<(Vec<String>, Option<String>), Failure> {
        let path = format!("{}/tags/list?{query}", repository.path());
        let response = self.ask(repository, &path, None).await?;
        if response.status() == StatusCode::NOT_FOUND {
            let failure = self.wire().refusal(response).await;
            return Err(failure.hint("check the name; some registries hide private repositories this way"));
        }
        let next = next_query(response.url(), response.headers());
        let body = self.wire().body(response, MAX_DOCUMENT).await?;
        let page: Page = serde_json::from_slice(&body).map_err(|error| {
            Error::new(ErrorKind::Integrity, "the registry sent a list that cannot be read").because(error)
        })?;
        Ok((page.tags, next))
    }
}

/// The query of the link to the next page (RFC 8288). Nothing else of it counts: behind a proxy, registries often
/// name themselves by a host or a scheme that nobody else knows.
pub(super) fn next_query(url: &Url, headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|header| header.to_str().ok());
    for link in links.flat_map(|header| header.split(", ")) {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|link| link.split_once('>')) else {
            continue;
        };
        let is_next = parameters
            .split(';')
            .filter_map(|parameter| parameter.split_once('='))
            .any(|(name, value)| {
                let relations = value.trim().trim_matches('"');
                name.trim().eq_ignore_ascii_case("rel")
                    && relations
                        .split(' ')
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            });
        if is_next {
            return url.join(target).ok()?.query().map(str::to_owned);
        }
    }
    None
}

/// Compares texts with the numbers in them by value; where they are the same, by their characters.
fn by_numbers(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one, other);
    loop {
        let (a, b) = (next_part(&mut left), next_part(&mut right));
        let number = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
        let order = if number(a) && number(b) {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a.cmp(b)
        };
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order.then_with(|| one.cmp(other));
        }
    }
}

/// Takes the number, or what is before the next one, off the front.
fn next_part<'a>(text: &mut &'a str) -> &'a str {
    let digits = text.starts_with(|first: char| first.is_ascii_digit());
    let end = text
        .find(|next: char| next.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (part, rest) = text.split_at(end);
    *text = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order() {
        let sorted = [
            "1",
            "1.9",
            "1.10",
            "1.10-rc1",
            "2",
            "10",
            "latest",
            "v1.2",
            "v01.10",
            "v1.10",
            "v1.10.1",
            "v20240101000000000000000000001",
        ];
        let mut tags = sorted;
        tags.reverse();
        tags.sort_by(|one, other| by_numbers(one, other));
        assert_eq!(tags, sorted);
    }

    #[test]
    fn the_next_page_is_at_the_same_place() {
        let url: Url = "https://a.com/v2/x/tags/list?n=2".parse().unwrap();
        for (links, query) in [
            (&[r#"</v2/x/tags/list?last=b&n=2>; rel="next""#][..], Some("last=b&n=2")),
            (
                &["<http://inside:5000/v2/y/tags/list?last=b>; rel=next"],
                Some("last=b"),
            ),
            (
                &[r#"</first?a>; rel="first", <?last=b%2Cc>; title=x; REL="prev next""#],
                Some("last=b%2Cc"),
            ),
            (&["</prev?a>; rel=prev", "<?b>; rel=next"], Some("b")),
            (&[r#"</v2/x/tags/list?last=b>; rel="prev""#], None),
            (&["</v2/x/tags/list>; rel=next"], None),
            (&["nonsense", "<", "<>", ""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for link in links {
                headers.append(LINK, link.parse().unwrap());
            }
            assert_eq!(next_query(&url, &headers).as_deref(), query, "{links:?}");
        }
    }
}
