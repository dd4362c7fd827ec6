//! Which entry of which file answers for which repository.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const TWO: &str = r#"{
  "auths": {
    "https://index.docker.io/v1/": {"auth": "aHViOmh1Yi1wYXNzd29yZA=="},
    "quay.io": {"auth": "cXVheTpw"},
    "quay.io/team": {"auth": "dGVhbTpw"},
    "quay.io/team/app/": {"auth": "YXBwOnA="},
    "https://old.example.com/v2/": {"auth": "b2xkOnA"},
    "plain.example.com:5000": {"username": "plain", "password": "p:q"},
    "both.example.com": {"auth": "Zmlyc3Q6cDpx", "username": "second", "password": "x"},
    "token.example.com": {"auth": "dTo=", "identitytoken": "refresh"},
    "padded.example.com": {"auth": "dTpwAAAA"},
    "marked.example.com": {},
    "null.example.com": {"auth": null, "identitytoken": null},
    "broken.example.com": {"auth": "!!"},
    "colon.example.com": {"auth": "bm9uZQ=="},
    "http://[::1]:5000": {"auth": "c2l4OnA="}
  },
  "HttpHeaders": {"User-Agent": "x"},
  "credHelpers": null
}"#;

fn credentials(content: &str) -> (tempfile::TempDir, Result<Credentials>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, content).unwrap();
    let credentials = Credentials::from_files(vec![file]);
    (directory, credentials)
}

