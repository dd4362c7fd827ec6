//! Kubernetes' rules for keys and values of labels.

/// What is wrong with a key: `name` or `domain/name`.
pub(super) fn key(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((domain, name)) => {
            if !is_domain(domain) {
                return Err(format!("`{domain}` before the `/` is no DNS name in small letters"));
            }
            name
        }
        None => text,
    };
    if name.is_empty() || !is_value(name) {
        return Err(format!(
            "`{name}` is no name: up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
        ));
    }
    Ok(())
}

/// What is wrong with a value; it may be empty.
pub(super) fn value(text: &str) -> Result<(), String> {
    if is_value(text) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no value: up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
    ))
}

fn is_value(text: &str) -> bool {
    let ends = [text.chars().next(), text.chars().next_back()];
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends.into_iter().flatten().all(|c| c.is_ascii_alphanumeric())
}

fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        for text in ["a", "a-b", "node-role.kubernetes.io/db", "A.b_c", "1"] {
            assert_eq!(key(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "/a",
            "a/",
            "-a",
            "a-",
            "A.io/b",
            "a/b/c",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(key(text).is_err(), "{text}");
        }
        assert_eq!(value(""), Ok(()));
        assert!(value("a=b").is_err());
    }
}
