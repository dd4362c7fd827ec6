//! Proving who we are: keys that were named, keys of the agent, keyboard-interactive, password.

use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, load_public_key, load_secret_key};
use russh::{MethodKind, MethodSet};
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::connection::Client;
use super::options::SshOptions;

/// OpenSSH's servers end the connection at the sixth failure (`MaxAuthTries`).
const MOST_KEYS: usize = 5;
/// With a password, tries are left for it.
const MOST_KEYS_BESIDE_PASSWORD: usize = 3;

/// What was tried, and what the server would take.
struct Attempt<'a> {
    handle: &'a mut Handle<Client>,
    options: &'a SshOptions,
    agent: Option<Agent>,
    offered: MethodSet,
    tried: Vec<String>,
}

/// A connection to an agent, and its keys.
struct Agent {
    client: AgentClient<UnixStream>,
    keys: Vec<PublicKey>,
}

pub(super) async fn authenticate(handle: &mut Handle<Client>, options: &SshOptions) -> Result<()> {
    let mut attempt = Attempt {
        handle,
        options,
        agent: None,
        offered: MethodSet::empty(),
        tried: Vec::new(),
    };
    let end = timeout(options.auth_limit, attempt.all()).await;
    match end {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(attempt.refused()),
        Ok(Err(error)) => Err(attempt.refused().because(error)),
        Err(_) => {
            let what = format!(
                "{} did not finish authentication of {} within {:?}; tried: {}",
                options.name,
                options.user,
                options.auth_limit,
                attempt.tried.join(", ")
            );
            Err(Error::new(ErrorKind::Network, what))
        }
    }
}

