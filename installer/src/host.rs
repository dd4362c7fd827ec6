//! A host programs are run on: this one ([`Local`]) or one that is reached over SSH ([`Ssh`]).
//!
//! Blocking; the runtime of the SSH library is hidden inside. Needs a shell on the host and no SFTP.

mod authentication;
mod connection;
mod facts;
mod known_hosts;
mod local;
mod options;
mod pipe;
mod quote;
mod remote;
mod session;
mod ssh;

use std::fmt::Debug;
use std::io::Read;
use std::time::Duration;

use sealrs_image::error::Result;

pub use facts::HostFacts;
pub use local::Local;
pub use options::{HostKeyPolicy, SshOptions};
pub use session::{Output, Session};
pub use ssh::Ssh;

/// Writes standard input to `$1` by way of a file beside it, if it is `$3` bytes, with mode `$2`. Older programs called
/// sync take no file.
const RECEIVE: &str = r#"umask 077; part="$1.part.$$"; trap 'rm -f "$part"' EXIT; trap 'exit 1' HUP INT PIPE TERM
[ ! -d "$1" ] || { echo "$1 is a folder" >&2; exit 1; }
cat >"$part" || exit 1
[ "$(wc -c <"$part")" -eq "$3" ] || { echo "not all of $1 arrived" >&2; exit 1; }
chmod "$2" "$part" && { sync "$part" 2>/dev/null || sync; } && mv -f "$part" "$1""#;

/// A program to run, with its arguments as they are: no shell of the host interprets them.
#[derive(Clone)]
pub struct Command {
    argv: Vec<String>,
    stdin: Vec<u8>,
    limit: Duration,
    sudo: bool,
}

/// Without what it reads, which may be secret.
impl Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("argv", &self.argv)
            .field("limit", &self.limit)
            .field("sudo", &self.sudo)
            .finish_non_exhaustive()
    }
}

impl Command {
    /// A program without arguments, with five minutes' time.
    #[must_use]
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            argv: vec![program.into()],
            stdin: Vec::new(),
            limit: Duration::from_secs(300),
            sudo: false,
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With these bytes as standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Ended after this time.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// As root.
    #[must_use]
    pub fn sudo(mut self) -> Self {
        self.sudo = true;
        self
    }

    /// The program's name, for messages.
    fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// Where programs are run.
pub trait Host: Send + Sync + Debug {
    /// What the host is called in messages.
    fn name(&self) -> &str;

    /// Starts a program to talk to. [`Command::stdin`] is not sent: the caller has the program's standard input.
    fn start(&self, command: &Command) -> Result<Session>;

    /// Runs a program to its end.
    fn run(&self, command: &Command) -> Result<Output> {
        self.run_with(command, &mut command.stdin.as_slice())
    }

    /// Runs a program to its end with what `input` gives as standard input. The limit ends the program, but cannot
    /// interrupt an `input` that waits for its own source.
    fn run_with(&self, command: &Command, input: &mut (dyn Read + Send)) -> Result<Output> {
        session::run(self.start(command)?, command.limit, input)
            .map_err(|error| session::on(self.name(), command.program(), error))
    }

    /// Writes a file of `len` bytes: all of it, with its mode, or nothing.
    fn upload(&self, path: &str, mode: u32, input: &mut (dyn Read + Send), len: u64, sudo: bool) -> Result<()> {
        let mut command = Command::new("sh")
            .args(["-c", RECEIVE, "sh", path])
            .args([format!("{mode:o}"), len.to_string()])
            // Half a mebibyte a second is the slowest that is waited for.
            .limit(Duration::from_secs(60 + len / (512 << 10)));
        command.sudo = sudo;
        self.run_with(&command, input)?
            .checked(&format!("cannot write {path} on {}", self.name()))?;
        Ok(())
    }

    /// Looks at the host.
    fn facts(&self, sudo: bool) -> Result<HostFacts> {
        let mut command = facts::command();
        command.sudo = sudo;
        facts::parse(
            &self
                .run(&command)?
                .checked(&format!("cannot look at {}", self.name()))?,
        )
    }
}
