//! Writes YAML that every parser reads the same way: block style, strings always in double quotes (JSON's escapes are
//! a part of YAML's).

use serde_json::Value;

/// A document with a line that says who wrote it.
pub(super) fn document(value: &Value) -> String {
    let mut text = "# Written by sealrs.\n".to_owned();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut text),
        other => {
            text.push_str(&other.to_string());
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                text.push_str(&format!("{indent}{}:", key_text(key)));
                nested(value, depth, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                nested(item, depth, text);
            }
        }
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

fn nested(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        // Scalars, `{}` and `[]` mean the same in JSON and in YAML.
        scalar => text.push_str(&format!(" {scalar}\n")),
    }
}

/// Words of letters and hyphens need no quotes as keys, unless YAML 1.1 takes them for something else.
fn key_text(key: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = key.starts_with(|first: char| first.is_ascii_lowercase())
        && key
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter));
    if plain && !WORDS.contains(&key) {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn is_read_back_as_it_was() {
        let value = json!({
            "mirrors": {"docker.io": {"endpoint": ["https://sea.hub:5000", "a: #b"]}, "*": {}},
            "tls-san": ["10.0.0.1", "yes", "010", ""],
            "on": true,
            "port": 6443,
            "text": "line\nbreak \"quoted\" \\ back",
            "nothing": [],
        });
        let text = document(&value);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
        assert!(
            text.contains("mirrors:\n  \"*\": {}\n  \"docker.io\":\n    endpoint:\n      - \"https://sea.hub:5000\"\n"),
            "{text}"
        );
    }
}
