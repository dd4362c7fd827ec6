//! URLs of `ADD` and `APP`.

use super::step::RemoteFile;

/// Why a URL can't be used, and what would be right.
pub(super) type UrlProblem = (&'static str, &'static str);

/// The scheme of `text` in lower case, if it is a URL of any scheme.
pub(super) fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.'));
    is_scheme.then(|| scheme.to_ascii_lowercase())
}

/// The file that the HTTP URL `url` names.
///
/// # Errors
/// If it has no host, has credentials, names a git repository, or has characters that a URL can't have.
pub(super) fn parse(url: &str) -> Result<RemoteFile, UrlProblem> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    if url
        .chars()
        .any(|character| character.is_control() || character.is_whitespace())
    {
        return Err(("the URL has a blank or control character", "write `%20` for a blank"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err((
            "the URL has credentials, which would end up in the image",
            "take them out of the URL, and serve the file without them",
        ));
    }
    let host = authority.split(':').next().unwrap_or_default();
    if host.is_empty() {
        return Err(("the URL has no host", "write `https://HOST/PATH`"));
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.trim_end_matches('/').ends_with(".git") {
        return Err((
            "git repositories can't be added",
            "clone it before the build and copy it from the build context, or name an archive of it",
        ));
    }
    Ok(RemoteFile {
        url: url.to_owned(),
        file_name: file_name(path),
        checksum: None,
    })
}

/// The last part of the path, if it can be a file's name.
fn file_name(path: &str) -> Option<String> {
    let (_, last) = path.rsplit_once('/')?;
    let name = percent_decoded(last)?;
    let is_name =
        !matches!(name.as_str(), "" | "." | "..") && !name.contains('/') && !name.chars().any(char::is_control);
    is_name.then_some(name)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_by_the_last_part_of_the_path() {
        let table = [
            ("https://h/a/k3s", Some("k3s")),
            ("http://h:8080/a%20b.tar?x=/y#z", Some("a b.tar")),
            ("https://[::1]:80/x", Some("x")),
            ("https://h/k3s%2Bairgap.tar.zst", Some("k3s+airgap.tar.zst")),
            ("https://h/a/", None),
            ("https://h", None),
            ("https://h?x=/y", None),
            ("https://h/a%2fb", None),
            ("https://h/%2e%2e", None),
            ("https://h/%zz", None),
            ("https://h/%ff", None),
        ];
        for (url, expected) in table {
            assert_eq!(parse(url).unwrap().file_name.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn refuses_what_can_not_be_fetched() {
        let table = [
            ("https://", "no host"),
            ("https:///x", "no host"),
            ("https://:80/x", "no host"),
            ("https://user:secret@h/x", "credentials"),
            ("https://h/a b", "blank"),
            ("https://github.com/a/b.git", "git"),
            ("https://github.com/a/b.git#v1", "git"),
        ];
        for (url, expected) in table {
            assert!(parse(url).unwrap_err().0.contains(expected), "{url}");
        }
    }

    #[test]
    fn knows_schemes() {
        assert_eq!(scheme("HTTPS://h/x").as_deref(), Some("https"));
        assert_eq!(scheme("local://x").as_deref(), Some("local"));
        assert_eq!(scheme("oci+x://a").as_deref(), Some("oci+x"));
        assert_eq!(scheme("a b://c"), None);
        assert_eq!(scheme("plain/path"), None);
    }
}