impl Attempt<'_> {
    async fn all(&mut self) -> Result<bool, russh::Error> {
        let none = self.handle.authenticate_none(self.options.user.clone()).await?;
        if self.note(&none) {
            return Ok(true);
        }
        if self.takes(MethodKind::PublicKey) && self.keys().await? {
            return Ok(true);
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
        !self.handle.is_closed() && self.offered.contains(&method)
    }

    fn note(&mut self, answer: &AuthResult) -> bool {
        if let AuthResult::Failure {
            remaining_methods,
            partial_success,
        } = answer
        {
            // The library gives none when the server ended the connection.
            if !remaining_methods.is_empty() {
                self.offered = remaining_methods.clone();
            }
            if let Some(tried) = self.tried.last_mut().filter(|_| *partial_success) {
                tried.push_str(" (accepted, but not enough)");
            }
        }
        answer.success()
    }

    /// The files in their order, then what else the agent has.
    async fn keys(&mut self) -> Result<bool, russh::Error> {
        let rsa = self.handle.best_supported_rsa_hash().await?;
        let rsa = rsa.unwrap_or(Some(HashAlg::Sha256));
        self.agent = self.connect_agent().await;
        let mut shown: Vec<PublicKey> = Vec::new();
        let files: &[_] = &self.options.identities;
        for file in files {
            let place = file.display();
            let is_in = match load(file, self.options.passphrase.as_deref()) {
                Ok(key) => {
                    shown.push(key.public_key().clone());
                    self.tried.push(format!("key {place}"));
                    self.show(key, rsa).await?
                }
                Err(error) => match self.locked(file) {
                    Some(key) => {
                        shown.push(key.clone());
                        self.tried.push(format!("key {place} (by the agent)"));
                        self.show_by_agent(key, rsa).await?
                    }
                    None => {
                        self.tried.push(format!("key {place} ({error})"));
                        continue;
                    }
                },
            };
            if is_in || !self.takes(MethodKind::PublicKey) {
                return Ok(is_in);
            }
        }
        let most = self
            .options
            .password
            .as_ref()
            .map_or(MOST_KEYS, |_| MOST_KEYS_BESIDE_PASSWORD);
        let room = most.saturating_sub(shown.len());
        let others = self.agent.iter().flat_map(|agent| &agent.keys);
        let is_new = |key: &&PublicKey| shown.iter().all(|shown| shown.key_data() != key.key_data());
        let others: Vec<PublicKey> = others.filter(is_new).cloned().collect();
        let count = others.len();
        for key in others.into_iter().take(room) {
            self.tried
                .push(format!("agent's key {}", key.fingerprint(HashAlg::Sha256)));
            let is_in = self.show_by_agent(key, rsa).await?;
            if is_in || !self.takes(MethodKind::PublicKey) {
                return Ok(is_in);
            }
        }
        if let left @ 1.. = count.saturating_sub(room) {
            self.tried.push(format!(
                "none of {left} more keys of the agent, for a server bears only some tries"
            ));
        }
        Ok(false)
    }

    async fn connect_agent(&mut self) -> Option<Agent> {
        let socket = self.options.agent.as_ref()?;
        let found = async {
            let mut client = AgentClient::connect_uds(socket).await?;
            let identities = client.request_identities().await?;
            let keys = identities.into_iter().filter_map(|identity| match identity {
                AgentIdentity::PublicKey { key, .. } => Some(key),
                AgentIdentity::Certificate { .. } => None,
            });
            let keys = keys.collect();
            Ok::<_, russh::keys::Error>(Agent { client, keys })
        };
        match found.await {
            Ok(agent) => Some(agent),
            Err(error) => {
                self.tried.push(format!("agent {} ({error})", socket.display()));
                None
            }
        }
    }

    /// The key of a file that cannot be opened, if the agent has it.
    fn locked(&self, file: &Path) -> Option<PublicKey> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".pub");
        // The public part of a locked key is readable in OpenSSH's own format.
        let inside = || {
            PrivateKey::read_openssh_file(file)
                .ok()
                .map(|key| key.public_key().clone())
        };
        let key = load_public_key(&beside).ok().or_else(inside)?;
        let keys = &self.agent.as_ref()?.keys;
        keys.iter().find(|known| known.key_data() == key.key_data()).cloned()
    }

    async fn show(&mut self, key: PrivateKey, rsa: Option<HashAlg>) -> Result<bool, russh::Error> {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), rsa);
        let user = self.options.user.clone();
        let answer = self.handle.authenticate_publickey(user, key).await?;
        Ok(self.note(&answer))
    }

    /// An agent that does not sign is noted; other keys may do.
    async fn show_by_agent(&mut self, key: PublicKey, rsa: Option<HashAlg>) -> Result<bool, russh::Error> {
        let Some(agent) = &mut self.agent else {
            return Ok(false);
        };
        let hash = rsa.filter(|_| key.algorithm().is_rsa());
        let user = self.options.user.clone();
        let client = &mut agent.client;
        match self.handle.authenticate_publickey_with(user, key, hash, client).await {
            Ok(answer) => Ok(self.note(&answer)),
            Err(error) => {
                if let Some(tried) = self.tried.last_mut() {
                    tried.push_str(&format!(" ({error})"));
                }
                Ok(false)
            }
        }
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
                    if !remaining_methods.is_empty() {
                        self.offered = remaining_methods;
                    }
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
        let closed = if self.handle.is_closed() {
            ", but ended the connection"
        } else {
            ""
        };
        let what = format!(
            "{name} does not let {user} in; tried: {tried}; it takes: {}{closed}",
            offered.join(", ")
        );
        Error::new(ErrorKind::Auth, what).hint("see that user, key and password are those of this host")
    }
}

/// The passphrase may be another key's: in some formats a key that is not locked cannot be read with one.
fn load(file: &Path, passphrase: Option<&str>) -> Result<PrivateKey, russh::keys::Error> {
    load_secret_key(file, passphrase).or_else(|error| match passphrase {
        Some(_) => load_secret_key(file, None).map_err(|_| error),
        None => Err(error),
    })
}
