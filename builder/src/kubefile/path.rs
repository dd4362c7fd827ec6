//! Paths of a Kubefile: sources below the build context, destinations below the rootfs.

use super::step::Destination;

/// Why a path can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathProblem {
    Empty,
    /// More `..` than folders.
    Outside,
    ControlCharacter,
}

/// `path` without empty parts, `.` and `..`, and without slashes around it. Empty for the root itself.
///
/// # Errors
/// If it leads out of the root.
pub(super) fn clean(path: &str) -> Result<String, PathProblem> {
    if path.trim().is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.chars().any(char::is_control) {
        return Err(PathProblem::ControlCharacter);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(PathProblem::Outside)?;
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The destination that `path` names.
///
/// # Errors
/// If it leads out of the rootfs.
pub(super) fn destination(path: &str) -> Result<Destination, PathProblem> {
    let clean = clean(path)?;
    let last = path.rsplit('/').next().unwrap_or_default();
    Ok(Destination {
        is_directory: clean.is_empty() || matches!(last, "" | "." | ".."),
        path: clean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        let table = [
            ("a", Ok("a")),
            ("/a//b/./c/", Ok("a/b/c")),
            (".", Ok("")),
            ("/", Ok("")),
            ("a/..", Ok("")),
            ("a/../b", Ok("b")),
            ("...", Ok("...")),
            ("*/../b", Ok("b")),
            ("..", Err(PathProblem::Outside)),
            ("/../a", Err(PathProblem::Outside)),
            ("a/../../a", Err(PathProblem::Outside)),
            ("", Err(PathProblem::Empty)),
            (" ", Err(PathProblem::Empty)),
            ("a\nb", Err(PathProblem::ControlCharacter)),
        ];
        for (path, expected) in table {
            assert_eq!(clean(path), expected.map(str::to_owned), "{path:?}");
        }
    }

    #[test]
    fn knows_folders_by_their_ending() {
        for folder in [".", "./", "/", "a/", "a/.", "a/b/..", "a/.."] {
            assert!(destination(folder).unwrap().is_directory, "{folder}");
        }
        for file in ["a", "/a", "a/b", "..."] {
            assert!(!destination(file).unwrap().is_directory, "{file}");
        }
    }
}
