//! What is said about mistakes.

use sealrs_image::error::ErrorKind;
use sealrs_image::finding::listed;

use super::*;

const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Line, column and message of the first error, and how many there are.
fn first(text: &str) -> (usize, usize, String, usize) {
    let errors = load(text).map(|steps| steps.len()).expect_err(text);
    let error = errors.iter().next().unwrap();
    let (line, column) = error.span().map_or((0, 0), |span| (span.line, span.column));
    (line, column, error.message().to_owned(), errors.iter().count())
}

/// Texts behind `FROM scratch`, the column in line 2 (0: no place), and the beginning of the message.
#[rustfmt::skip]
const MISTAKES: &[(&str, usize, &str)] = &[
    // Instructions.
    ("COPPY a b", 1, "`COPPY` is not an instruction"),
    ("  frobnicate", 3, "`frobnicate` is not an instruction"),
    ("<html>", 1, "`<html>` is not an instruction"),
    ("WORKDIR /x", 1, "`WORKDIR` is not available in a Kubefile: no command runs"),
    ("entrypoint x", 1, "`ENTRYPOINT` is not available in a Kubefile"),
    ("RUN apt-get update", 1, "`RUN` is not available yet"),
    ("RUN <<EOF\nCOPPY\nEOF", 1, "`RUN` is not available yet"),
    ("RUN << EOF\nCOPPY\nEOF", 1, "`RUN` is not available yet"),
    // COPY and ADD.
    ("COPY", 1, "`COPY` needs a source and a destination"),
    ("COPY a", 1, "`COPY` needs a destination"),
    ("COPY []", 1, "`COPY` needs a source and a destination"),
    (r#"COPY ["a"]"#, 1, "`COPY` needs a destination"),
    (r#"COPY ["a", 1]"#, 12, "when using JSON array syntax"),
    (r#"COPY ["a", "b""#, 14, "a JSON array has `,` or `]`"),
    ("COPY ['a', 'b']", 7, "strings of a JSON array are in double quotes"),
    ("COPY a b # c", 10, "a comment can't follow an instruction"),
    ("COPY 'a b", 6, "this single quote is not closed"),
    ("COPY a\"b c", 7, "this double quote is not closed"),
    ("COPY --from=build a b", 6, "`COPY` has no flag `--from`"),
    ("COPY --link a b", 6, "`COPY` has no flag `--link`"),
    ("COPY --chmd=1 a b", 6, "`COPY` has no flag `--chmd`"),
    ("COPY --chmod a b", 6, "`--chmod` has no value"),
    ("COPY --chmod= a b", 6, "`--chmod` has no value"),
    ("COPY --chmod=1 --chmod=2 a b", 16, "`--chmod` is given twice"),
    ("COPY --chmod=888 a b", 14, "`888` is not a mode"),
    ("COPY --chmod=10000 a b", 14, "`10000` is not a mode"),
    ("COPY --chmod=+7 a b", 14, "`+7` is not a mode"),
    ("COPY --chmod=u+x a b", 14, "`u+x` is not a mode"),
    ("COPY --chown=bin:bin a b", 14, "`bin:bin` is not an owner"),
    ("COPY --chown=1: a b", 14, "`1:` is not an owner"),
    ("COPY --chown=+1 a b", 14, "`+1` is not an owner"),
    ("COPY --chown=4294967296 a b", 14, "`4294967296` is not an owner"),
    ("COPY --checksum=x a b", 6, "`COPY` has no flag `--checksum`"),
    ("COPY ../a b", 6, "`../a` leads out of the build context"),
    ("COPY a/../../b c", 6, "`a/../../b` leads out of the build context"),
    ("COPY a ../b", 8, "`../b` leads out of the rootfs"),
    ("COPY a /../b", 8, "`/../b` leads out of the rootfs"),
    ("COPY \"\" b", 6, "the path is empty"),
    ("COPY a \"\"", 8, "the path is empty"),
    (r#"COPY ["a\nb", "c"]"#, 8, "`a\\u{a}b` has a control character"),
    ("COPY a b c", 10, "several sources need a folder"),
    ("COPY a[ b", 6, "`a[` is not a pattern: `[` is not closed"),
    ("COPY [z-a] b", 6, "`[z-a]` is not a pattern: a range"),
    ("COPY https://h/x y", 6, "`COPY` takes files of the build context only"),
    ("COPY local://x y", 6, "`local://` is not for `COPY`"),
    ("ADD s3://b/x y", 5, "`s3://` can't be fetched"),
    ("ADD https:///x y", 5, "the URL has no host"),
    ("ADD https://u:p@h/x y", 5, "the URL has credentials"),
    ("ADD https://h/x.git y", 5, "git repositories can't be added"),
    ("ADD https://h/ y/", 5, "the URL's path does not end with a file's name"),
    ("ADD --checksum=sha256:12 https://h/x y", 16, "`sha256:12` is not a digest"),
    ("ADD --checksum=md5:12 https://h/x y", 16, "`md5:12` is not a digest: only sha256"),
    ("ADD --checksum=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 x y", 16, "`--checksum` is for one"),
    // Heredocs.
    ("COPY <<EOF x\na\n EOF", 6, "this heredoc is not closed: no line consists of `EOF`"),
    ("COPY <<'EOF x", 6, "this heredoc has no delimiter"),
    ("COPY <<'' x", 6, "this heredoc has no delimiter"),
    ("COPY << EOF x\nEOF", 6, "a heredoc's delimiter must follow its `<<` at once"),
    ("COPY 3<<EOF x\nEOF", 6, "a heredoc that is copied has no file descriptor"),
    ("COPY a <<EOF\nEOF", 8, "a heredoc can't be the destination"),
    ("COPY <<a/b x\na/b", 6, "a heredoc's delimiter is also its file's name"),
    ("COPY <<.. x\n..", 6, "a heredoc's delimiter is also its file's name"),
    // APP and its kin.
    ("APP", 1, "`APP` needs an app's name"),
    ("APP a", 1, "`APP` needs a source"),
    (r#"CNI ["a"]"#, 1, "`CNI` needs a source"),
    ("APP a redis.yaml", 7, "a source needs a scheme"),
    ("APP a ftp://h/x", 7, "`ftp://h/x` can't be fetched"),
    ("APP a https://h/", 7, "the URL's path does not end with a file's name"),
    ("APP a local://../x", 7, "`../x` leads out of the build context"),
    ("APP a local://", 7, "the path is empty"),
    ("APP Redis local://x", 5, "`Redis` can't be the name of an app"),
    ("APP a/b local://x", 5, "`a/b` can't be the name of an app"),
    ("APP .. local://x", 5, "`..` can't be the name of an app"),
    ("APP a- local://x", 5, "`a-` can't be the name of an app"),
    ("APP \"\" local://x", 5, "`` can't be the name of an app"),
    ("APPENV", 1, "`APPENV` needs an app's name"),
    ("APPENV a", 1, "`APPENV` needs a variable"),
    ("APPENV K=V", 1, "`APPENV` needs an app"),
    ("APPENV a 1K=V", 10, "`1K` can't be the name of a variable"),
    ("APPCMDS a", 1, "`APPCMDS` needs a command"),
    ("APPCMDS a []", 1, "`APPCMDS` needs a command"),
    (r#"APPCMDS a ["x", " "]"#, 18, "a command can't be empty"),
    (r#"CMDS [ "$a" = b ] && c"#, 13, "a JSON array has `,` or `]`"),
    ("CMDS", 1, "`CMDS` needs a command"),
    ("CMD", 1, "`CMD` needs a command"),
    ("CMD --x y", 5, "`CMD` has no flag `--x`"),
    ("LAUNCH", 1, "`LAUNCH` needs an app"),
    ("LAUNCH a b a", 12, "`a` is launched twice"),
    ("LAUNCH [calico]", 8, "`[calico]` can't be the name of an app"),
    // ARG, ENV, LABEL and others.
    ("ARG", 1, "`ARG` needs a name"),
    ("ARG A = b", 7, "a variable's name is missing"),
    ("ARG $A=1", 5, "`$A` can't be the name of a variable"),
    ("ENV", 1, "`ENV` needs a name and a value"),
    ("ENV A", 1, "`ENV` needs a value"),
    ("ENV A = b", 7, "there can't be blanks around `=`"),
    ("ENV A=b c", 9, "`c` has no `=`"),
    ("ENV =b", 5, "a variable's name is missing"),
    ("ENV a-b=c", 5, "`a-b` can't be the name of a variable"),
    ("LABEL", 1, "`LABEL` needs a name and a value"),
    ("LABEL \"\"=x", 7, "a label needs a name"),
    ("LABEL a=b c", 11, "`c` has no `=`"),
    ("LABEL a=b # c", 11, "a comment can't follow"),
    ("KUBEVERSION", 1, "`KUBEVERSION` needs a version constraint"),
    ("MAINTAINER", 1, "`MAINTAINER` needs a name"),
    // Order.
    ("FROM b", 1, "a Kubefile has one stage"),
    ("LAUNCH a\nCOPY a b", 1, "launch should be the last instruction"),
    ("CMDS a\nCOPY a b", 1, "cmds should be the last instruction"),
    ("COPY a \\\n  b \\\n c", 0, ""),
];

#[test]
fn mistakes() {
    for &(text, column, message) in MISTAKES {
        let (line, found_column, found, count) = first(&format!("FROM scratch\n{text}"));
        assert_eq!(count, 1, "{text}: {found}");
        if message.is_empty() {
            // Marked on the continued line where it stands.
            assert_eq!((line, found_column), (4, 2), "{text}");
        } else {
            assert_eq!((line, found_column), (2, column), "{text}: {found}");
            assert!(found.starts_with(message), "{text}: {found}");
        }
    }
}

#[test]
fn mistakes_around_from_and_of_several_lines() {
    let table = [
        ("", 0, 0, "the file has no instructions"),
        ("# only a comment\n", 0, 0, "the file has no instructions"),
        ("COPY a b\n", 0, 0, "the file has no `FROM`"),
        ("COPY a b\nFROM scratch", 1, 1, "`COPY` can't stand before `FROM`"),
        ("FROM", 1, 1, "`FROM` needs an image"),
        (
            "FROM kubernetes:1.18.0 # Base Image",
            1,
            24,
            "a comment can't follow an instruction",
        ),
        ("FROM a b", 1, 8, "`FROM` takes one image"),
        ("FROM \"\"", 1, 6, "`` is not the name of an image"),
        ("FROM $X", 1, 6, "`X` is not declared"),
        ("FROM --platform=x a", 1, 17, "`x` is not a platform"),
        ("FROM --platfrom=x a", 1, 6, "`FROM` has no flag `--platfrom`"),
        ("# escape=x\nFROM scratch", 1, 1, "invalid ESCAPE `x`"),
        (
            "# escape=`\n# escape=`\nFROM scratch",
            2,
            1,
            "only one escape parser directive can be used",
        ),
        (
            "FROM scratch\nLAUNCH a\nLAUNCH b",
            3,
            1,
            "only one launch could be specified",
        ),
        (
            "FROM scratch\nKUBEVERSION 1\nKUBEVERSION 2",
            3,
            1,
            "only one kubeversion could be specified",
        ),
        (
            "FROM scratch\nCMD a\nLAUNCH b",
            2,
            1,
            "cmd and launch are mutually exclusive",
        ),
        (
            "FROM scratch\nCMDS a\nLAUNCH b",
            3,
            1,
            "`LAUNCH` and `CMDS` are mutually exclusive",
        ),
        (
            "FROM scratch\nAPP a local://x\nAPP a local://y",
            3,
            5,
            "the app `a` is defined twice, first in line 2",
        ),
        (
            "FROM scratch\nAPPCMDS a x\nAPPCMDS a y",
            3,
            9,
            "the app `a` has commands already, in line 2",
        ),
        (
            "FROM scratch\nCOPY <<EOF x\n\u{e9} $X\nEOF",
            3,
            3,
            "`X` is not declared",
        ),
        ("FROM scratch\nCOPY <<-EOF x\n\t\t$1\nEOF", 3, 3, "`$1` has no value"),
        ("FROM scratch\nCOPY a \\\n# c\n   $X x/", 4, 4, "`X` is not declared"),
        (
            "FROM scratch\nCOPY [\"a\", \\\n \"\\u0041$X\", \"c/\"]",
            3,
            9,
            "`X` is not declared",
        ),
        ("FROM scratch\nCOPY a\0 b", 2, 7, "the file has a NUL byte"),
    ];
    for (text, line, column, message) in table {
        let found = first(text);
        assert_eq!((found.0, found.1), (line, column), "{text}: {}", found.2);
        assert!(found.2.starts_with(message), "{text}: {}", found.2);
    }
}

#[test]
fn files_that_are_no_text() {
    let target = "linux/amd64".parse().unwrap();
    let error = |bytes: &[u8]| {
        let errors = Kubefile::load(bytes, "Kubefile", &BuildArgs::new(), &target).expect_err("no text");
        errors.to_string()
    };
    assert_eq!(
        error("FROM scratch\nCOPY é\u{e9}".as_bytes().strip_suffix(&[0xa9]).unwrap()),
        "Kubefile:2:7: error: the file is not UTF-8 here\n  2 | COPY é\u{fffd}\n    |       ^\n  hint: save it as UTF-8"
    );
    // UTF-16.
    assert!(error(b"\xff\xfeF\0R\0").contains("not UTF-8"));
    assert!(error(&vec![b'\n'; (1 << 20) + 1]).contains("more than the 1048576"));
    let long = format!("FROM scratch\nENV A={}", "x".repeat(1 << 16));
    assert!(error(long.as_bytes()).contains("more than the 65536"));
}

/// The texts as a user sees them.
#[test]
fn several_mistakes_are_shown_together() {
    let text = "\
FROM scratch
WORKDIR /opt
COYP rootfs .
COPY --from=build a b
COPY app.yaml \\
     ../../etc/passwd
ADD --checksum=sha256:12 https://example.com/k3s bin/
APP redis redis.yaml
ENV GREETING=$NAME
CMDS [\"kubectl apply\", true]
";
    let errors = Error::from(load(text).expect_err("mistakes"));
    assert_eq!(errors.to_string(), "Kubefile has 8 errors");
    assert_eq!(
        listed(errors.findings()),
        "\
Kubefile:2:1: error: `WORKDIR` is not available in a Kubefile: no command runs in a ClusterImage, so it has no working directory
  2 | WORKDIR /opt
    | ^^^^^^^
  hint: write the folder in the destination of `COPY` or `ADD`

Kubefile:3:1: error: `COYP` is not an instruction
  3 | COYP rootfs .
    | ^^^^
  hint: did you mean `COPY`?

Kubefile:4:6: error: `COPY` has no flag `--from`
  4 | COPY --from=build a b
    |      ^^^^^^^^^^^^
  hint: a Kubefile has one stage: build the files before, and copy them from the build context

Kubefile:6:6: error: `../../etc/passwd` leads out of the rootfs
  6 |      ../../etc/passwd
    |      ^^^^^^^^^^^^^^^^
  hint: write a path below the rootfs, without `..` at its beginning

Kubefile:7:16: error: `sha256:12` is not a digest: it has not 64 hex digits
  7 | ADD --checksum=sha256:12 https://example.com/k3s bin/
    |                ^^^^^^^^^
  hint: a digest is `sha256:` and 64 lower-case hex digits

Kubefile:8:11: error: a source needs a scheme: `local://`, `http://` or `https://`
  8 | APP redis redis.yaml
    |           ^^^^^^^^^^
  hint: write `local://redis.yaml` for a file of the build context

Kubefile:9:14: error: `NAME` is not declared
  9 | ENV GREETING=$NAME
    |              ^^^^^
  hint: declare it with `ARG NAME`; write `${NAME:-}` if it may be empty, or `\\$` for a dollar sign

Kubefile:10:24: error: when using JSON array syntax, arrays must be comprised of strings only
  10 | CMDS [\"kubectl apply\", true]
     |                        ^
  hint: write `[\"a\", \"b\"]`; for a shell's test, write `test … && …` instead of `[ … ] && …`"
    );
}

#[test]
fn mistakes_with_variables_are_shown_together() {
    let text = "\
ARG VERSION=v1
FROM scratch
ARG REPOSITORY
ADD https://example.com/$VERSION/k3s bin/
ENV A=1 WHERE=\"é $REPOSITORI\"
LABEL from=$REPOSITORY
COPY <<EOF start.sh
exec \"$@\"
EOF
";
    let errors = load_with(text, &[("VERSOIN", "v2")]).expect_err("mistakes");
    assert_eq!(
        errors.to_string(),
        "\
Kubefile: error: no `ARG` takes `--build-arg VERSOIN`
  hint: did you mean `--build-arg VERSION=…`?

Kubefile:4:25: error: `VERSION` is declared before `FROM`, which hides it here
  4 | ADD https://example.com/$VERSION/k3s bin/
    |                         ^^^^^^^^
  hint: declare it again after `FROM`: `ARG VERSION`

Kubefile:5:18: error: `REPOSITORI` is not declared
  5 | ENV A=1 WHERE=\"é $REPOSITORI\"
    |                  ^^^^^^^^^^^
  hint: did you mean `REPOSITORY`? Otherwise declare it with `ARG REPOSITORI`

Kubefile:6:12: error: `REPOSITORY` has no value
  6 | LABEL from=$REPOSITORY
    |            ^^^^^^^^^^^
  hint: pass `--build-arg REPOSITORY=VALUE`, give it a default with `ARG REPOSITORY=VALUE`, or write `${REPOSITORY:-}` if it may be empty

Kubefile:8:7: error: `$@` has no value in a Kubefile
  8 | exec \"$@\"
    |       ^
  hint: write `\\$` for a dollar sign, or quote the delimiter (`<<'EOF'`) to take all lines as they are"
    );
}

#[test]
fn later_stages_show_the_line_too() {
    let target = "linux/amd64".parse().unwrap();
    let text = b"FROM scratch\nCOPY app.yaml missing.yaml manifests/\n";
    let (kubefile, steps) = Kubefile::load(text, "dir/Kubefile", &BuildArgs::new(), &target).unwrap();
    let Action::Copy(copy) = &steps[1].action else {
        panic!("{steps:?}")
    };
    let missing = Error::new(ErrorKind::NotFound, "`missing.yaml` is not in the build context")
        .because("somebody moved it")
        .hint("create it");
    let error = kubefile.error(vec![Diagnostic::failure(copy.sources[1].span, &missing)]);
    assert_eq!(error.to_string(), "dir/Kubefile has an error");
    assert_eq!(
        listed(error.findings()),
        "\
dir/Kubefile:2:15: error: `missing.yaml` is not in the build context
  2 | COPY app.yaml missing.yaml manifests/
    |               ^^^^^^^^^^^^
  cause: somebody moved it
  hint: create it"
    );
    assert_eq!((error.kind(), error.remedy()), (ErrorKind::NotFound, Some("create it")));
}

#[test]
fn a_checksum_fits_one_url_only() {
    for sources in ["x y", "https://h/a https://h/b z/", "<<EOF y\nEOF"] {
        let (_, _, message, count) = first(&format!("FROM scratch\nADD --checksum=sha256:{HEX} {sources}"));
        assert_eq!(
            (message.as_str(), count),
            ("`--checksum` is for one `http://` or `https://` source", 1),
            "{sources}"
        );
    }
}
