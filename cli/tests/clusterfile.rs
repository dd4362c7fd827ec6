//! `sealrs gen clusterfile` and `sealrs lint`: what is written passes, and what is wrong is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Scratch, assert_has, is_root, outcome, text};

#[test]
fn what_is_generated_passes_lint() {
    let scratch = Scratch::new();
    let arguments = [
        "gen",
        "clusterfile",
        "edge/k3s:v1",
        "-m",
        "10.0.0.1-3",
        "-n",
        "10.0.0.4,10.0.0.9",
        "-u",
        "admin",
        "--passwd-env",
        "SSH_PASSWORD",
        "-i",
        "~/.ssh/id",
        "--pk-passwd-file",
        "p",
        "--port",
        "2222",
        "-e",
        "A=1",
        "--env",
        "B=c: d",
    ];
    let written = scratch.ok(&arguments);
    assert_has(
        &written,
        &[
            "image: \"edge/k3s:v1\"",
            "- \"10.0.0.1-3\"",
            "passwdEnv: \"SSH_PASSWORD\"",
            "port: \"2222\"",
            "- \"B=c: d\"",
        ],
    );
    assert_eq!(
        scratch.ok(&[&arguments[..], &["-o", "Clusterfile"]].concat()),
        "wrote Clusterfile\n"
    );
    assert_eq!(text(&scratch.read("Clusterfile")), written);
    assert_eq!(scratch.ok(&["lint", "Clusterfile"]), "Clusterfile: no errors\n");
    assert_eq!(scratch.ok(&["lint", "-f", "Clusterfile"]), "Clusterfile: no errors\n");
    assert_eq!(scratch.json(&arguments)["clusterfile"], json!(written));
    // What is there stays.
    scratch.write("Clusterfile", "mine");
    assert_has(
        &scratch.fails(8, &[&arguments[..], &["--output-file", "Clusterfile"]].concat()),
        &["Clusterfile is there already"],
    );
    assert_eq!(scratch.read("Clusterfile"), b"mine");

    let mut lint = scratch.sealrs(&["lint", "-"]);
    let mut lint = lint.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    lint.stdin.take().unwrap().write_all(written.as_bytes()).unwrap();
    let output = lint.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "stdin: no errors\n")
    );
    assert!(!scratch.exists("root"), "nothing is made where nothing is needed");
}

#[test]
fn no_secret_gets_into_a_clusterfile() {
    let scratch = Scratch::new();
    for arguments in [
        &["-p", "hunter2"][..],
        &["--pk-passwd", "hunter2"],
        &["-e", "TOKEN=hunter2"],
        &["-e", "DB_PASSWORD=hunter2"],
    ] {
        let arguments = [&["gen", "clusterfile", "-m", "10.0.0.1"][..], arguments].concat();
        let said = scratch.fails(2, &arguments);
        assert!(!said.contains("hunter2"), "{said}");
        assert_has(&said, &["hint:"]);
    }
    assert_has(
        &scratch.fails(2, &["gen", "clusterfile", "-m", "10.0.0.1-"]),
        &["names no hosts", "an address is missing"],
    );
    assert_has(&scratch.fails(2, &["gen", "clusterfile"]), &["--masters"]);
    let (code, said) = outcome(&mut scratch.sealrs(&["gen", "clusterfile", "-m", "10.0.0.1-2"]));
    assert_eq!(code, Some(0));
    assert_has(&said, &["warning: there are 2 masters"]);
}

