//! Variables: which ones there are, and what each form gives.

use super::*;

/// What `word` gives as a value of ENV; an error's first message behind `!`.
fn expanded(word: &str) -> String {
    let text = format!("FROM scratch\nENV PWD=/home SHELL=bash KOREAN=한국어 NULL=\nENV A={word}");
    match load(&text) {
        Ok(steps) => match &steps[2].action {
            Action::Env(variables) => variables[0].1.clone(),
            other => panic!("{other:?}"),
        },
        Err(errors) => format!("!{}", errors.iter().next().unwrap().message()),
    }
}

/// From BuildKit's `envVarTest`: all rows where an empty text does not stand for a variable that is not there.
#[rustfmt::skip]
const AS_DOCKER: &[(&str, Option<&str>)] = &[
    ("hello", Some("hello")),
    ("he'll'o", Some("hello")),
    ("he'llo", None),
    (r"he\'llo", Some("he'llo")),
    (r"he\\'llo", None),
    (r"abc\tdef", Some("abctdef")),
    (r#""abc\tdef""#, Some(r"abc\tdef")),
    (r#""abc\\tdef""#, Some(r"abc\tdef")),
    (r"'abc\tdef'", Some(r"abc\tdef")),
    (r"hello\\", Some(r"hello\")),
    (r#""hello"#, None),
    (r#""hello\""#, None),
    (r#""hel'lo""#, Some("hel'lo")),
    ("'hello", None),
    (r"'hello\'", Some(r"hello\")),
    (r"'hello\there'", Some(r"hello\there")),
    (r"'hello\\there'", Some(r"hello\\there")),
    (r#""''""#, Some("''")),
    ("$.", Some("$.")),
    ("he$.x", Some("he$.x")),
    ("he$PWD", Some("he/home")),
    (r"he\$PWD", Some("he$PWD")),
    (r"he\\$PWD", Some(r"he\/home")),
    (r#""he\$PWD""#, Some("he$PWD")),
    (r#""he\\$PWD""#, Some(r"he\/home")),
    (r"\${}", Some("${}")),
    (r"he\${}xx", Some("he${}xx")),
    ("${}", None),
    ("he${}xx", None),
    ("he${PWD}", Some("he/home")),
    ("he${.}", None),
    ("he${XXX:-000}xx", Some("he000xx")),
    ("he${PWD:-000}xx", Some("he/homexx")),
    ("he${XXX:-$PWD}xx", Some("he/homexx")),
    ("he${XXX:-${PWD:-yyy}}xx", Some("he/homexx")),
    ("he${XXX:-${YYY:-yyy}}xx", Some("heyyyxx")),
    ("he${XXX:YYY}", None),
    ("he${XXX?}", None),
    ("he${XXX:?}", None),
    ("he${PWD?}", Some("he/home")),
    ("he${PWD:?}", Some("he/home")),
    ("he${NULL?}", Some("he")),
    ("he${NULL:?}", None),
    ("he${XXX:+${PWD}}xx", Some("hexx")),
    ("he${PWD:+${SHELL}}xx", Some("hebashxx")),
    ("he${XXX:+000}xx", Some("hexx")),
    ("he${PWD:+000}xx", Some("he000xx")),
    ("'he${XX}'", Some("he${XX}")),
    (r#""he${PWD}""#, Some("he/home")),
    (r#""he'$PWD'""#, Some("he'/home'")),
    (r"'\$PWD'", Some(r"\$PWD")),
    (r#"'"hello"'"#, Some(r#""hello""#)),
    ("he${PWD", None),
    ("he${PWD:=000}xx", None),
    ("he${PWD:+${PWD}:}xx", Some("he/home:xx")),
    (r"he${XXX:-\$PWD:}xx", Some("he$PWD:xx")),
    (r"he${XXX:-\${PWD}z}xx", Some("he${PWDz}xx")),
    ("안'녕'하세요", Some("안녕하세요")),
    (r"안녕\t하세요", Some("안녕t하세요")),
    ("안녕$KOREAN", Some("안녕한국어")),
    ("안녕$PWD", Some("안녕/home")),
    ("${{aaa}", None),
    ("${{aaa:-bbb}", None),
    ("${aaa:-bbb}}", Some("bbb}")),
    ("${aaa:-bbb", None),
    ("${aaa:-${bbb:-ccc}}", Some("ccc")),
    ("${:}", None),
    ("${:-bbb}", None),
    ("${:+bbb}", None),
];

#[test]
fn expands_as_docker_does() {
    for &(word, expected) in AS_DOCKER {
        let found = expanded(word);
        let found = (!found.starts_with('!')).then_some(found);
        assert_eq!(found.as_deref(), expected, "{word}");
    }
}

#[test]
fn forms() {
    let table = [
        // With and without colon: an empty value counts, or not.
        ("${NULL-d}", ""),
        ("${NULL:-d}", "d"),
        ("${XXX-d}", "d"),
        ("${NULL+d}", "d"),
        ("${NULL:+d}", ""),
        ("${XXX+d}", ""),
        ("${XXX:-}", ""),
        ("${PWD:-$XXX}", "/home"),
        ("${XXX:+$YYY}", ""),
        (r#""${XXX:-a b}""#, "a b"),
        (r#""${XXX:-"a" 'b'}""#, "a b"),
        ("$PWD$SHELL", "/homebash"),
        ("$PWDX", "!`PWDX` is not declared"),
        ("$(date)", "$(date)"),
        ("a$", "a$"),
        ("$한국", "$한국"),
        // Where Docker would put nothing.
        ("$XXX", "!`XXX` is not declared"),
        ("${XXX}", "!`XXX` is not declared"),
        ("${PWD:+$XXX}", "!`XXX` is not declared"),
        ("$1", "!`$1` has no value in a Kubefile"),
        ("pa$$word", "!`$$` has no value in a Kubefile"),
        ("${XXX:?say it}", "!`${` is not closed"),
        (r#""${XXX:?say $PWD}""#, "!`XXX` has no value: say /home"),
        ("${XXX?}", "!`XXX` has no value: it is required here"),
        ("${XXX#a}", "!`#` can't follow a variable's name"),
        ("${XXX/a/b}", "!`/` can't follow a variable's name"),
    ];
    for (word, expected) in table {
        assert_eq!(expanded(word), expected, "{word}");
    }
}

#[test]
fn scopes() {
    // Text, build arguments, all environment variables or the first error.
    type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let table: &[Row] = &[
        ("FROM scratch\nARG A=1\nENV X=$A", &[], r#"X="1""#),
        ("FROM scratch\nARG A=1\nENV X=$A", &[("A", "2")], r#"X="2""#),
        ("FROM scratch\nARG A\nENV X=$A", &[("A", "2")], r#"X="2""#),
        ("FROM scratch\nARG A\nENV X=$A", &[], "`A` has no value"),
        ("FROM scratch\nARG A\nENV X=${A:-d}", &[], r#"X="d""#),
        ("FROM scratch\nARG A=\nENV X=$A", &[], r#"X="""#),
        ("FROM scratch\nENV X=$A\nARG A=1", &[], "`A` is not declared"),
        // Before FROM.
        (
            "ARG A=1\nFROM scratch\nENV X=$A",
            &[],
            "`A` is declared before `FROM`, which hides it here",
        ),
        ("ARG A=1\nFROM scratch\nENV X=${A-d}", &[], r#"X="d""#),
        ("ARG A=1\nFROM scratch\nARG A\nENV X=$A", &[], r#"X="1""#),
        ("ARG A=1\nFROM scratch\nARG A=2\nENV X=$A", &[], r#"X="2""#),
        ("ARG A=1\nFROM scratch\nARG A=2\nENV X=$A", &[("A", "3")], r#"X="3""#),
        ("ARG A\nFROM scratch\nARG A\nENV X=$A", &[("A", "3")], r#"X="3""#),
        // ENV wins over ARG, wherever it stands.
        (
            "FROM scratch\nENV A=env\nARG A=arg\nENV X=$A",
            &[],
            r#"A="env" X="env""#,
        ),
        (
            "FROM scratch\nARG A=arg\nENV A=env\nENV X=$A",
            &[("A", "b")],
            r#"A="env" X="env""#,
        ),
        // An instruction sees what was before it.
        ("FROM scratch\nENV A=1\nENV A=2 B=$A", &[], r#"A="1" A="2" B="1""#),
        ("FROM scratch\nARG A=1\nARG A=2 B=$A\nENV X=$A$B", &[], r#"X="21""#),
        // Automatic ones; those with a name of their own win.
        (
            "FROM scratch\nENV X=$ARCH-$TARGETARCH-$TARGETOS-$TARGETPLATFORM-$TARGETVARIANT",
            &[],
            r#"X="amd64-amd64-linux-linux/amd64-""#,
        ),
        (
            "FROM scratch\nARG ARCH\nARG TARGETARCH\nENV X=$ARCH$TARGETARCH",
            &[],
            r#"X="amd64amd64""#,
        ),
        ("FROM scratch\nARG ARCH=mine\nENV X=$ARCH", &[], r#"X="mine""#),
        (
            "FROM scratch\nARG ARCH\nENV X=$ARCH",
            &[("ARCH", "given")],
            r#"X="given""#,
        ),
        // Build arguments that nobody takes.
        ("FROM scratch\nENV B=1", &[("B", "2")], "no `ARG` takes `--build-arg B`"),
        (
            "FROM scratch\nARG VERSION=1",
            &[("VERSOIN", "2")],
            "no `ARG` takes `--build-arg VERSOIN`",
        ),
        (
            "FROM scratch",
            &[("ARCH", "arm64")],
            "no `ARG` takes `--build-arg ARCH`",
        ),
    ];
    for &(text, build_args, expected) in table {
        let found = match load_with(text, build_args) {
            Ok(steps) => {
                let variables = steps
                    .iter()
                    .filter_map(|step| show(step).strip_prefix("env ").map(str::to_owned));
                variables.collect::<Vec<_>>().join(" ")
            }
            Err(errors) => errors.iter().next().unwrap().message().to_owned(),
        };
        assert_eq!(found, expected, "{text} {build_args:?}");
    }
}

#[test]
fn every_instruction_that_expands_does() {
    let table = [
        (
            "COPY --chmod=$M --chown=$U:$U $ARCH/* ${D}/",
            r#"copy amd64/* -> "dest"/ mode 644 owner 7:7"#,
        ),
        (r#"COPY ["$ARCH", "\\$D"]"#, r#"copy amd64 -> "$D""#),
        ("COPY '$D' \\$D $D \"${D}\" x/", r#"copy $D $D dest dest -> "x"/"#),
        (
            "ADD https://h/$D-${ARCH}.tgz x",
            r#"add <https://h/dest-amd64.tgz> -> "x""#,
        ),
        ("APP my-$D local://$D/$ARCH", "app my-dest dest/amd64"),
        (r#"APP ["my-$D", "local://$D"]"#, "app my-dest dest"),
        ("CNI $D local://$D", "cni dest dest"),
        ("CSI $D local://$D", "csi dest dest"),
        ("APPENV $D K=$ARCH", r#"appenv dest K="amd64""#),
        ("APPCMDS $D echo $D $HOME", r#"appcmds dest ["echo $D $HOME"]"#),
        (r#"APPCMDS $D ["echo $HOME"]"#, r#"appcmds dest ["echo $HOME"]"#),
        ("LAUNCH $D", "launch dest"),
        (r#"LAUNCH ["$D"]"#, "launch dest"),
        ("CMDS echo $HOME $1", r#"commands ["echo $HOME $1"]"#),
        (r#"CMDS ["echo $HOME $1"]"#, r#"commands ["echo $HOME $1"]"#),
        ("CMD echo $HOME", r#"commands ["echo $HOME"]"#),
        ("LABEL $D/x=$ARCH", r#"label dest/x="amd64""#),
        ("KUBEVERSION >=1.$U", "kubeversion >=1.7"),
        ("MAINTAINER $D", "maintainer $D"),
    ];
    for (text, expected) in table {
        let found = shown(&format!("ARG M=644 U=7 D=dest\n{text}"));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn one_mistake_is_told_once() {
    let text = "FROM scratch\nARG A=$NONE\nENV B=$A\nARG C=$B\nCOPY $C x\nENV D=$A$NONE";
    let errors = load(text).unwrap_err();
    let lines: Vec<usize> = errors.iter().map(|error| error.span().unwrap().line).collect();
    assert_eq!(lines, [2, 6], "{errors}");
}

#[test]
fn growth_has_a_limit() {
    let doubling: String = (1..64).map(|n| format!("ARG A{n}=$A{m}$A{m}\n", m = n - 1)).collect();
    let errors = load(&format!("FROM scratch\nARG A0=0123456789\n{doubling}")).unwrap_err();
    let first = errors.iter().next().unwrap();
    assert!(
        first.message().contains("more than 16777216 bytes"),
        "{}",
        first.message()
    );

    let nested = format!("FROM scratch\nENV A={}x{}", "${X:-".repeat(17), "}".repeat(17));
    assert!(
        load(&nested)
            .unwrap_err()
            .to_string()
            .contains("nested more than 16 deep")
    );
    let nested = format!("FROM scratch\nENV A={}x{}", "${X:-".repeat(16), "}".repeat(16));
    assert!(load(&nested).is_ok());
}
