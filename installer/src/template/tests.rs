use super::*;

/// Templates, and what Go's `text/template` makes of them, or `error`.
const GOLDEN: &str = include_str!("golden.txt");

static NOTHING: Environment = Environment::new();

/// All of an environment, which nobody gave.
fn values(environment: &Environment) -> Values<'_> {
    Values {
        environment,
        given: &NOTHING,
        planned: &[],
    }
}

fn environment() -> Environment {
    [
        ("Domain", "sea.hub"),
        ("Port", "5000"),
        ("Empty", ""),
        ("Multi", "a\nb"),
        ("Quote", "say \"hi\""),
        ("No", "false"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

#[test]
fn makes_what_go_makes() {
    let mut seen = 0;
    let mut differences = Vec::new();
    for case in GOLDEN.trim_end_matches("\n====\n").split("\n====\n") {
        let (template, expected) = case.split_once("\n----\n").unwrap();
        let found = render(template, "x.tmpl", &values(&environment()));
        // The intended differences: Go prints these marks into the file.
        let is_error = expected == "error" || expected.contains("<no value>") || expected.contains("%!");
        let same = match &found {
            Ok(text) => !is_error && text == expected,
            Err(_) => is_error,
        };
        if !same {
            differences.push(format!("{template}\n  Go: {expected:?}\n  found: {found:?}"));
        }
        seen += 1;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(seen > 80);
}

#[test]
fn says_what_is_wrong_and_where() {
    let message = |template: &str| {
        format!(
            "{:?}",
            render(template, "etc/a.tmpl", &values(&environment())).unwrap_err()
        )
    };
    for (template, part) in [
        ("a\nb: {{ .RegistryUrl }}\n", "etc/a.tmpl:2: `RegistryUrl` is not set"),
        ("{{ .RegistryUrl }}", "-e RegistryUrl=VALUE"),
        ("a\n\n{{ if .Domain }}\nb\n", "etc/a.tmpl:3: `if` has no `end`"),
        ("\n{{ include \"x\" }}", "etc/a.tmpl:2: there is no function `include`"),
        ("{{ .Domain", "`}}` is missing"),
    ] {
        assert!(message(template).contains(part), "{template}: {}", message(template));
    }
}

#[test]
fn hostile_templates_end() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let nested = format!("{}{}", "{{if 1}}".repeat(100_000), "{{end}}".repeat(100_000));
    let endless = "{{define \"a\"}}x{{template \"a\"}}{{end}}{{template \"a\"}}";
    let mut doubling = String::new();
    for level in 0..60 {
        let next = level + 1;
        doubling.push_str(&format!(
            "{{{{define \"{level}\"}}}}{{{{template \"{next}\"}}}}{{{{template \"{next}\"}}}}{{{{end}}}}"
        ));
    }
    doubling.push_str("{{define \"60\"}}x{{end}}{{template \"0\"}}");
    let wide = "{{ printf \"%999999999d\" 1 }}";
    let many_wide = format!("{{{{ printf \"{}\" {} }}}}", "%1000d".repeat(9000), "1 ".repeat(9000));
    // Nested actions in a template that calls itself.
    let (open, close) = ("{{if 1}}".repeat(90), "{{end}}".repeat(90));
    let both = format!("{{{{define \"a\"}}}}{open}{{{{template \"a\"}}}}{close}{{{{end}}}}{{{{template \"a\"}}}}");
    // 8 bytes that are doubled 40 times, and a value that is kept many times.
    let growing = format!("{{{{$x := \"12345678\"}}}}{}", "{{$x = print $x $x}}".repeat(40));
    let kept = format!(
        "{{{{$x := \"12345678\"}}}}{}{}",
        "{{$x = print $x $x}}".repeat(16),
        "{{$y := $x}}".repeat(10_000)
    );
    let template = format!("{{{{ {deep} }}}}");
    for template in [
        &template, &nested, endless, &doubling, wide, &many_wide, &both, &growing, &kept,
    ] {
        render(template, "x.tmpl", &values(&environment())).unwrap_err();
    }
}

#[test]
fn files_are_made_beside_their_templates() {
    let folder = tempfile::tempdir().unwrap();
    let rootfs = folder.path();
    let outside = tempfile::NamedTempFile::new().unwrap();
    for (path, text) in [
        ("etc/deep/a.yaml.tmpl", "registry: {{ .Domain }}\n"),
        ("manifests/b.tmpl", "{{ .Port }}"),
        ("manifests/b", "old"),
        ("scripts/c.tmpl", "{{ .Left }} alone"),
        ("etc/.tmpl", "{{ .Left }} alone"),
        ("etc/...tmpl", "{{ .Left }} alone"),
    ] {
        fs::create_dir_all(rootfs.join(path).parent().unwrap()).unwrap();
        fs::write(rootfs.join(path), text).unwrap();
    }
    std::os::unix::fs::symlink(outside.path(), rootfs.join("etc/link.tmpl")).unwrap();
    render_all(rootfs, &values(&environment())).unwrap();
    let read = |path: &str| fs::read_to_string(rootfs.join(path)).unwrap();
    assert_eq!(read("etc/deep/a.yaml"), "registry: sea.hub\n");
    assert_eq!(read("manifests/b"), "5000");
    assert!(!rootfs.join("scripts/c").exists());
    assert!(!rootfs.join("etc/link").exists());
    fs::write(rootfs.join("etc/wrong.tmpl"), "{{ .Missing }}").unwrap();
    let error = render_all(rootfs, &values(&environment())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn targets_lie_in_the_folders_of_templates() {
    assert_eq!(target("etc/a.yaml.tmpl"), Some("etc/a.yaml"));
    assert_eq!(target("etc/.a.tmpl"), Some("etc/.a"));
    for other in [
        "etc/a.yaml",
        "scripts/a.tmpl",
        "etcetera/a.tmpl",
        "etc/.tmpl",
        "etc/..tmpl",
        "etc/...tmpl",
        "etc/.tmpl/",
        "etc",
    ] {
        assert_eq!(target(other), None, "{other}");
    }
}

#[test]
fn what_the_user_gave_is_in_no_file_of_the_plan() {
    let environment = environment();
    let given = Environment::from([("Port".to_owned(), "5000".to_owned())]);
    let values = Values {
        environment: &environment,
        given: &given,
        planned: &["etc/k3s/config.yaml"],
    };
    let make = |name: &str, text: &str| render(text, name, &values).map_err(|error| format!("{error:?}"));
    assert_eq!(make("etc/other.yaml.tmpl", "{{ .Port }}").unwrap(), "5000");
    assert_eq!(make("etc/k3s/config.yaml.tmpl", "{{ .Domain }}").unwrap(), "sea.hub");
    for text in [
        "{{ .Port }}",
        "{{ or .Port 1 }}",
        "{{ $.Port | b64enc }}",
        "{{ if .Port }}x{{ end }}",
    ] {
        let error = make("etc/k3s/config.yaml.tmpl", text).unwrap_err();
        assert!(
            error.contains("`Port` is given with `-e`") && !error.contains("5000"),
            "{error}"
        );
    }
    let listed = make("etc/k3s/config.yaml.tmpl", "{{ range $k, $v := . }}{{ $k }} {{ end }}").unwrap();
    assert!(!listed.contains("Port"), "{listed}");
}
