//! What each instruction takes, and how lines become instructions.

use super::*;

const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn instructions() {
    let table = [
        // COPY
        ("COPY a b", r#"copy a -> "b""#),
        ("copy a b", r#"copy a -> "b""#),
        ("Copy\ta  \t b  ", r#"copy a -> "b""#),
        ("COPY rootfs .", r#"copy rootfs -> ""/"#),
        ("COPY a b c /etc/", r#"copy a b c -> "etc"/"#),
        ("COPY . /", r#"copy . -> ""/"#),
        ("COPY / x/", r#"copy . -> "x"/"#),
        ("COPY /abs/./x//y ./z", r#"copy abs/x/y -> "z""#),
        (
            "COPY *.yaml conf?/[a-c]* manifests/",
            r#"copy *.yaml conf?/[a-c]* -> "manifests"/"#,
        ),
        ("COPY **/*.yaml manifests/", r#"copy **/*.yaml -> "manifests"/"#),
        ("COPY [a-c]*.txt x/", r#"copy [a-c]*.txt -> "x"/"#),
        ("COPY arr[[]0].txt x", r#"copy arr[[]0].txt -> "x""#),
        (
            r#"COPY "my file" 'other file' dest\ dir/"#,
            r#"copy my file other file -> "dest dir"/"#,
        ),
        (
            r#"COPY ["my file", "it's", "dest dir/"]"#,
            r#"copy my file it's -> "dest dir"/"#,
        ),
        (
            "COPY --chmod=0755 --chown=1000:100 a b",
            r#"copy a -> "b" mode 755 owner 1000:100"#,
        ),
        (
            "COPY --chmod=4755 --chown=0 a b",
            r#"copy a -> "b" mode 4755 owner 0:0"#,
        ),
        ("COPY --chown=root:root a b", r#"copy a -> "b" owner 0:0"#),
        ("COPY -- --odd b", r#"copy --odd -> "b""#),
        (r##"COPY "#" b"##, r##"copy # -> "b""##),
        ("COPY a=b c", r#"copy a=b -> "c""#),
        ("COPY a#b c", r#"copy a#b -> "c""#),
        ("COPY 名前 b", r#"copy 名前 -> "b""#),
        // ADD
        ("ADD a.tar.gz /opt", r#"add a.tar.gz -> "opt""#),
        ("ADD https://h/a/k3s bin/", r#"add <https://h/a/k3s> -> "bin"/"#),
        ("ADD http://h/ bin/k3s", r#"add <http://h/> -> "bin/k3s""#),
        ("ADD a https://h/b x/", r#"add a <https://h/b> -> "x"/"#),
        (r#"ADD ["https://h/b", "x"]"#, r#"add <https://h/b> -> "x""#),
        // APP, CNI, CSI
        ("APP redis local://redis.yaml", "app redis redis.yaml"),
        ("APP a.b_c-1 local://x local://dir/*.yaml", "app a.b_c-1 x dir/*.yaml"),
        ("APP a https://h/mysql.tgz", "app a <https://h/mysql.tgz>"),
        (r#"APP ["a", "local://my file"]"#, "app a my file"),
        (r#"APP a ["local://x", "local://y"]"#, "app a x y"),
        ("APP a local://.", "app a ."),
        ("CNI calico local://calico.sh", "cni calico calico.sh"),
        ("csi x local://y", "csi x y"),
        // APPENV, APPCMDS
        (
            "APPENV a domain=example.com B='x y'",
            r#"appenv a domain="example.com" B="x y""#,
        ),
        ("APPENV a K some value", r#"appenv a K="some value""#),
        (
            r#"APPCMDS biz ["bash","install.sh"]"#,
            r#"appcmds biz ["bash", "install.sh"]"#,
        ),
        (
            r#"APPCMDS m ["kubectl apply -f app.yaml"]"#,
            r#"appcmds m ["kubectl apply -f app.yaml"]"#,
        ),
        (
            "APPCMDS a echo \"$HOME\" && ls",
            r#"appcmds a ["echo \"$HOME\" && ls"]"#,
        ),
        // LAUNCH, CMDS, CMD
        ("LAUNCH a b", "launch a b"),
        (r#"LAUNCH ["calico", "redis"]"#, "launch calico redis"),
        (r#"CMDS ["a b", "c"]"#, r#"commands ["a b", "c"]"#),
        (
            "CMDS kubectl apply -f x.yaml",
            r#"commands ["kubectl apply -f x.yaml"]"#,
        ),
        ("CMDS [ -f /x ] && echo '$A'", r#"commands ["[ -f /x ] && echo '$A'"]"#),
        (
            "CMD helm list | grep \"a b\"  # all",
            r#"commands ["helm list | grep \"a b\"  # all"]"#,
        ),
        (r#"CMD ["echo", "it's", "", "a=b"]"#, "error"),
        (
            r#"CMD ["echo", "it's", "a=b", "$X"]"#,
            r#"commands ["echo 'it'\\''s' a=b '$X'"]"#,
        ),
        (r#"CMD ["kubectl apply -f x"]"#, r#"commands ["kubectl apply -f x"]"#),
        ("CMD a\nCMDS b", "commands [\"a\"]\ncommands [\"b\"]"),
        // ENV, LABEL, KUBEVERSION, MAINTAINER
        ("ENV A=1 B=\"x y\" C='z' D=a\\ b", r#"env A="1" B="x y" C="z" D="a b""#),
        ("ENV A=", r#"env A="""#),
        ("ENV A=b=c==", r#"env A="b=c==""#),
        ("ENV ONE TWO= THREE=world", r#"env ONE="TWO= THREE=world""#),
        (r#"ENV A "x"  y"#, r#"env A="x  y""#),
        (
            r#"LABEL "cluster.alpha.sealer.io/cluster-runtime-type"="k3s""#,
            r#"label cluster.alpha.sealer.io/cluster-runtime-type="k3s""#,
        ),
        (r#"LABEL a="x=y z" "b=c"=d"#, r#"label a="x=y z" b=c="d""#),
        ("LABEL a b c", r#"label a="b c""#),
        ("KUBEVERSION >=1.19 <1.25", "kubeversion >=1.19 <1.25"),
        (r#"KUBEVERSION ">=1.19""#, "kubeversion >=1.19"),
        ("MAINTAINER A B <a@b.c>", "maintainer A B <a@b.c>"),
        ("ARG X\nARG Y=1 Z", ""),
    ];
    for (text, expected) in table {
        let found = shown(text);
        if expected == "error" {
            assert!(found.starts_with("error: "), "{text}: {found}");
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn lines() {
    let table = [
        // Continued lines, with comments and blank lines between.
        ("COPY a \\\n  b/", r#"copy a -> "b"/"#),
        ("COPY a\\\n b/", r#"copy a -> "b"/"#),
        ("COPY \\  \n  a \\\t\n b", r#"copy a -> "b""#),
        ("COPY a \\\n# comment\n   # comment\n b", r#"copy a -> "b""#),
        ("COPY a \\\n\n   \n b", r#"copy a -> "b""#),
        ("CO\\\nPY a b", r#"copy a -> "b""#),
        ("COPY a b \\", r#"copy a -> "b""#),
        ("COPY a b \\\n# comment", r#"copy a -> "b""#),
        // An escaped escape does not continue; a third one does.
        ("ENV A=x\\\\\nENV B=y", "env A=\"x\\\\\"\nenv B=\"y\""),
        ("ENV A=x\\\\\\\ny", r#"env A="x\\y""#),
        ("\\\nCOPY a b", r#"copy a -> "b""#),
        // Comments, blanks, line ends.
        ("# c\n\n   # c\n  COPY a b\n#", r#"copy a -> "b""#),
        ("COPY a b\r\nCOPY c \\\r\n  d\r\n", "copy a -> \"b\"\ncopy c -> \"d\""),
        (
            "COPY a b\n# escape=`\nCOPY c\\ d e",
            "copy a -> \"b\"\ncopy c d -> \"e\"",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn heredocs() {
    let table = [
        (
            "COPY <<EOF /dest\nhello\n  world\nEOF\nCOPY a b",
            "copy EOF:\"hello\\n  world\\n\" -> \"dest\"\ncopy a -> \"b\"",
        ),
        ("COPY <<EOF x\nEOF", r#"copy EOF:"" -> "x""#),
        ("COPY <<-EOF x\n\t\ta\n\t b\n\tEOF", r#"copy EOF:"a\n b\n" -> "x""#),
        ("COPY <<A <<B dir/\n1\nA\n2\nB", r#"copy A:"1\n" B:"2\n" -> "dir"/"#),
        ("COPY <<X <<Y dir/\nY\nX\nX\nY", r#"copy X:"Y\n" Y:"X\n" -> "dir"/"#),
        (
            "COPY a <<conf.yaml b dir/\nx: 1\nconf.yaml",
            r#"copy a conf.yaml:"x: 1\n" b -> "dir"/"#,
        ),
        (
            "COPY --chmod=755 <<EOF x\n#!/bin/sh\n\nCOPY no instruction\\\nEOF",
            r##"copy EOF:"#!/bin/sh\n\nCOPY no instruction\\\n" -> "x" mode 755"##,
        ),
        ("ADD <<EOF x\na\nEOF", r#"add EOF:"a\n" -> "x""#),
        // Expanded, and not.
        (
            "COPY <<EOF x\n$ARCH ${ARCH} \\$ARCH \\\\ \\n \"$ARCH\" '$ARCH' $(x) $\nEOF",
            r#"copy EOF:"amd64 amd64 $ARCH \\ \\n \"amd64\" 'amd64' $(x) $\n" -> "x""#,
        ),
        ("COPY <<'EOF' x\n$1 ${ \\$\nEOF", r#"copy EOF:"$1 ${ \\$\n" -> "x""#),
        ("COPY <<\"EOF\" x\n$1\nEOF", r#"copy EOF:"$1\n" -> "x""#),
        ("COPY <<E\"O\"F x\n$1\nEOF", r#"copy EOF:"$1\n" -> "x""#),
        ("COPY <<'one two' x\na\none two", r#"copy one two:"a\n" -> "x""#),
        ("COPY <<$EOF x\na\n$EOF", r#"copy $EOF:"a\n" -> "x""#),
        // The delimiter alone on its line, nothing else.
        (
            "COPY <<EOF x\n EOF\nEOF \nEOFX\nEOF",
            r#"copy EOF:" EOF\nEOF \nEOFX\n" -> "x""#,
        ),
        ("COPY <<EOF \\\n x\na\nEOF", r#"copy EOF:"a\n" -> "x""#),
        // A Kubefile with CRLF gives the same files.
        (
            "COPY <<EOF x\r\na\r\n\r\nb\r\nEOF\r\nCOPY c d\r\n",
            "copy EOF:\"a\\n\\nb\\n\" -> \"x\"\ncopy c -> \"d\"",
        ),
        // No heredocs.
        ("COPY \"<<EOF\" x", r#"copy <<EOF -> "x""#),
        ("COPY [\"<<EOF\", \"x\"]", r#"copy <<EOF -> "x""#),
        ("COPY a<<b x", r#"copy a<<b -> "x""#),
        ("COPY <<<a x", r#"copy <<<a -> "x""#),
        ("CMDS cat <<EOF", r#"commands ["cat <<EOF"]"#),
    ];
    for (text, expected) in table {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn directives() {
    let table = [
        ("# escape=`\nFROM scratch\nCOPY a\\b `\n c` d/", r#"copy a\b -> "c d"/"#),
        ("#escape = \\\nFROM scratch\nCOPY a\\ b c", r#"copy a b -> "c""#),
        (
            "# syntax=docker/dockerfile:1\n# ESCAPE=`\nFROM scratch\nENV A=`$X",
            r#"env A="$X""#,
        ),
        // Too late: behind a comment, a blank line, an instruction.
        (
            "# comment\n# escape=`\nFROM scratch\nCOPY a\\ b c",
            r#"copy a b -> "c""#,
        ),
        ("\n# escape=`\nFROM scratch\nCOPY a\\ b c", r#"copy a b -> "c""#),
        (
            "\u{feff}# escape=`\r\nFROM scratch\r\nCOPY a` b c",
            r#"copy a b -> "c""#,
        ),
        ("\u{feff}FROM scratch\nCOPY a b", r#"copy a -> "b""#),
    ];
    for (text, expected) in table {
        let steps = load(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert_eq!(show(&steps[1]), expected, "{text}");
    }
}

#[test]
fn base_images() {
    let table = [
        ("FROM scratch", "from scratch"),
        ("from docker.io/a/b:v1@sha256:00", "from docker.io/a/b:v1@sha256:00"),
        ("FROM --platform=linux/arm64 a", "from a for linux/arm64"),
        ("FROM --platform=$TARGETPLATFORM a", "from a for linux/amd64"),
        ("FROM ./base.tar", "from ./base.tar"),
        ("FROM a AS base", "from a"),
        ("ARG V=1\nARG N=k3s W=$V\nFROM ${N}:v$W-$ARCH", "from k3s:v1-amd64"),
    ];
    for (text, expected) in table {
        let steps = load(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert_eq!(show(&steps[0]), expected, "{text}");
    }
}

#[test]
fn checksums() {
    let short = &HEX[..12];
    let table = [
        (
            format!("ADD --checksum=sha256:{HEX} https://h/x y"),
            format!("add <https://h/x>#{short} -> \"y\""),
        ),
        (
            format!("APP --checksum=sha256:{HEX} a https://h/x"),
            format!("app a <https://h/x>#{short}"),
        ),
        (
            format!("ARG SUM=sha256:{HEX}\nADD --checksum=$SUM https://h/x y"),
            format!("add <https://h/x>#{short} -> \"y\""),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shown(&text), expected, "{text}");
    }
}

#[test]
fn steps_say_where_they_come_from_and_hide_values() {
    let text = "ARG TOKEN\nFROM scratch\n\n  ENV \\\n  A=$TOKEN\nCOPY <<EOF x\n$TOKEN\nEOF\n";
    // TOKEN is declared before FROM only.
    assert!(load_with(text, &[("TOKEN", "secret")]).is_err());
    let text = text.replace("scratch\n", "scratch\nARG TOKEN\n");
    let steps = load_with(&text, &[("TOKEN", "secret")]).unwrap();
    assert_eq!(show(&steps[1]), r#"env A="secret""#);
    assert_eq!(steps[1].original, "ENV A=$TOKEN");
    assert_eq!(
        (steps[1].span.line, steps[1].span.column, steps[1].span.length),
        (5, 3, 3)
    );
    assert_eq!(steps[2].original, "COPY <<EOF x");
    assert_eq!(show(&steps[2]), r#"copy EOF:"secret\n" -> "x""#);
}

#[test]
fn sealers_examples() {
    let text = r#"FROM scratch
COPY rootfs .
COPY ${ARCH} .
COPY imageList manifests
LABEL "cluster.alpha.sealer.io/cluster-runtime-type"="kubernetes"
LABEL "cluster.alpha.sealer.io/container-runtime-type"="docker"
CNI calico local://calico.sh
APP mixed local://install.sh local://files
APPCMDS mixed ["bash","install.sh"]
APPENV mixed domain=example.com
LAUNCH ["calico","mixed"]
"#;
    let steps = load(text).unwrap();
    let shown: Vec<String> = steps.iter().map(show).collect();
    assert_eq!(shown[2], r#"copy amd64 -> ""/"#);
    assert_eq!(shown.last().unwrap(), "launch calico mixed");
    assert_eq!(steps.len(), 11);
}

#[test]
fn warnings() {
    let table = [
        ("FROM scratch\nMAINTAINER a", 2, "`MAINTAINER` is deprecated"),
        ("FROM scratch\nCMD a", 2, "`CMD` is deprecated"),
        ("FROM scratch\nENV A b", 2, "`ENV NAME VALUE` is an old form"),
        ("FROM a AS b", 1, "a stage name has no effect"),
        ("# syntax=x\nFROM scratch", 1, "has no effect"),
        (
            "FROM scratch\nCOPY a \\\n\n b",
            4,
            "still belongs to the instruction of line 2, although line 3 is blank",
        ),
    ];
    for (text, line, message) in table {
        let found = warnings_of(text);
        let warnings: Vec<&Diagnostic> = found.iter().collect();
        assert_eq!(warnings.len(), 1, "{text}");
        assert_eq!(warnings[0].span().unwrap().line, line, "{text}");
        assert!(
            warnings[0].message().contains(message),
            "{text}: {}",
            warnings[0].message()
        );
    }
    assert_eq!(warnings_of("FROM scratch\nCOPY a b\nLABEL x=y").iter().count(), 0);
}

#[test]
fn apps_exist() {
    let check = |text: &str, inherited: &[&str]| {
        let target = "linux/amd64".parse().unwrap();
        let kubefile = Kubefile::read(text.as_bytes(), "Kubefile", &BuildArgs::new(), &target);
        let inherited = inherited.iter().map(|&name| name.to_owned()).collect();
        match kubefile.check(kubefile.check_apps(&inherited)) {
            Ok(()) => String::new(),
            Err(errors) => errors.to_string(),
        }
    };
    let app = "FROM x\nAPP redis local://r\n";
    assert_eq!(check(&format!("{app}APPENV redis A=1\nLAUNCH redis"), &[]), "");
    assert_eq!(check("FROM x\nAPPCMDS base a\nLAUNCH base", &["base"]), "");
    let errors = check(&format!("{app}LAUNCH redis base redsi other"), &["base"]);
    assert_eq!(errors.matches("does not exist in the image").count(), 2);
    assert!(
        errors.contains("Kubefile:3:19: error: application `redsi` does not exist"),
        "{errors}"
    );
    assert!(errors.contains("did you mean `redis`?"));
    assert!(errors.contains("the image has base, redis"));
    let errors = check("FROM x\nAPPENV a K=V\nAPP a local://r", &[]);
    assert!(errors.contains("is defined only in line 3"), "{errors}");
}

fn warnings_of(text: &str) -> Diagnostics {
    let target = "linux/amd64".parse().unwrap();
    let (kubefile, _) = Kubefile::load(text.as_bytes(), "Kubefile", &BuildArgs::new(), &target).unwrap();
    kubefile.warnings()
}
