//! What the command line promises to people and programs: help, completion, man pages, JSON, exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Scratch, assert_has, fail, is_installed, outcome, run, shape, succeed};

/// All commands, as their words, found by their help. The first is sealrs itself.
fn commands(scratch: &Scratch) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        for name in subcommands(&help(scratch, &words)) {
            if name != "help" {
                waiting.push([&words[..], &[name]].concat());
            }
        }
        found.push(words);
    }
    found.sort();
    found
}

fn help(scratch: &Scratch, words: &[String]) -> String {
    // Help shows what the variable is set to.
    let mut command = scratch.sealrs(&[]);
    succeed(command.args(words).arg("--help").env_remove("SEALRS_ROOT"))
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let below = help.split_once("\nCommands:\n").map_or("", |(_, below)| below);
    let section = below.split("\n\n").next().unwrap_or_default();
    let names = section
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[test]
fn help_of_every_command() {
    let scratch = Scratch::new();
    let commands = commands(&scratch);
    assert!(commands.len() > 12, "{commands:?}");
    for words in &commands {
        let help = help(&scratch, words);
        let name = if words.is_empty() {
            "sealrs".to_owned()
        } else {
            words.join("-")
        };
        insta::assert_snapshot!(format!("help-{name}"), help);
        let example = format!("\n  sealrs {}", words.join(" "));
        assert_has(&help, &["Example", example.trim_end()]);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{name}");
        // The short one is shorter, and both ways to ask for the long one agree.
        let mut short = scratch.sealrs(&[]);
        let short = succeed(short.args(words).arg("-h"));
        assert!(short.lines().count() <= help.lines().count(), "{name}");
        let mut other = scratch.sealrs(&["help"]);
        assert_eq!(succeed(other.args(words).env_remove("SEALRS_ROOT")), help, "{name}");
    }
    assert_eq!(
        scratch.ok(&["--version"]),
        format!("sealrs {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_has(&scratch.fails(2, &["bild"]), &["bild", "'build'"]);
    assert_has(&scratch.fails(2, &["images", "--digest"]), &["--digests"]);
    assert_has(&scratch.fails(2, &[]), &["Usage: sealrs"]);
}

#[test]
fn completion_scripts_of_the_shells() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.write(&format!("sealrs.{shell}"), scratch.ok(&["completion", shell]));
        let text = support::text(&scratch.read(&format!("sealrs.{shell}")));
        for words in commands(&scratch) {
            assert_has(&text, &words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        assert_has(&text, &["insecure-registry", "dry-run"]);
        if is_installed(shell) {
            run(shell, &["-n", &script]);
        } else {
            println!("skipped: {shell} is not installed, so its script is not parsed");
        }
    }
    assert_has(&scratch.fails(2, &["completion", "tcsh"]), &["bash", "zsh", "fish"]);

    // Bash offers what there is.
    let offered = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source sealrs.bash; COMP_WORDS=({}); COMP_CWORD={}; _sealrs sealrs '{}' '{}'; echo ${{COMPREPLY[@]}}",
            words.join(" "),
            words.len() - 1,
            line.rsplit(' ').next().unwrap(),
            line.rsplit(' ').nth(1).unwrap(),
        );
        succeed(scratch.command("bash").args(["-c", &script])).trim().to_owned()
    };
    assert_eq!(offered("sealrs bu"), "build");
    assert_eq!(offered("sealrs registry s"), "serve");
    assert_eq!(offered("sealrs build --compr"), "--compression");
    assert_eq!(offered("sealrs completion f"), "fish");
}

#[test]
fn man_pages() {
    let scratch = Scratch::new();
    scratch.ok(&["man", "man1"]);
    let names: Vec<String> = commands(&scratch)
        .iter()
        .map(|words| format!("{}.1", [&["sealrs".to_owned()], &words[..]].concat().join("-")))
        .collect();
    assert_eq!(
        scratch.list("man1"),
        names
            .iter()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    for name in &names {
        let page = support::text(&scratch.read(&format!("man1/{name}")));
        assert_has(&page, &[".TH sealrs", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"]);
        assert!(!page.contains("EXTRA"), "{name}");
        if name != "sealrs-registry.1" {
            assert_has(&page, &["\n.SH EXAMPLES\n"]);
        }
        if is_installed("groff") {
            let said = scratch
                .command("groff")
                .args(["-man", "-Tutf8", "-ww", "-z", &format!("man1/{name}")])
                .output()
                .unwrap();
            assert_eq!(support::text(&said.stderr), "", "{name}");
        }
    }
    if !is_installed("groff") {
        println!("skipped: groff is not installed, so the man pages are not set");
    }
}

#[test]
fn json_has_a_stable_shape() {
    let scratch = Scratch::new();
    scratch.write("context/a.yaml", "a");
    let kubefile = "FROM scratch\nENV A=1\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nAPP x local://a.yaml\nAPPENV x B=2\nLAUNCH x\n";
    let mut shapes = BTreeMap::new();
    shapes.insert("build", scratch.build("a:1", kubefile, &[]).0);
    for (name, arguments) in [
        ("images", &["images"][..]),
        ("inspect", &["inspect", "a:1"]),
        ("save", &["save", "a:1", "-o", "a.tar"]),
        ("load", &["load", "-i", "a.tar"]),
        ("tag", &["tag", "a:1", "b:1"]),
        ("rmi", &["rmi", "b:1"]),
        ("prune", &["prune"]),
    ] {
        shapes.insert(name, scratch.json(arguments));
    }
    let shapes: BTreeMap<&str, Value> = shapes.iter().map(|(name, value)| (*name, shape(value))).collect();
    insta::assert_json_snapshot!("json-shapes", shapes);
}

#[test]
fn progress_is_lines_of_json_for_programs_and_nothing_when_quiet() {
    let scratch = Scratch::new();
    scratch.write("context/a", "a");
    let kubefile = "FROM scratch\nARG UNUSED=1\nCOPY a /\n";
    let build = |more: &[&str]| {
        let output = scratch
            .building("a:1", kubefile, &["--no-cache"])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success());
        (support::text(&output.stdout), support::text(&output.stderr))
    };
    let (out, said) = build(&["--output", "json"]);
    serde_json::from_str::<Value>(&out).unwrap();
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let begun = events.iter().find(|event| event["event"] == "begin").unwrap();
    assert_eq!(
        *begun,
        json!({"event": "begin", "id": begun["id"], "within": null, "what": "packing the rootfs", "bytes": 0, "total": 1})
    );
    let ended = events.iter().find(|event| event["event"] == "end").unwrap();
    assert_eq!((&ended["id"], &ended["bytes"]), (&begun["id"], &json!(1)));

    let (out, said) = build(&[]);
    assert_has(&out, &["built a:1 sha256:"]);
    assert_has(&said, &["packing the rootfs (1 B)"]);
    assert!(!said.contains('\x1b') && !out.contains('\x1b'), "colours for a pipe");
    let (out, said) = build(&["--quiet"]);
    assert_has(&out, &["built a:1 sha256:"]);
    assert_eq!(said, "");
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let scratch = Scratch::new();
    scratch.write("context/a", "a");
    scratch.build("a:1", "FROM scratch\nCOPY a /\n", &[]);
    scratch.ok(&["save", "a:1", "-o", "a.tar"]);
    scratch.write("broken.tar", &scratch.read("a.tar")[..3000]);
    scratch.write("file", "");
    scratch.write("list", "127.0.0.1:1/x:v1\n");
    let table = include_str!("../../docs/errors.md");
    for (code, word, arguments) in [
        (2, "input", &["rmi", "NOT/a name"][..]),
        (2, "input", &["build", "-t", "x", "-f", "file", "context"]),
        (3, "not-found", &["inspect", "nothing"]),
        (3, "not-found", &["run", "nothing.tar"]),
        (4, "integrity", &["load", "-i", "broken.tar"]),
        (
            5,
            "network",
            &["build", "-t", "x", "-f", "Kubefile", "--image-list", "list", "context"],
        ),
        (7, "disk", &["images", "--root", "file"]),
        (8, "conflict", &["save", "a:1", "-o", "a.tar"]),
    ] {
        let (found, said) = outcome(&mut scratch.sealrs(arguments));
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(table.contains(&format!("| {code} | `{word}` |")), "{code} {word}");
        if word == "network" {
            // Several tries have taken long enough.
            continue;
        }
        let said = fail(scratch.sealrs(arguments).args(["--output", "json", "--quiet"]), code);
        // What the command line itself refuses comes before there is a way to say it.
        if !said.contains("Usage:") && !said.starts_with("error: invalid value") {
            let error: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
            assert_eq!(
                (&error["event"], &error["code"]),
                (&json!("error"), &json!(word)),
                "{said}"
            );
            assert!(error["causes"].is_array() && error["message"].is_string(), "{said}");
        }
    }
}

/// A program that asked for JSON gets it, whatever it got wrong.
#[test]
fn usage_errors_are_json_for_programs() {
    let scratch = Scratch::new();
    let parsed = |said: &str| -> serde_json::Value {
        assert_eq!(said.lines().count(), 1, "{said}");
        serde_json::from_str(said).unwrap()
    };
    for (arguments, message, hint) in [
        (
            &["images", "--nonsense"][..],
            "unexpected argument '--nonsense' found",
            "--help",
        ),
        (&["imagse"], "unrecognized subcommand 'imagse'", "'images'"),
        (&["build", "."], "not provided: --tag <NAME>", "--help"),
        (
            &["build", "-t", "UPPER", "."],
            "invalid value 'UPPER' for '--tag <NAME>'",
            "write HOST/PATH:TAG",
        ),
        (
            &["build", "-t", "a", "--jobs=x"],
            "invalid value 'x' for '--jobs <N>'",
            "--help",
        ),
        (&[], "the command line lacks a command", "--help"),
    ] {
        for format in [&["--output", "json"][..], &["--output=json"]] {
            let error = parsed(&scratch.fails(2, &[format, arguments].concat()));
            assert_eq!((&error["event"], &error["code"]), (&"error".into(), &"input".into()));
            assert_has(error["message"].as_str().unwrap(), &[message]);
            assert_has(error["hint"].as_str().unwrap(), &[hint]);
            assert!(error["causes"].is_array());
        }
        let text = scratch.fails(2, arguments);
        assert!(!text.starts_with('{'), "{text}");
    }
    // What follows `--` is no flag of ours, and the last one counts.
    assert!(
        !scratch
            .fails(2, &["images", "--x", "--", "--output=json"])
            .starts_with('{')
    );
    assert!(
        !scratch
            .fails(2, &["--output=json", "images", "--x", "--output", "text"])
            .starts_with('{')
    );
    assert!(
        scratch
            .ok(&["--output", "json", "images", "--help"])
            .contains("Examples:")
    );
}

/// What a newcomer, or whoever knows sealer, writes first.
#[test]
fn what_is_written_elsewhere_gets_an_exact_hint() {
    let scratch = Scratch::new();
    let said = scratch.fails(2, &["save", "a:1", "--output", "x.tar"]);
    assert_has(&said, &["hint: `--output` is how results are written", "`-o x.tar`"]);
    let said = scratch.fails(2, &["registry", "serve", "--dir", ".", "--listen", "5107"]);
    assert_has(&said, &["not ADDRESS:PORT", "127.0.0.1:5107"]);
    scratch.write("text", "some words\n".repeat(500));
    for arguments in [&["load", "-i", "text"][..], &["inspect", "./text"]] {
        let said = scratch.fails(4, arguments);
        assert_has(&said, &["it is no archive", "sealrs save"]);
        assert!(!said.contains("cut off"), "{said}");
    }
    // Whoever only reads makes nothing.
    for (code, arguments) in [
        (0, &["images"][..]),
        (0, &["verify"]),
        (0, &["prune"]),
        (3, &["inspect", "a:1"]),
        (3, &["tag", "a:1", "b:1"]),
        (3, &["rmi", "a:1"]),
        (3, &["save", "a:1", "-o", "a.tar"]),
    ] {
        let (found, said) = outcome(&mut scratch.sealrs(arguments));
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(!scratch.exists("root"), "{arguments:?}");
    }
}
