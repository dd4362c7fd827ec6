//! The block of a cluster in a hosts file, between markers: the rest of the file stays as it is, to the byte.

/// The text with the block for `cluster`, in place of an earlier one, and whether the text got a final line break.
pub(crate) fn with_block(text: &str, cluster: &str, line: &str) -> (String, bool) {
    let (mut text, _) = without_block(text, cluster);
    let added = !text.is_empty() && !text.ends_with('\n');
    if added {
        text.push('\n');
    }
    text.push_str(&format!("{}\n{line}\n{}\n", begin(cluster), end(cluster)));
    (text, added)
}

/// The text without the block for `cluster`, and whether there was one. A block without an end (a file cut off by
/// hand) ends at the first line that is not ours: nothing foreign is taken along.
pub(crate) fn without_block(text: &str, cluster: &str) -> (String, bool) {
    let (begin, end) = (begin(cluster), end(cluster));
    let ends = text.lines().any(|line| line == end);
    let mut kept = String::with_capacity(text.len());
    let mut found = false;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        if bare == begin {
            found = true;
            inside = ends;
        } else if inside {
            inside = bare != end;
        } else {
            kept.push_str(line);
        }
    }
    (kept, found)
}

/// What a marker line says: whose block begins, or that one ends. `None` for any other line.
pub(crate) fn marked(line: &str) -> Option<Option<&str>> {
    let begins = line.strip_prefix("# BEGIN sealrs ").map(Some);
    begins.or_else(|| line.starts_with("# END sealrs ").then_some(None))
}

fn begin(cluster: &str) -> String {
    format!("# BEGIN sealrs {cluster}")
}

fn end(cluster: &str) -> String {
    format!("# END sealrs {cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_and_goes_without_a_trace() {
        for text in [
            "",
            "127.0.0.1 localhost\n",
            "127.0.0.1 localhost",
            "a\r\n\r\nb\r\n",
            "\n\n",
        ] {
            let (with, added) = with_block(text, "c", "10.0.0.1 sea.hub");
            assert!(with.ends_with("# BEGIN sealrs c\n10.0.0.1 sea.hub\n# END sealrs c\n"));
            let (mut without, found) = without_block(&with, "c");
            assert!(found);
            if added {
                assert_eq!(without.pop(), Some('\n'));
            }
            assert_eq!(without, text);
            assert_eq!(without_block(text, "c"), (text.to_owned(), false));
        }
    }

    #[test]
    fn one_block_a_cluster() {
        let (one, _) = with_block("x\n", "one", "10.0.0.1 a");
        let (two, _) = with_block(&one, "two", "10.0.0.2 b");
        let (again, _) = with_block(&two, "one", "10.0.0.3 c");
        assert_eq!(again.matches("BEGIN").count(), 2);
        assert!(!again.contains("10.0.0.1") && again.contains("10.0.0.3 c"));
        assert_eq!(without_block(&without_block(&again, "one").0, "two").0, "x\n");
    }

    #[test]
    fn a_block_that_was_cut_off_takes_nothing_along() {
        let text = "a\n# BEGIN sealrs c\n10.0.0.1 sea.hub\nb\n";
        assert_eq!(without_block(text, "c").0, "a\n10.0.0.1 sea.hub\nb\n");
    }
}
