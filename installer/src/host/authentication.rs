//! Proving who we are, in OpenSSH's order: agent, keys, keyboard-interactive, password.

use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, load_secret_key};
use russh::{MethodKind, MethodSet};
use sealrs_image::error::{Error, ErrorKind, Result};

use super::connection::Client;
use super::options::SshOptions;

/// What was tried, and what the server would take.
struct Attempt<'a> {
    handle: &'a mut Handle<Client>,
    options: &'a SshOptions,
    offered: MethodSet,
    tried: Vec<String>,
}

pub(super) async fn authenticate(handle: &mut Handle<Client>, options: &SshOptions) -> Result<()> {
    let mut attempt = Attempt {
        handle,
        options,
        offered: MethodSet::empty(),
        tried: Vec::new(),
    };
    let end = attempt.all().await;
    match end {
        Ok(true) => Ok(()),
        Ok(false) => Err(attempt.refused()),
        Err(error) => Err(attempt.refused().because(error)),
    }
}

impl Attempt<'_> {
    async fn all(&mut self) -> Result<bool, russh::Error> {
        let none = self.handle.authenticate_none(self.options.user.clone()).await?;
        if self.note(&none) {
            return Ok(true);
        }
        if self.takes(MethodKind::PublicKey) {
            let rsa = self.handle.best_supported_rsa_hash().await?;
            let rsa = rsa.unwrap_or(Some(HashAlg::Sha256));
            if self.agent(rsa).await? || self.keys(rsa).await? {
                return Ok(true);
            }
        }
        let Some(password) = &self.options.password else {
            return Ok(false);
        };
        if self.takes(MethodKind::KeyboardInteractive) && self.keyboard(password).await? {
            return Ok(true);
        }
        if self.takes(MethodKind::Password) {
            self.tried.push("password".to_owned());
            let user = self.options.user.clone();
            let answer = self.handle.authenticate_password(user, password.clone()).await?;
            return Ok(self.note(&answer));
        }
        Ok(false)
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.offered.contains(&method)
    }

    fn note(&mut self, answer: &AuthResult) -> bool {
        if let AuthResult::Failure { remaining_methods, .. } = answer {
            self.offered = remaining_methods.clone();
        }
        answer.success()
    }

    async fn agent(&mut self, rsa: Option<HashAlg>) -> Result<bool, russh::Error> {
        let Some(socket) = &self.options.agent else {
            return Ok(false);
        };
        let keys = async {
            let mut agent = AgentClient::connect_uds(socket).await?;
            let keys = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, keys))
        };
        let (mut agent, keys) = match keys.await {
            Ok(found) => found,
            Err(error) => {
                self.tried.push(format!("agent {} ({error})", socket.display()));
                return Ok(false);
            }
        };
        for identity in keys {
            let AgentIdentity::PublicKey { key, .. } = identity else {
                continue;
            };
            let print = key.fingerprint(HashAlg::Sha256);
            let hash = rsa.filter(|_| key.algorithm().is_rsa());
            let user = self.options.user.clone();
            let answer = self
                .handle
                .authenticate_publickey_with(user, key, hash, &mut agent)
                .await;
            match answer {
                Ok(answer) if self.note(&answer) => return Ok(true),
                Ok(_) => self.tried.push(format!("agent's key {print}")),
                Err(error) => self.tried.push(format!("agent's key {print} ({error})")),
            }
            if self.handle.is_closed() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn keys(&mut self, rsa: Option<HashAlg>) -> Result<bool, russh::Error> {
        for file in &self.options.identities {
            let key = match load_secret_key(file, self.options.passphrase.as_deref()) {
                Ok(key) => key,
                Err(error) => {
                    self.tried.push(format!("key {} ({error})", file.display()));
                    continue;
                }
            };
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), rsa);
            let answer = self
                .handle
                .authenticate_publickey(self.options.user.clone(), key)
                .await?;
            if self.note(&answer) {
                return Ok(true);
            }
            self.tried.push(format!("key {}", file.display()));
        }
        Ok(false)
    }

    /// The password answers every question that is not to be seen; a few rounds are all that is played.
    async fn keyboard(&mut self, password: &str) -> Result<bool, russh::Error> {
        self.tried.push("keyboard-interactive".to_owned());
        let user = self.options.user.clone();
        let mut answer = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        for _ in 0..5 {
            let prompts = match answer {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, .. } => {
                    self.offered = remaining_methods;
                    return Ok(false);
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
            };
            let reply = |echo: bool| if echo { String::new() } else { password.to_owned() };
            let replies = prompts.iter().map(|prompt| reply(prompt.echo)).collect();
            answer = self.handle.authenticate_keyboard_interactive_respond(replies).await?;
        }
        Ok(false)
    }

    fn refused(&self) -> Error {
        let SshOptions { user, name, .. } = self.options;
        let tried = match self.tried.as_slice() {
            [] => "nothing, for there is no key, agent or password that it takes".to_owned(),
            tried => tried.join(", "),
        };
        let offered: Vec<String> = self.offered.iter().map(String::from).collect();
        let what = format!(
            "{name} does not let {user} in; tried: {tried}; it takes: {}",
            offered.join(", ")
        );
        Error::new(ErrorKind::Auth, what).hint("see that user, key and password are those of this host")
    }
}
