//! Which entry of which file answers for which repository.

use super::*;
use crate::error::ErrorKind;

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
