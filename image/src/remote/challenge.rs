//! What a registry asks for with `WWW-Authenticate` (RFC 9110 section 11.6.1, and Docker's token specification).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A demand for credentials that we can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from a token server.
    Bearer(Bearer),
}

/// Where and for what a token is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The token server's URL, as the registry gives it.
    pub(super) realm: String,
    /// The registry's name at the token server.
    pub(super) service: Option<String>,
    /// What the token has to be good for, if the registry says.
    pub(super) scope: Option<String>,
}

impl Challenge {
    /// The best challenge of a response: a token rather than the password itself.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Self> {
        let mut found = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for (scheme, parameters) in parse(text) {
                let get = |name: &str| {
                    let pair = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    pair.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
                };
                if scheme.eq_ignore_ascii_case("bearer") {
                    if let Some(realm) = get("realm") {
                        return Some(Self::Bearer(Bearer {
                            realm,
                            service: get("service"),
                            scope: get("scope"),
                        }));
                    }
                } else if scheme.eq_ignore_ascii_case("basic") {
                    found = Some(Self::Basic);
                }
            }
        }
        found
    }

    /// The part that holds for the whole registry: without the scope of one repository.
    pub(super) fn of_registry(mut self) -> Self {
        if let Self::Bearer(bearer) = &mut self {
            bearer.scope.take_if(|scope| scope.contains("repository:"));
        }
        self
    }
}

type Parameters = Vec<(String, String)>;

/// Splits a header into schemes with their parameters. Broken pieces are left out.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let (word, after) = split_word(rest);
        if word.is_empty() {
            // Not the start of anything: skip one character.
            let mut characters = rest.chars();
            characters.next();
            rest = characters.as_str();
            continue;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, after) = split_value(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token of RFC 9110, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A quoted string or a plain word, and what follows it.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => value.extend(characters.next()),
            _ => value.push(c),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }))
    }

    #[test]
    fn reads_what_registries_send() {
        let hub = bearer("https://auth.docker.io/token", Some("registry.docker.io"), None);
        let scoped = bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push"));
        for (headers, expected) in [
            (
                vec![r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#],
                hub.clone(),
            ),
            (
                vec![r#"bearer service="registry.docker.io" , realm="https://auth.docker.io/token""#],
                hub.clone(),
            ),
            (
                vec![r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#],
                scoped.clone(),
            ),
            (
                vec![r#"Bearer realm="https://a/t",service=s,scope="repository:a/b:pull,push",error="invalid_token""#],
                scoped,
            ),
            (vec![r#"Basic realm="Registry, \"the\" Realm""#], Some(Challenge::Basic)),
            (vec!["basic"], Some(Challenge::Basic)),
            (
                vec![r#"Basic realm="x", Bearer realm="https://a/t""#],
                bearer("https://a/t", None, None),
            ),
            (vec!["Negotiate", r#"Basic realm="x""#], Some(Challenge::Basic)),
            (
                vec![r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#],
                bearer("https://a/t", None, None),
            ),
            (vec![r#"Bearer service="s""#], None),
            (vec![r#"Bearer realm="""#], None),
            (vec!["Negotiate"], None),
            (vec![r#"realm="https://a/t""#], None),
            (vec![r#"Bearer realm="https://a/t"#], bearer("https://a/t", None, None)),
            (vec![r#"="",,@@ "", Basic"#], Some(Challenge::Basic)),
            (vec![""], None),
            (vec![], None),
        ] {
            let mut map = HeaderMap::new();
            for header in &headers {
                map.append(WWW_AUTHENTICATE, header.parse().unwrap());
            }
            assert_eq!(Challenge::choose(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn forgets_the_scope_of_one_repository_only() {
        let of_registry = |scope| match bearer("r", None, Some(scope)).unwrap().of_registry() {
            Challenge::Bearer(bearer) => bearer.scope,
            Challenge::Basic => None,
        };
        assert_eq!(of_registry("repository:a:pull"), None);
        assert_eq!(of_registry("aws").as_deref(), Some("aws"));
    }
}
