//! A page of a long list, as `tags/list` and `_catalog` give it out: `?n=100&last=NAME`.

use crate::refusal::Refusal;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many names; all of them without it.
    pub size: Option<usize>,
    /// Only names after this one, which need not exist.
    pub after: Option<String>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The names, sorted.
    pub names: Vec<String>,
    /// Whether more come after them.
    pub more: bool,
}

impl Page {
    /// Reads the parameters of a query.
    pub(crate) fn parse(size: Option<&str>, after: Option<&str>) -> Result<Self, Refusal> {
        let size = size
            .map(|text| text.parse().map_err(|_| Refusal::bad_page(text)))
            .transpose()?;
        Ok(Self {
            size,
            after: after.map(str::to_owned),
        })
    }

    /// This page of `names`.
    pub(crate) fn of(&self, mut names: Vec<String>) -> Listing {
        names.sort_by(|one, other| order(one).cmp(&order(other)));
        if let Some(after) = &self.after {
            names.retain(|name| order(name) > order(after));
        }
        let size = self.size.unwrap_or(usize::MAX);
        let more = size > 0 && names.len() > size;
        names.truncate(size);
        Listing { names, more }
    }
}

/// Lists are in "case-insensitive alphanumeric order" (OCI distribution specification 1.1, "Listing Tags").
fn order(name: &str) -> (String, &str) {
    (name.to_ascii_lowercase(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let all = ["b", "A", "a", "C"];
        for (size, after, names, more) in [
            (None, None, vec!["A", "a", "b", "C"], false),
            (Some("2"), None, vec!["A", "a"], true),
            (Some("2"), Some("a"), vec!["b", "C"], false),
            (Some("1"), Some("aa"), vec!["b"], true),
            (Some("0"), None, vec![], false),
            (Some("9"), Some("C"), vec![], false),
            (None, Some("B"), vec!["b", "C"], false),
        ] {
            let page = Page::parse(size, after).unwrap();
            let listing = page.of(all.map(str::to_owned).to_vec());
            assert_eq!(
                (listing.names, listing.more),
                (names.into_iter().map(str::to_owned).collect(), more)
            );
        }
        for bad in ["", "-1", "x", "1.5", "99999999999999999999999"] {
            assert!(Page::parse(Some(bad), None).is_err());
        }
    }
}
