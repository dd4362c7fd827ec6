//! A host that is reached over SSH.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::connection::Connection;
use super::options::SshOptions;
use super::session::{Output, on, run};
use super::{Command, Host, Session, quote, remote};

/// A host over SSH: one connection for all its programs, opened at first use and again when it broke.
#[derive(Debug)]
pub struct Ssh {
    options: SshOptions,
    connection: Mutex<Option<Arc<Connection>>>,
    sudo: Mutex<Option<Sudo>>,
}

/// How the user becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sudo {
    /// Is root.
    Not,
    /// Without a password.
    Free,
    /// With a password on standard input.
    Password,
}

/// One runtime for all hosts.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .thread_name("ssh")
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, "cannot start threads").because(error))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

impl Ssh {
    /// The host; nothing is connected yet.
    #[must_use]
    pub fn new(options: SshOptions) -> Self {
        Self {
            options,
            connection: Mutex::default(),
            sudo: Mutex::default(),
        }
    }

    /// Connects and authenticates, unless that is done.
    pub fn connect(&self) -> Result<()> {
        self.connection().map(drop)
    }

    fn connection(&self) -> Result<Arc<Connection>> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = kept.as_ref().filter(|open| !open.handle.is_closed()) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(runtime()?.block_on(Connection::open(&self.options))?);
        *kept = Some(Arc::clone(&open));
        Ok(open)
    }

    fn forget(&self, broken: &Arc<Connection>) {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|open| Arc::ptr_eq(open, broken));
    }

    /// Starts a line of shell. A connection that turns out to be broken is opened again once: nothing was started yet.
    fn start_line(&self, line: &str) -> Result<Session> {
        let runtime = runtime()?;
        let limit = self.options.connect_limit;
        let open =
            |connection: Arc<Connection>| async move { timeout(limit, connection.handle.channel_open_session()).await };
        let lost = |cause: String| Error::new(ErrorKind::Network, "cannot open a session").because(cause);
        let mut last = None;
        for _ in 0..2 {
            let connection = self.connection()?;
            let channel = match runtime.block_on(open(Arc::clone(&connection))) {
                Ok(Ok(channel)) => channel,
                Ok(Err(error @ russh::Error::ChannelOpenFailure(_))) => {
                    return Err(lost(error.to_string()).hint("the server's MaxSessions may be too small"));
                }
                Ok(Err(error)) => {
                    last = Some(error.to_string());
                    self.forget(&connection);
                    continue;
                }
                Err(_) => {
                    last = Some(format!("no answer within {limit:?}"));
                    self.forget(&connection);
                    continue;
                }
            };
            runtime
                .block_on(channel.exec(true, line))
                .map_err(|error| lost(error.to_string()))?;
            return Ok(remote::session(runtime.handle(), channel));
        }
        Err(lost(last.unwrap_or_default()))
    }

    fn password(&self) -> Option<&String> {
        self.options.sudo_password.as_ref().or(self.options.password.as_ref())
    }

    /// Finds out how to become root. With a free sudo no password may be sent: the program would read it.
    fn sudo(&self) -> Result<Sudo> {
        let mut known = self.sudo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sudo) = *known {
            return Ok(sudo);
        }
        let sudo = if self.options.user == "root" || self.try_line("[ \"$(id -u)\" = 0 ]", "")?.success() {
            Sudo::Not
        } else if self.try_line("sudo -k -n true", "")?.success() {
            Sudo::Free
        } else {
            let user = &self.options.user;
            let failed = || {
                Error::new(
                    ErrorKind::Auth,
                    format!("{user} may not use sudo on {}", self.options.name),
                )
            };
            let password = self
                .password()
                .ok_or_else(|| failed().hint("give sudo's password, or let the user in as root"))?;
            let tried = self.try_line("sudo -k -S -p '' true", &format!("{password}\n"))?;
            if !tried.success() {
                return Err(failed().because(tried.stderr.trim_end().to_owned()));
            }
            Sudo::Password
        };
        *known = Some(sudo);
        Ok(sudo)
    }

    fn try_line(&self, line: &str, input: &str) -> Result<Output> {
        let session = self.start_line(line)?;
        run(session, Duration::from_secs(30), &mut input.as_bytes())
    }

    fn start_as(&self, command: &Command) -> Result<Session> {
        let line = quote::line(&command.argv)?;
        let sudo = if command.sudo { self.sudo()? } else { Sudo::Not };
        match sudo {
            Sudo::Not => self.start_line(&line),
            Sudo::Free => self.start_line(&format!("sudo -n -- {line}")),
            Sudo::Password => {
                // -k: a password that sudo remembers would not be read, and end up in the program.
                let mut session = self.start_line(&format!("sudo -k -S -p '' -- {line}"))?;
                let password = self.password().map(String::as_str).unwrap_or_default();
                if let Some(stdin) = &mut session.stdin {
                    stdin
                        .write_all(format!("{password}\n").as_bytes())
                        .map_err(|error| Error::new(ErrorKind::Network, "cannot answer sudo").because(error))?;
                }
                Ok(session)
            }
        }
    }
}

impl Host for Ssh {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn start(&self, command: &Command) -> Result<Session> {
        self.start_as(command)
            .map_err(|error| on(self.name(), command.program(), error))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let kept = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(open), Ok(runtime)) = (kept.take(), runtime()) {
            runtime.spawn(async move { open.close().await });
        }
    }
}
