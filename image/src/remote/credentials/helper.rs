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

/// A helper that a file names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Helper<'a> {
    /// What follows `docker-credential-`.
    pub(super) name: &'a str,
    /// The file that names it, for messages.
    pub(super) file: &'a Path,
}

impl Helper<'_> {
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// Its credentials for `server`.
    pub(super) fn get(&self, server: &str) -> Result<Option<Login>> {
        let failed = |why: &str| self.failed("gave nothing for", server, why);
        let Some(printed) = self.run("get", server.as_bytes(), failed)? else {
            return Ok(None);
        };
        // Neither its answer nor the parser's opinion of it is shown: both hold the secret.
        let answer: Answer =
            serde_json::from_slice(&printed).map_err(|_| failed("its answer is not of docker's format"))?;
        let (user, secret) = match answer.username.as_str() {
            TOKEN_USER => (String::new(), Secret::IdentityToken(answer.secret)),
            "" => return Ok(None),
            _ => (answer.username, Secret::Password(answer.secret)),
        };
        Ok(Some(Login {
            user,
            secret,
            origin: self.program(),
        }))
    }

    /// Has it keep a login for `server`.
    pub(super) fn store(&self, server: &str, login: &Login) -> Result<()> {
        let (user, secret) = match &login.secret {
            Secret::Password(password) => (login.user.as_str(), password),
            Secret::IdentityToken(token) => (TOKEN_USER, token),
        };
        let question = serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret}).to_string();
        let failed = |why: &str| self.failed("did not keep the login for", server, why);
        match self.run("store", question.as_bytes(), failed)? {
            Some(_) => Ok(()),
            None => Err(failed(NOT_FOUND)),
        }
    }

    /// Has it forget `server`. Whether it knew any login for it.
    pub(super) fn erase(&self, server: &str) -> Result<bool> {
        // To forget what it does not know is an error with some helpers, and with others not.
        if self.get(server)?.is_none() {
            return Ok(false);
        }
        let failed = |why: &str| self.failed("did not forget the login for", server, why);
        Ok(self.run("erase", server.as_bytes(), failed)?.is_some())
    }

    fn failed(&self, what: &str, server: &str, why: &str) -> Error {
        let (program, file) = (self.program(), self.file.display());
        let what = format!("the credential helper {program}, which {file} names, {what} {server}: {why}");
        Error::new(ErrorKind::Auth, what)
    }

    /// What it prints; nothing when it says that it knows no such server.
    fn run(&self, action: &str, question: &[u8], failed: impl Fn(&str) -> Error) -> Result<Option<Vec<u8>>> {
        if self.name.contains('/') {
            return Err(failed("its name may have no `/`"));
        }
        let program = self.program();
        let spawned = Command::new(&program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| {
            let error = match error.kind() {
                std::io::ErrorKind::NotFound => failed("there is no such program in PATH"),
                _ => failed("it cannot be started").because(error),
            };
            error.hint(format!("install {program}, or take it out of {}", self.file.display()))
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may know its answer without reading the question.
            let _ = stdin.write_all(question);
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed("it broke off").because(error))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
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
        Err(failed(&format!("it ended with {}", output.status)).because(words))
    }
}
