//! Rules against moby's own tests and against what a walk needs.

use super::*;

fn rules(text: &str) -> IgnoreRules {
    IgnoreRules::parse(text, ".dockerignore").unwrap()
}

/// From moby's `TestMatches`: pattern, path, whether it is excluded.
#[rustfmt::skip]
const MATCHES: &[(&str, &str, bool)] = &[
    ("**", "file", true),
    ("**", "file/", true),
    ("**/", "file", true),
    ("**/", "file/", true),
    ("**", "/", true),
    ("**/", "/", true),
    ("**", "dir/file", true),
    ("**/", "dir/file", true),
    ("**", "dir/file/", true),
    ("**/", "dir/file/", true),
    ("**/**", "dir/file", true),
    ("**/**", "dir/file/", true),
    ("dir/**", "dir/file", true),
    ("dir/**", "dir/file/", true),
    ("dir/**", "dir/dir2/file", true),
    ("dir/**", "dir/dir2/file/", true),
    ("**/dir", "dir", true),
    ("**/dir", "dir/file", true),
    ("**/dir2/*", "dir/dir2/file", true),
    ("**/dir2/*", "dir/dir2/file/", true),
    ("**/dir2/**", "dir/dir2/dir3/file", true),
    ("**/dir2/**", "dir/dir2/dir3/file/", true),
    ("**file", "file", true),
    ("**file", "dir/file", true),
    ("**/file", "dir/file", true),
    ("**file", "dir/dir/file", true),
    ("**/file", "dir/dir/file", true),
    ("**/file*", "dir/dir/file", true),
    ("**/file*", "dir/dir/file.txt", true),
    ("**/file*txt", "dir/dir/file.txt", true),
    ("**/file*.txt", "dir/dir/file.txt", true),
    ("**/file*.txt*", "dir/dir/file.txt", true),
    ("**/**/*.txt", "dir/dir/file.txt", true),
    ("**/**/*.txt2", "dir/dir/file.txt", false),
    ("**/*.txt", "file.txt", true),
    ("**/**/*.txt", "file.txt", true),
    ("a**/*.txt", "a/file.txt", true),
    ("a**/*.txt", "a/dir/file.txt", true),
    ("a**/*.txt", "a/dir/dir/file.txt", true),
    ("a/*.txt", "a/dir/file.txt", false),
    ("a/*.txt", "a/file.txt", true),
    ("a/*.txt**", "a/file.txt", true),
    ("a[b-d]e", "ae", false),
    ("a[b-d]e", "ace", true),
    ("a[b-d]e", "aae", false),
    ("a[^b-d]e", "aze", true),
    (".*", ".foo", true),
    (".*", "foo", false),
    ("abc.def", "abcdef", false),
    ("abc.def", "abc.def", true),
    ("abc.def", "abcZdef", false),
    ("abc?def", "abcZdef", true),
    ("abc?def", "abcdef", false),
    ("a\\\\", "a\\", true),
    ("**/foo/bar", "foo/bar", true),
    ("**/foo/bar", "dir/foo/bar", true),
    ("**/foo/bar", "dir/dir2/foo/bar", true),
    ("abc/**", "abc", false),
    ("abc/**", "abc/def", true),
    ("abc/**", "abc/def/ghi", true),
    ("**/.foo", ".foo", true),
    ("**/.foo", "bar.foo", false),
    ("a(b)c/def", "a(b)c/def", true),
    ("a(b)c/def", "a(b)c/xyz", false),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
    ("dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
    ("a\\*b", "a*b", true),
];

/// From moby's `TestMatch`, which are Go's tests of `filepath.Match`; `None` is a pattern that is refused.
#[rustfmt::skip]
const MATCH: &[(&str, &str, Option<bool>)] = &[
    ("abc", "abc", Some(true)),
    ("*", "abc", Some(true)),
    ("*c", "abc", Some(true)),
    ("a*", "a", Some(true)),
    ("a*", "abc", Some(true)),
    ("a*", "ab/c", Some(true)),
    ("a*/b", "abc/b", Some(true)),
    ("a*/b", "a/c/b", Some(false)),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
    ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
    ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
    ("ab[c]", "abc", Some(true)),
    ("ab[b-d]", "abc", Some(true)),
    ("ab[e-g]", "abc", Some(false)),
    ("ab[^c]", "abc", Some(false)),
    ("ab[^b-d]", "abc", Some(false)),
    ("ab[^e-g]", "abc", Some(true)),
    ("a\\*b", "a*b", Some(true)),
    ("a\\*b", "ab", Some(false)),
    ("a?b", "a☺b", Some(true)),
    ("a[^a]b", "a☺b", Some(true)),
    ("a???b", "a☺b", Some(false)),
    ("a[^a][^a][^a]b", "a☺b", Some(false)),
    ("[a-ζ]*", "α", Some(true)),
    ("*[a-ζ]", "A", Some(false)),
    ("a?b", "a/b", Some(false)),
    ("a*b", "a/b", Some(false)),
    ("[\\]a]", "]", Some(true)),
    ("[\\-]", "-", Some(true)),
    ("[x\\-]", "x", Some(true)),
    ("[x\\-]", "-", Some(true)),
    ("[x\\-]", "z", Some(false)),
    ("[\\-x]", "x", Some(true)),
    ("[\\-x]", "-", Some(true)),
    ("[\\-x]", "a", Some(false)),
    ("[]a]", "]", None),
    ("[-]", "-", None),
    ("[x-]", "x", None),
    ("[x-]", "-", None),
    ("[x-]", "z", None),
    ("[-x]", "x", None),
    ("[-x]", "-", None),
    ("[-x]", "a", None),
    ("\\", "a", None),
    ("[a-b-c]", "a", None),
    ("[", "a", None),
    ("[^", "a", None),
    ("[^bc", "a", None),
    ("a[", "a", None),
    ("a[", "ab", None),
    ("*x", "xxx", Some(true)),
];

#[test]
fn matches_as_moby_does() {
    for &(pattern, path, expected) in MATCHES {
        assert_eq!(rules(pattern).excludes(path), expected, "{pattern} {path}");
    }
    for &(pattern, path, expected) in MATCH {
        let found = IgnoreRules::parse(pattern, "f").ok().map(|rules| rules.excludes(path));
        assert_eq!(found, expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let table = [
        ("!fileutils.go\n*.go", "fileutils.go", true),
        ("*.go\n!fileutils.go", "fileutils.go", false),
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs\n!docs/README.md", "docs/other.md", true),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("docs/*\n!docs/README.md", "docs/README.md", false),
        ("**\n!util/docker/web", "util/docker/web/foo", false),
        ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", true),
        (
            "**\n!dist/*.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            false,
        ),
        ("*\n!src\nsrc/secret*", "src/secret.txt", true),
        ("*\n!src\nsrc/secret*", "src/a/b", false),
        ("*.go", ".", false),
        ("*", "", false),
        ("", "any/path", false),
    ];
    for (text, path, expected) in table {
        assert_eq!(rules(text).excludes(path), expected, "{text:?} {path}");
    }
}

#[test]
fn reads_lines_as_moby_does() {
    // moby's TestReadAll, and each of: comments, blanks, CRLF, byte order mark, slashes at both ends, dots.
    let table = [
        ("test1", "test1"),
        ("/test2", "test2"),
        ("/a/file/here", "a/file/here"),
        ("! /inverted/abs/path", "!inverted/abs/path"),
        ("\u{feff}bom", "bom"),
        ("  blanks around \t", "blanks around"),
        ("crlf\r", "crlf"),
        ("folder/", "folder"),
        ("./a/./b/../c//d/", "a/c/d"),
        ("//a", "a"),
        ("a/..", "."),
        ("../a", "../a"),
        (" #no comment", "#no comment"),
        ("./!odd", "!odd"),
    ];
    for (line, expected) in table {
        let rules = rules(&format!("{line}\n# comment\n\n  \n"));
        let [rule] = rules.rules.as_slice() else {
            panic!("{line}: {rules:?}");
        };
        let mark = if rule.includes { "!" } else { "" };
        assert_eq!(format!("{mark}{}", rule.pattern), expected, "{line}");
    }
}

#[test]
fn refuses_bad_lines_with_their_place() {
    let errors = IgnoreRules::parse("ok\n  a[  \n!\n! \nb\\c\n[[:alpha:]]\n[z-a]\n", ".containerignore").unwrap_err();
    let found: Vec<(usize, usize, usize)> = errors
        .iter()
        .map(|error| error.span().map(|span| (span.line, span.column, span.length)).unwrap())
        .collect();
    assert_eq!(
        found,
        [(2, 3, 2), (3, 1, 1), (4, 1, 1), (5, 1, 3), (6, 1, 11), (7, 1, 5)]
    );
    assert!(
        errors.to_string().starts_with(
            ".containerignore:2:3: error: `a[` is not a pattern: `[` is not closed\n  2 |   a[  \n    |   ^^\n  hint: "
        ),
        "{errors}"
    );
    assert!(IgnoreRules::parse(&"a\n".repeat(LARGEST_FILE), "f").is_err());
}

#[test]
fn compiles_as_moby_does() {
    let kind = |pattern: &str| match Matcher::parse(pattern).unwrap() {
        Matcher::Exact(_) => "exact",
        Matcher::Prefix(_) => "prefix",
        Matcher::Suffix(_) => "suffix",
        Matcher::Tokens(_) => "regexp",
    };
    // moby's compileTests.
    let table = [
        ("*", "regexp"),
        ("file*", "regexp"),
        ("*file", "regexp"),
        ("a*/b", "regexp"),
        ("**", "suffix"),
        ("**/**", "regexp"),
        ("dir/**", "prefix"),
        ("**/dir", "suffix"),
        ("**/dir2/*", "regexp"),
        ("**/dir2/**", "regexp"),
        ("**file", "suffix"),
        ("**/file*txt", "regexp"),
        ("**/**/*.txt", "regexp"),
        ("a[b-d]e", "regexp"),
        (".*", "regexp"),
        ("abc.def", "exact"),
        ("abc?def", "regexp"),
        ("**/foo/bar", "suffix"),
        ("a(b)c/def", "exact"),
        ("a.|)$(}+{bc", "exact"),
    ];
    for (pattern, expected) in table {
        assert_eq!(kind(pattern), expected, "{pattern}");
    }
}

#[test]
fn tells_a_walk_which_folders_to_enter() {
    let table = [
        ("*\n!src", "node_modules", false),
        ("*\n!src/app/*.rs", "src", true),
        ("*\n!src/app/*.rs", "src/app", true),
        ("*\n!src/app/*.rs", "src/lib", false),
        ("*\n!src/app/*.rs", "src/app/deep", false),
        ("*\n!src/app/*.rs", "src/app/deep.rs", true),
        ("*\n!**/*.md", "any/where", true),
        ("*\n!s*/x", "src", true),
        ("*\n!s*/x", "doc", false),
        ("*\n![a-c]/x", "b", true),
        ("*", "src", false),
    ];
    for (text, path, expected) in table {
        assert_eq!(rules(text).may_contain_reincluded(path), expected, "{text:?} {path}");
    }
}

#[test]
fn many_stars_take_no_time() {
    let rules = rules(&format!("{}b", "*a**/".repeat(300)));
    assert!(!rules.excludes(&"a".repeat(4000)));
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "\\PC*", path in "\\PC*") {
        if let Ok(rules) = IgnoreRules::parse(&text, "f") {
            let _ = rules.excludes(&path);
            let _ = rules.may_contain_reincluded(&path);
        }
    }

    /// A walk that leaves out excluded folders unless told to enter them sees all files that are not excluded.
    #[test]
    fn walks_miss_nothing(
        text in "(!?[ab*?]{1,2}(/[ab*?]{1,2}){0,2}\n){1,4}",
        path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
    ) {
        let rules = rules(&text);
        let entered = path
            .match_indices('/')
            .map(|(end, _)| &path[..end])
            .all(|folder| !rules.excludes(folder) || rules.may_contain_reincluded(folder));
        assert!(entered || rules.excludes(&path), "{text:?} {path}");
    }
}