#[test]
fn the_longest_key_that_covers_a_repository_answers() {
    let (_directory, credentials) = credentials(TWO);
    let credentials = credentials.unwrap();
    let password = |text: &str| Secret::Password(text.to_owned());
    for (repository, expected) in [
        ("nginx", Some(("hub", password("hub-password")))),
        ("docker.io/rancher/k3s", Some(("hub", password("hub-password")))),
        ("quay.io/other/x", Some(("quay", password("p")))),
        ("quay.io/teams/x", Some(("quay", password("p")))),
        ("quay.io/team/x", Some(("team", password("p")))),
        ("quay.io/team/app", Some(("app", password("p")))),
        ("quay.io/team/app/part", Some(("app", password("p")))),
        ("quay.io:443/team/app", None),
        ("old.example.com/x", Some(("old", password("p")))),
        ("plain.example.com:5000/x", Some(("plain", password("p:q")))),
        ("plain.example.com/x", None),
        ("both.example.com/x", Some(("first", password("p:q")))),
        (
            "token.example.com/x",
            Some(("u", Secret::IdentityToken("refresh".to_owned()))),
        ),
        ("padded.example.com/x", Some(("u", password("p")))),
        ("marked.example.com/x", None),
        ("null.example.com/x", None),
        ("[::1]:5000/x", Some(("six", password("p")))),
        ("unknown.example.com/x", None),
    ] {
        let found = credentials.find(&repository.parse().unwrap()).unwrap();
        let found = found.as_ref().map(|login| (login.user.as_str(), login.secret.clone()));
        assert_eq!(found, expected, "{repository}");
    }
    for broken in ["broken.example.com/x", "colon.example.com/x"] {
        let error = credentials.find(&broken.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{broken}");
        assert!(error.to_string().contains("config.json"), "{error:?}");
    }
}

#[test]
fn a_broken_file_is_named_and_its_secrets_are_not() {
    for content in [
        "{",
        r#"["hunter2"]"#,
        r#"{"auths": "hunter2"}"#,
        r#"{"auths": {"a": {"password": ["hunter2"]}}}"#,
    ] {
        let (_directory, credentials) = credentials(content);
        let error = credentials.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{content}");
        let text = format!("{error:?}");
        assert!(text.contains("config.json") && text.contains("line 1"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for empty in ["", "\n", "{}", r#"{"auths": {}}"#] {
        let (_directory, credentials) = credentials(empty);
        assert_eq!(
            credentials.unwrap().find(&"a.b/c".parse().unwrap()).unwrap(),
            None,
            "{empty}"
        );
    }
}

#[test]
fn nothing_shows_a_secret() {
    let (_directory, credentials) = credentials(TWO);
    let credentials = credentials.unwrap();
    let login = credentials.find(&"nginx".parse().unwrap()).unwrap().unwrap();
    let shown = format!("{credentials:?} {login:?}");
    assert!(shown.contains("hub") && shown.contains("<redacted>"), "{shown}");
    assert!(!shown.contains("hub-password") && !shown.contains("aHVi"), "{shown}");
}

#[test]
fn an_earlier_file_wins_and_a_missing_one_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    std::fs::write(place("one"), r#"{"auths": {"a.b": {"username": "one"}}}"#).unwrap();
    let two = r#"{"auths": {"a.b": {"username": "two"}, "c.d": {"username": "two"}}}"#;
    std::fs::write(place("two"), two).unwrap();
    let credentials = Credentials::from_files(vec![place("zero/x"), place("one"), place("two")]).unwrap();
    for (repository, user) in [("a.b/x", "one"), ("c.d/x", "two")] {
        let login = credentials.find(&repository.parse().unwrap()).unwrap().unwrap();
        assert_eq!(login.user, user, "{repository}");
    }
    assert!(credentials.places().contains("zero/x"));
}

#[test]
fn looks_where_docker_and_podman_do() {
    let home = [("HOME", "/h")].as_slice();
    let all = [
        ("HOME", "/h"),
        ("DOCKER_CONFIG", "/d"),
        ("REGISTRY_AUTH_FILE", "/r/auth"),
        ("XDG_RUNTIME_DIR", "/x"),
    ];
    let runtime = [
        ("HOME", "/h"),
        ("DOCKER_CONFIG", ""),
        ("XDG_RUNTIME_DIR", "/x"),
        ("XDG_CONFIG_HOME", "/c"),
    ];
    for (variables, expected) in [
        (home, vec!["/h/.docker/config.json", "/h/.config/containers/auth.json"]),
        (all.as_slice(), vec!["/d/config.json", "/r/auth"]),
        (
            runtime.as_slice(),
            vec![
                "/h/.docker/config.json",
                "/x/containers/auth.json",
                "/c/containers/auth.json",
            ],
        ),
        ([].as_slice(), vec![]),
    ] {
        let find = |name: &str| {
            let pair = variables.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| OsString::from(value))
        };
        let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
        assert_eq!(default_places(find), expected, "{variables:?}");
    }
}

fn registry(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn login(user: &str, password: &str) -> Login {
    Login::new(user, password.to_owned()).unwrap()
}

fn open(file: &Path) -> Credentials {
    Credentials::from_files(vec![file.to_owned()]).unwrap()
}

fn document(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn what_is_kept_is_found_and_what_is_forgotten_is_not() {
    let (directory, before) = credentials(TWO);
    let file = directory.path().join("config.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let before = before.unwrap();
    for (name, key, repository) in [
        ("docker.io", DOCKER_HUB, "nginx"),
        ("new.example.com:5000", "new.example.com:5000", "new.example.com:5000/x"),
        ("old.example.com", "old.example.com", "old.example.com/x"),
        ("quay.io/team", "quay.io/team", "quay.io/team/x"),
        ("[::1]:5000", "[::1]:5000", "[::1]:5000/x"),
    ] {
        let place = before.store(&registry(name), &login("me", "p:w ä")).unwrap();
        assert_eq!(place, file.display().to_string());
        assert_eq!(
            document(&file)["auths"][key],
            serde_json::json!({"auth": "bWU6cDp3IMOk"}),
            "{name}"
        );
        let found = open(&file).find(&repository.parse().unwrap()).unwrap().unwrap();
        assert_eq!(
            (found.user.as_str(), &found.secret),
            ("me", &Secret::Password("p:w ä".to_owned()))
        );
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (mut kept, mut original) = (document(&file), serde_json::from_str::<serde_json::Value>(TWO).unwrap());
    assert_eq!(kept["HttpHeaders"], original["HttpHeaders"]);
    assert!(kept["credHelpers"].is_null() && kept.as_object().unwrap().contains_key("credHelpers"));
    // The entry of before is gone, whatever it was called.
    let auths = |document: &mut serde_json::Value| {
        document["auths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let mut expected = auths(&mut original);
    expected.retain(|key| key != "https://old.example.com/v2/" && key != "http://[::1]:5000");
    expected.extend(["new.example.com:5000", "old.example.com", "[::1]:5000"].map(str::to_owned));
    expected.sort();
    assert_eq!(auths(&mut kept), expected);

    let forgotten = before.forget(&registry("quay.io/team")).unwrap();
    assert_eq!(forgotten.place, Some(file.display().to_string()));
    assert_eq!(forgotten.still.unwrap().user, "quay", "the whole registry's goes on");
    let nothing = Forgotten {
        place: None,
        still: None,
    };
    for name in ["docker.io", "new.example.com:5000"] {
        let forgotten = before.forget(&registry(name)).unwrap();
        assert_eq!(
            forgotten,
            Forgotten {
                place: Some(file.display().to_string()),
                still: None
            }
        );
        assert_eq!(before.forget(&registry(name)).unwrap(), nothing);
    }
    assert_eq!(before.forget(&registry("marked.example.com")).unwrap(), nothing);
    assert_eq!(
        directory.path().read_dir().unwrap().count(),
        1,
        "nothing else is left there"
    );
}

#[test]
fn the_first_login_makes_the_file_and_a_link_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("home/.docker/config.json");
    let credentials = open(&file);
    assert_eq!(credentials.forget(&registry("a.b")).unwrap().place, None);
    assert!(!file.parent().unwrap().exists());
    credentials.store(&registry("a.b"), &login("me", "word")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

    let link = directory.path().join("link.json");
    std::os::unix::fs::symlink("home/.docker/config.json", &link).unwrap();
    open(&link).store(&registry("c.d"), &login("me", "word")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(document(&file)["auths"].as_object().unwrap().len(), 2);
    let around = directory.path().join("around");
    std::os::unix::fs::symlink("around", &around).unwrap();
    let error = Credentials::from_files(vec![around.clone()]).err();
    let error = error.unwrap_or_else(|| open(&around).store(&registry("c.d"), &login("me", "word")).unwrap_err());
    assert!(error.to_string().contains("around"), "{error:?}");

    // An empty file, and one without logins.
    for content in ["", "{}", r#"{"auths": null}"#] {
        let file = directory.path().join("other.json");
        fs::write(&file, content).unwrap();
        open(&file).store(&registry("a.b"), &login("me", "word")).unwrap();
        assert_eq!(document(&file)["auths"]["a.b"]["auth"], "bWU6d29yZA==", "{content}");
    }
    let error = Credentials::none()
        .store(&registry("a.b"), &login("me", "word"))
        .unwrap_err();
    assert!(error.remedy().unwrap().contains("DOCKER_CONFIG"));
}

#[test]
fn a_file_that_is_broken_stays_as_it_is() {
    for content in [
        r#"{"auths": []}"#,
        r#"{"auths": {"a": "hunter2"}}"#,
        "[]",
        r#"{"auths": {}"#,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        let credentials = open(&file);
        fs::write(&file, content).unwrap();
        for error in [
            credentials.store(&registry("a.b"), &login("me", "word")).unwrap_err(),
            credentials.forget(&registry("a.b")).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Input, "{content}: {error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn logins_at_the_same_time_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    fs::write(
        &file,
        r#"{"HttpHeaders": {"a": "b"}, "auths": {"gone.example.com": {"auth": "dTpw"}}}"#,
    )
    .unwrap();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let file = &file;
            scope.spawn(move || {
                for round in 0..4 {
                    let name = registry(&format!("r{number}-{round}.example.com"));
                    open(file).store(&name, &login("me", "word")).unwrap();
                    if number == 0 && round == 0 {
                        open(file).forget(&registry("gone.example.com")).unwrap();
                    }
                }
            });
        }
    });
    let document = document(&file);
    assert_eq!(document["auths"].as_object().unwrap().len(), 64);
    assert_eq!(document["HttpHeaders"]["a"], "b");
    assert_eq!(
        directory.path().read_dir().unwrap().count(),
        1,
        "nothing else is left there"
    );
}

#[test]
fn a_user_and_a_password_are_what_they_should_be() {
    for (user, password) in [
        ("", "x"),
        ("a:b", "x"),
        ("a\n", "x"),
        ("a", ""),
        ("a", "x\ny"),
        ("a", "x\0"),
    ] {
        assert_eq!(
            Login::new(user, password.to_owned()).unwrap_err().kind(),
            ErrorKind::Input,
            "{user} {password}"
        );
    }
}
