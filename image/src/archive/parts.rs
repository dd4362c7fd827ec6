//! The names of a split archive: `x.tar.001`, `x.tar.002`, …, and `x.tar.sha256` with their digests, which
//! `sha256sum -c` checks.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// More parts would not sort by their names, and `cat x.tar.*` would mix them up.
pub(super) const MAX_PARTS: usize = 999;
/// A line for each part, with a long name.
const MAX_DIGESTS: u64 = 1 << 20;

/// The file that is part `number` of `whole`.
pub(super) fn part_name(whole: &Path, number: usize) -> PathBuf {
    whole.with_added_extension(format!("{number:03}"))
}

/// The file with the parts' digests.
pub(super) fn digests_name(whole: &Path) -> PathBuf {
    whole.with_added_extension("sha256")
}

/// The common name of the parts that `path` stands for: one of the parts, or their name without a number. `None`
/// when it is a file of its own.
pub(super) fn common_name(path: &Path) -> Option<PathBuf> {
    let has_digests = |whole: &Path| matches!(read_digests(whole), Ok(Some(_)));
    let is_split = |whole: &Path| part_name(whole, 1).is_file() || has_digests(whole);
    let numbered = path
        .extension()
        .is_some_and(|extension| extension.len() == 3 && extension.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    if numbered {
        let whole = path.with_extension("");
        return is_split(&whole).then_some(whole);
    }
    (!path.exists() && is_split(path)).then(|| path.to_owned())
}

/// The digests of the parts of `whole` in their order, as they are written beside.
pub(super) fn format_digests(whole: &Path, digests: &[Digest]) -> String {
    let mut text = String::new();
    for (at, digest) in digests.iter().enumerate() {
        let part = part_name(whole, at + 1);
        let name = part.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(text, "{}  {name}", digest.hex());
    }
    text
}

/// Reads the digests that lie beside the parts of `whole`; `None` when there are none. The parts may have been renamed
/// since, so only their numbers count.
pub(super) fn read_digests(whole: &Path) -> Result<Option<Vec<Digest>>> {
    let path = digests_name(whole);
    let place = || format!("cannot read {}", path.display());
    let size = match fs::metadata(&path) {
        Err(error) if error.kind() == NotFound => return Ok(None),
        metadata => metadata.or_io(place)?.len(),
    };
    let wrong = |what: &str| {
        Error::new(ErrorKind::Integrity, format!("{} {what}", path.display()))
            .hint("copy it again from where the parts came, or remove it to read the parts without it")
    };
    if size > MAX_DIGESTS {
        return Err(wrong("is too large for a list of digests"));
    }
    let text = fs::read_to_string(&path).or_io(place)?;
    let mut digests = Vec::new();
    for line in text.lines() {
        let number = digests.len() + 1;
        let (hex, name) = line.split_once(' ').unwrap_or_default();
        let digest = format!("sha256:{hex}").parse::<Digest>();
        match digest {
            Ok(digest) if name.ends_with(&format!(".{number:03}")) => digests.push(digest),
            _ => {
                return Err(wrong(&format!(
                    "is not a list of digests: line {number} should tell of part {number:03}"
                )));
            }
        }
    }
    if digests.is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(Some(digests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_parts_is_found_by_its_name_and_by_each_part() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("x.tar");
        assert_eq!(common_name(&whole), None);
        for number in [1, 2] {
            fs::write(part_name(&whole, number), "x").unwrap();
        }
        for name in ["x.tar", "x.tar.001", "x.tar.002", "x.tar.003"] {
            assert_eq!(common_name(&folder.path().join(name)).as_ref(), Some(&whole), "{name}");
        }
        // A file of its own is one, whatever lies beside it or how it is called.
        fs::write(&whole, "x").unwrap();
        assert_eq!(common_name(&whole), None);
        let version = folder.path().join("app-1.0.123");
        fs::write(&version, "x").unwrap();
        assert_eq!(common_name(&version), None);
    }

    #[test]
    fn digests_come_back_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("x.tar");
        assert_eq!(read_digests(&whole).unwrap(), None);
        let digests = [Digest::of(b"1"), Digest::of(b"2")];
        let text = format_digests(&whole, &digests);
        assert!(text.starts_with(&format!("{}  x.tar.001\n", digests[0].hex())));
        fs::write(digests_name(&whole), &text).unwrap();
        assert_eq!(read_digests(&whole).unwrap(), Some(digests.to_vec()));
        // As `sha256sum --binary` writes it, under another name.
        fs::write(digests_name(&whole), text.replace("  x.tar", " *y.tar")).unwrap();
        assert_eq!(read_digests(&whole).unwrap(), Some(digests.to_vec()));
        let swapped: String = text.lines().rev().map(|line| format!("{line}\n")).collect();
        for bad in [
            String::new(),
            "hello\n".to_owned(),
            swapped,
            text.replace('a', "g") + "x",
        ] {
            fs::write(digests_name(&whole), bad).unwrap();
            assert_eq!(read_digests(&whole).unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
}