#[test]
fn errors_and_warnings_have_places() {
    let scratch = Scratch::new();
    let wrong = "\
apiVersion: sealer.io/v2
kind: Cluster
spec:
  imgae: x
  ssh: {passwd: hunter2}
  hosts:
  - {ips: [10.0.0.1, 10.0.0.1-2], roles: [master]}
  - {ips: [10.0.0.3], roles: [master], taints: [a]}
";
    scratch.write("wrong.yaml", wrong);
    scratch.write(
        "right.yaml",
        wrong
            .replace("imgae", "image")
            .replace("10.0.0.1-2", "10.0.0.2")
            .replace("[a]", "[a-]"),
    );
    let said = scratch.fails(2, &["lint", "wrong.yaml"]);
    assert_has(
        &said,
        &[
            "error: 3 errors in wrong.yaml",
            "wrong.yaml:4:3: error: there is no field `imgae`\n  4 |   imgae: x\n    |   ^\n  hint: did you mean `image`?",
            "wrong.yaml:7:22: error: the host 10.0.0.1 is there already, in line 7",
            "wrong.yaml:8:49: error: `a` has no effect",
        ],
    );
    let right = scratch.ok(&["lint", "right.yaml"]);
    assert_has(
        &right,
        &[
            "right.yaml:5:17: warning: `passwd` stands here in clear",
            "right.yaml: no errors, 1 warning",
        ],
    );
    assert!(!right.contains("hunter2"), "{right}");

    // Several files, one of which is not there, are one answer.
    let (code, said) = outcome(
        scratch
            .sealrs(&["lint", "-f", "nothing.yaml", "right.yaml", "wrong.yaml"])
            .args(["--output", "json", "--quiet"]),
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let output = scratch
        .sealrs(&["lint", "nothing.yaml", "wrong.yaml", "--output", "json"])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["files"], &found["errors"]),
        (&json!(["nothing.yaml", "wrong.yaml"]), &json!(4))
    );
    assert_eq!(found["warnings"][0]["line"], 5);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&error["code"], error["errors"].as_array().unwrap().len()),
        (&json!("input"), 4)
    );
    assert_eq!(
        (&error["errors"][0]["code"], &error["errors"][0]["file"]),
        (&json!("not-found"), &json!("nothing.yaml"))
    );
    assert_eq!(
        (&error["errors"][1]["line"], &error["errors"][1]["column"]),
        (&json!(4), &json!(3))
    );
    assert_has(
        &scratch.fails(3, &["lint", "nothing.yaml"]),
        &["cannot read nothing.yaml"],
    );

    scratch.write("image.tar", [0xff; 100]);
    assert_has(
        &scratch.fails(2, &["lint", "image.tar"]),
        &["not in UTF-8", "sealrs inspect"],
    );
    scratch.write("big.yaml", "a".repeat(2 << 20));
    assert_has(&scratch.fails(2, &["lint", "big.yaml"]), &["more than 1048576 bytes"]);
    assert_has(&scratch.fails(2, &["lint"]), &["FILE"]);
    if !is_root() {
        std::fs::set_permissions(scratch.path("right.yaml"), Permissions::from_mode(0o000)).unwrap();
        assert_has(
            &scratch.fails(7, &["lint", "right.yaml"]),
            &["run as a user who may read it"],
        );
    }
}

/// The examples of the documentation are right, by lint and by the schema.
#[test]
fn documented_examples_pass_lint_and_the_schema() {
    let scratch = Scratch::new();
    let published = include_str!("../../docs/clusterfile.schema.json");
    assert_eq!(scratch.ok(&["lint", "--schema"]), published);
    scratch.write("schema.json", published);
    let page = include_str!("../../docs/clusterfile.md");
    let examples: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(examples.len() > 5, "{}", examples.len());
    let mut names = vec!["generated.yaml".to_owned()];
    scratch.ok(&[
        "gen",
        "clusterfile",
        "-m",
        "10.0.0.1",
        "-n",
        "10.0.0.2",
        "-o",
        "generated.yaml",
    ]);
    for (number, example) in examples.iter().enumerate() {
        let name = format!("{number}.yaml");
        scratch.write(&name, example);
        assert_eq!(
            scratch.ok(&["lint", &name]),
            format!("{name}: no errors\n"),
            "{example}"
        );
        names.push(name);
    }
    scratch.write(
        "wrong.yaml",
        "apiVersion: sealer.io/v2\nkind: Cluster\nspec: {imgae: x}\n",
    );
    let program = "\
import json, sys, jsonschema, yaml
validator = jsonschema.Draft7Validator(json.load(open('schema.json')))
validator.check_schema(validator.schema)
for name in sys.argv[1:]:
    for document in yaml.safe_load_all(open(name)):
        validator.validate(document)
";
    // The first one on PATH may be of an environment without the packages of the system.
    let has = |python: &&str| {
        let output = scratch.command(python).args(["-c", "import jsonschema, yaml"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has) else {
        println!("skipped: python3 has no jsonschema and yaml, so the schema is not tried");
        return;
    };
    support::succeed(scratch.command(python).args(["-c", program]).args(&names));
    let output = scratch
        .command(python)
        .args(["-c", program, "wrong.yaml"])
        .output()
        .unwrap();
    assert_has(&text(&output.stderr), &["imgae"]);
}
