//! A host that is reached over SSH.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::connection::Connection;
use super::options::SshOptions;
use super::remote::{self, Ending};
use super::session::{Output, on, run, runtime};
use super::{Command, Host, Session, quote};

/// A host over SSH: one connection for all its programs, opened at first use and again when it broke.
#[derive(Debug)]
pub struct Ssh {
    options: SshOptions,
    connection: Mutex<Option<Arc<Connection>>>,
    sudo: Mutex<Option<Sudo>>,
}

/// What sudo runs, always the same: it may ask for a password for some programs and not for others, and a password that
/// it does not ask for would be read by the program.
const AS_ROOT: &str = "sh -c 'exec \"$@\"' sh";

/// A variable in the environment of a program, and of all that it starts, so that they can be found.
const MARK: &str = "SEALRS_SESSION";

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

    /// Starts a program. A connection that turns out to be broken is opened again once: nothing was started yet.
    fn start_as(&self, argv: &[String], sudo: Sudo) -> Result<Session> {
        let runtime = runtime()?;
        let limit = self.options.connect_limit;
        let lost =
            |cause: &dyn Display| Error::new(ErrorKind::Network, "cannot open a session").because(cause.to_string());
        let mark = mark()?;
        let line = sudo.line(&[&["env".to_owned(), format!("{MARK}={mark}")], argv].concat())?;
        let end = sudo.line(&Ending::argv(MARK, &mark))?;
        let mut failure = None;
        for _ in 0..2 {
            let connection = self.connection()?;
            let open = async { timeout(limit, connection.handle.channel_open_session()).await };
            let channel = match runtime.block_on(open) {
                Ok(Ok(channel)) => channel,
                Ok(Err(error @ russh::Error::ChannelOpenFailure(_))) => {
                    return Err(lost(&error).hint("the server's MaxSessions may be too small"));
                }
                broken => {
                    failure = Some(match broken {
                        Ok(Err(error)) => lost(&error),
                        _ => lost(&format_args!("no answer within {limit:?}")),
                    });
                    self.forget(&connection);
                    continue;
                }
            };
            match runtime.block_on(async { timeout(limit, channel.exec(true, line)).await }) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(lost(&error)),
                Err(_) => return Err(lost(&format_args!("nothing could be sent within {limit:?}"))),
            }
            let input = match sudo {
                Sudo::Password => format!("{}\n", self.password().map_or("", String::as_str)),
                Sudo::Not | Sudo::Free => String::new(),
            };
            let ending = Ending {
                connection,
                line: end,
                input: input.clone(),
            };
            let mut session = remote::session(runtime.handle(), channel, ending);
            // Nothing was sent before, so that there is room for it.
            if let Some(stdin) = session.stdin.as_mut().filter(|_| !input.is_empty()) {
                stdin.write_all(input.as_bytes()).map_err(|error| lost(&error))?;
            }
            return Ok(session);
        }
        Err(failure.unwrap_or_else(|| lost(&"the connection broke")))
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
        let sudo = self.find_sudo()?;
        *known = Some(sudo);
        Ok(sudo)
    }

    fn find_sudo(&self) -> Result<Sudo> {
        let SshOptions { user, name, .. } = &self.options;
        if user == "root" || self.tries(Sudo::Not, "[ \"$(id -u)\" = 0 ]")?.success() {
            return Ok(Sudo::Not);
        }
        let failed = |output: &Output| {
            let error = Error::new(ErrorKind::Auth, format!("{user} may not use sudo on {name}"));
            error.because(output.stderr.trim_end().to_owned())
        };
        let free = self.tries(Sudo::Free, "exit 0")?;
        if free.success() {
            return Ok(Sudo::Free);
        }
        if free.status == Some(127) {
            return Err(failed(&free).hint("install sudo on the host, or let the user in as root"));
        }
        if self.password().is_none() {
            return Err(failed(&free).hint("give sudo's password, or let the user in as root"));
        }
        let tried = self.tries(Sudo::Password, "exit 0")?;
        if !tried.success() {
            return Err(failed(&tried).hint("see that the password is the one that sudo takes on this host"));
        }
        Ok(Sudo::Password)
    }

    fn tries(&self, sudo: Sudo, script: &str) -> Result<Output> {
        let session = self.start_as(&["sh", "-c", script].map(str::to_owned), sudo)?;
        run(session, Duration::from_secs(30), &mut [].as_slice())
    }
}

impl Sudo {
    fn line(self, argv: &[String]) -> Result<String> {
        let line = quote::line(argv)?;
        // -k: a password that sudo remembers would not be read, and end up in the program.
        Ok(match self {
            Self::Not => line,
            Self::Free => format!("sudo -k -n -- {AS_ROOT} {line}"),
            Self::Password => format!("sudo -k -S -p '' -- {AS_ROOT} {line}"),
        })
    }
}

/// The value of [`MARK`].
fn mark() -> Result<String> {
    let mut random = [0; 16];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::new(ErrorKind::Internal, "there are no random numbers").because(error))?;
    }
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

impl Host for Ssh {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn start(&self, command: &Command) -> Result<Session> {
        let sudo = if command.sudo { self.sudo() } else { Ok(Sudo::Not) };
        sudo.and_then(|sudo| self.start_as(&command.argv, sudo))
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
