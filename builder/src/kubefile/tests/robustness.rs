//! Nothing that can stand in a file makes the reader panic, hang, or point out of the file.

use proptest::prelude::*;

use super::*;

/// Pieces of Kubefiles, which meet more of the grammar than arbitrary text.
const PIECES: &[&str] = &[
    "FROM",
    "scratch",
    "ARG",
    "ENV",
    "LABEL",
    "COPY",
    "ADD",
    "APP",
    "CNI",
    "APPENV",
    "APPCMDS",
    "LAUNCH",
    "CMDS",
    "CMD",
    "KUBEVERSION",
    "RUN",
    "WORKDIR",
    "MAINTAINER",
    "# escape=`",
    "# escape=\\",
    "#",
    "--chmod=",
    "--chown=1:2",
    "--checksum=sha256:",
    "--platform=",
    "--",
    "=",
    "A",
    "A=1",
    "a",
    "é",
    "名",
    "$A",
    "${A",
    "${A:-",
    "${A:?",
    "}",
    "$",
    "$1",
    "'",
    "\"",
    "\\",
    "`",
    "[",
    "[\"",
    "\"]",
    ",",
    "]",
    "\\u00",
    "\\ud83d",
    "<<EOF",
    "<<-'E'",
    "<<",
    "EOF",
    "E",
    "local://",
    "https://",
    "h/x",
    "..",
    "/",
    ".",
    "*",
    "**",
    "?",
    "[a-",
    "\n",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\\\n",
    "\\ \n",
    "\t",
    " ",
    " ",
    " ",
    " ",
    "\u{feff}",
    "\u{a0}",
    "\u{1b}",
    "\0",
];

/// Reads everything that can be read, and shows everything that can be shown.
fn exercise(bytes: &[u8]) {
    let build_args = BuildArgs::from([("A".to_owned(), "$A*[".to_owned())]);
    let target = "linux/arm/v7".parse().unwrap();
    let check = |findings: &Diagnostics| {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.split('\n').collect();
        for finding in findings.iter() {
            let Some(span) = finding.span() else { continue };
            let line = lines[span.line - 1];
            assert!(span.column >= 1 && span.length >= 1);
            assert!(span.column <= line.chars().count() + 1, "{span:?} {line:?}");
        }
        let shown = findings.to_string();
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    };
    match Kubefile::load(bytes, "Kubefile", &build_args, &target) {
        Ok((kubefile, steps)) => {
            check(&kubefile.warnings());
            if let Err(errors) = kubefile.check(kubefile.check_apps(&BTreeSet::new())) {
                check(&errors);
            }
            assert!(matches!(steps.first().map(|step| &step.action), Some(Action::From(_))));
        }
        Err(errors) => {
            assert!(errors.iter().any(|finding| finding.severity() == Severity::Error));
            check(&errors);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn any_text(text in "(?s).{0,200}") {
        exercise(text.as_bytes());
        exercise(format!("FROM scratch\n{text}").as_bytes());
    }

    #[test]
    fn any_pieces(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)) {
        exercise(pieces.concat().as_bytes());
        exercise(pieces.join(" ").as_bytes());
        exercise(format!("FROM scratch\n{}", pieces.join(" ")).as_bytes());
    }

    /// A value in double quotes, with escapes, comes out as it was.
    #[test]
    fn quoting_keeps_values(value in "[^\\p{Cc}]{0,40}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        let steps = load(&format!("FROM scratch\nENV A=\"{quoted}\" B=x")).unwrap();
        let Action::Env(variables) = &steps[1].action else { panic!() };
        prop_assert_eq!(&variables[0].1, &value);
        let json = serde_json::to_string(&[&value]).unwrap();
        if !value.trim().is_empty() {
            let steps = load(&format!("FROM scratch\nCMDS {json}")).unwrap();
            prop_assert_eq!(&steps[1].action, &Action::Commands(vec![value]));
        }
    }

    /// What stands in a quoted heredoc comes out as it was.
    #[test]
    fn heredocs_keep_lines(lines in proptest::collection::vec("[^\\p{Cc}]{0,40}", 0..8)) {
        prop_assume!(!lines.iter().any(|line| line == "EOF"));
        let content: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let steps = load(&format!("FROM scratch\nCOPY <<'EOF' x\n{content}EOF\nENV A=1")).unwrap();
        prop_assert_eq!(steps.len(), 3);
        let Action::Copy(copy) = &steps[1].action else { panic!() };
        let SourceKind::Inline(file) = &copy.sources[0].kind else { panic!() };
        prop_assert_eq!(&file.content, &content);
    }
}

#[test]
fn large_files_take_little_time() {
    let started = std::time::Instant::now();
    let line = |text: &str| text.repeat((1 << 17) / text.len());
    let table = [
        format!("FROM scratch\nCOPY {} x/", line("a \\\n")),
        format!("FROM scratch\n{}", line("ARG A=1\n")),
        format!("FROM scratch\n{}", line("ENV A=$B\n")),
        format!("FROM scratch\n{}", line("x\n")),
        format!("FROM scratch\n{}", line("COPY <<E x\n")),
        format!("FROM scratch\nLAUNCH {}", line("a \\\n")),
        format!("FROM scratch\nCOPY <<E x\n{}E\n", line("$A\n")),
        format!("FROM scratch\nENV A={}", "${A:-".repeat(12_000)),
        format!("FROM scratch\nENV A={}", "\"'".repeat(30_000)),
        format!("FROM scratch\nCOPY [{}\"b\"]", line("\"a\",\\\n")),
        line("\\\n"),
    ];
    for text in table {
        exercise(text.as_bytes());
    }
    // Linear work takes a few seconds here; quadratic work would take minutes.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
