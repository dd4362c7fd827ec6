//! Docker's credential helpers: programs `docker-credential-NAME` that keep secrets in a key ring or fetch them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::remote::credentials::{Login, Secret};

/// What a helper prints when it knows nothing of a server.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper, which `file` names, for its credentials for `server`.
pub(super) fn get(name: &str, server: &str, file: &Path) -> Result<Option<Login>> {
    let program = format!("docker-credential-{name}");
    let failed = |why: &str| {
        Error::new(
            ErrorKind::Auth,
            format!(
                "the credential helper {program}, which {} names, gave nothing for {server}: {why}",
                file.display()
            ),
        )
    };
    if name.contains('/') {
        return Err(failed("its name may have no `/`"));
    }
    let spawned = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| {
        let error = match error.kind() {
            std::io::ErrorKind::NotFound => failed("there is no such program in PATH"),
            _ => failed("it cannot be started").because(error),
        };
        error.hint(format!("install {program}, or take it out of {}", file.display()))
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may know its answer without reading the question.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed("it broke off").because(error))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if printed.trim() == NOT_FOUND {
            return Ok(None);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let words = [printed.trim(), errors.trim()]
            .into_iter()
            .find(|words| !words.is_empty() && !words.contains('{'));
        let words: String = words
            .unwrap_or("it says nothing about why")
            .escape_debug()
            .take(300)
            .collect();
        return Err(failed(&format!("it ended with {}", output.status)).because(words));
    }
    // Neither its answer nor the parser's opinion of it is shown: both hold the secret.
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not of docker's format"))?;
    let (user, secret) = match answer.username.as_str() {
        TOKEN_USER => (String::new(), Secret::IdentityToken(answer.secret)),
        "" => return Ok(None),
        _ => (answer.username, Secret::Password(answer.secret)),
    };
    Ok(Some(Login {
        user,
        secret,
        origin: program,
    }))
}
