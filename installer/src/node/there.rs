//! Another host, by way of the sealrs that is put there.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::progress::{Event, Progress, Silent, Task};
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use serde::de::DeserializeOwned;

use super::wire::{Frame, PIECE, Reply, Request, write_bytes};
use super::{Begin, Node, Order};
use crate::audit::{Found, Question};
use crate::cluster::ClusterFiles;
use crate::facts::{HostFacts, Interest};
use crate::files;
use crate::host::{Command, Host, Session};
use crate::rootfs::RootfsFacts;
use crate::summary::Summary;

/// Prints the SHA-256 of the file `$1`, if it is there.
const DIGEST: &str = r#"[ ! -x "$1" ] || sha256sum <"$1""#;

/// Another host.
#[derive(Debug)]
pub(crate) struct There {
    name: String,
    session: Option<Session>,
    line: Line,
    /// The connection lasts as long as it.
    _host: Box<dyn Host>,
}

struct Line {
    output: Box<dyn Write + Send>,
    input: BufReader<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl There {
    /// Starts a sealrs on `host`, which works below `files`: the one that a cluster has there already if it is the same
    /// as `executable`, or else a copy that goes as soon as it runs.
    ///
    /// # Errors
    /// When the host can't be reached, does not let us in, or can't run it.
    pub(crate) fn connect(host: Box<dyn Host>, files: &ClusterFiles, executable: &Path) -> Result<Self> {
        let name = host.name().to_owned();
        let facts = host.facts(false)?;
        let sudo = facts.uid != 0;
        if facts.machine != std::env::consts::ARCH {
            let what = format!(
                "{name} is a {} and this sealrs is for {}",
                facts.machine,
                std::env::consts::ARCH
            );
            return Err(Error::new(ErrorKind::Preflight, what)
                .hint("start the installation from a host of the same architecture"));
        }
        let as_user = |mut command: Command| {
            if sudo {
                command = command.sudo();
            }
            command
        };
        let (digest, size) = own_digest(executable)?;
        let kept = files.program().display().to_string();
        let look = Command::new("sh").args(["-c", DIGEST, "sh", &kept]);
        let there = host.run(&as_user(look))?;
        let known = String::from_utf8_lossy(&there.stdout).starts_with(&digest.hex());
        let mut words = vec!["node", "serve"];
        let program = if known {
            kept
        } else {
            let folder = if sudo { host.facts(true)?.folder } else { facts.folder };
            let folder = folder.ok_or_else(|| {
                Error::new(
                    ErrorKind::Preflight,
                    format!("{name} has no folder that a program can be started from"),
                )
                .hint("mount /var/lib, /opt or /usr/local without `noexec`, and with some room")
            })?;
            let program = format!("{folder}/.sealrs-{}", files.cluster());
            let mut own =
                std::fs::File::open(executable).or_read(|| format!("cannot read {}", executable.display()))?;
            host.upload(&program, 0o700, &mut own, size, sudo)?;
            words.push("--passing");
            program
        };
        let command = Command::new(program).args(words);
        let mut session = host.start(&as_user(command))?;
        let broken = || Error::new(ErrorKind::Internal, "a session without standard input and output");
        let output = session.take_stdin().ok_or_else(broken)?;
        let input = session.take_stdout().ok_or_else(broken)?;
        Ok(Self {
            name,
            session: Some(session),
            line: Line {
                output,
                input: BufReader::with_capacity(64 << 10, input),
            },
            _host: host,
        })
    }

    /// Asks for something, and does for the host meanwhile what it needs.
    fn ask<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        source: Option<&dyn Source>,
        progress: &dyn Progress,
        task: Option<&Task<'_>>,
    ) -> Result<T> {
        let sent = Frame::json(request)
            .or_fail(ErrorKind::Internal, || "cannot write a request")?
            .write(&mut self.line.output);
        if let Err(error) = sent {
            return Err(self.broken(error));
        }
        // What went wrong on this side counts more than what the host makes of it.
        let mut own_failure = None;
        loop {
            let frame = match Frame::read(&mut self.line.input) {
                Ok(Some(Frame::Message(bytes))) => bytes,
                Ok(Some(_)) => return Err(self.broken(std::io::Error::other("a reply was expected"))),
                Ok(None) => return Err(self.broken(std::io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(self.broken(error)),
            };
            let reply = serde_json::from_slice(&frame).or_fail(ErrorKind::Network, || {
                format!("{} says what can't be understood", self.name)
            })?;
            match reply {
                Reply::Message(text) => progress.event(Event::Message(&text)),
                Reply::Warning(text) => progress.event(Event::Warning(&text)),
                Reply::Want { blob, offset } => {
                    let sent = self.send(source, &blob, offset, task);
                    own_failure = own_failure.or(sent.err());
                }
                Reply::Answer(value) => {
                    return serde_json::from_value(value).or_fail(ErrorKind::Network, || {
                        format!("{} gives an answer that can't be understood", self.name)
                    });
                }
                Reply::Failed(failure) => return Err(own_failure.unwrap_or_else(|| failure.into())),
            }
        }
    }

    /// Sends a blob. What can't be sent because the host is gone shows when its reply is read.
    fn send(
        &mut self,
        source: Option<&dyn Source>,
        blob: &Descriptor,
        offset: u64,
        task: Option<&Task<'_>>,
    ) -> Result<()> {
        let sent = self.send_bytes(source, blob, offset, task);
        let end = if sent.is_ok() { Frame::End } else { Frame::Broken };
        let _ = end.write(&mut self.line.output);
        sent
    }

    fn send_bytes(
        &mut self,
        source: Option<&dyn Source>,
        blob: &Descriptor,
        offset: u64,
        task: Option<&Task<'_>>,
    ) -> Result<()> {
        let source = source.ok_or_else(|| Error::new(ErrorKind::Internal, "nothing is being unpacked"))?;
        let mut reader = source.open(blob, offset)?;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = reader
                .read(&mut buffer)
                .or_io(|| format!("cannot read {} of {}", blob.digest, source.origin()))?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
                return Ok(());
            };
            if write_bytes(&mut self.line.output, piece).is_err() {
                return Ok(());
            }
            if let Some(task) = task {
                task.advance(count as u64);
            }
        }
    }

    /// The connection is of no use any more: what the sealrs there, or whatever stood in its way, said last tells why.
    fn broken(&mut self, error: std::io::Error) -> Error {
        let what = format!("the connection to {} broke", self.name);
        let last = self.session.take().map(|session| session.wait(Duration::from_secs(5)));
        let error = match last {
            Some(Ok(output)) if !output.stderr.trim().is_empty() => {
                Error::new(ErrorKind::Network, what).because(Error::new(ErrorKind::Network, output.stderr.trim()))
            }
            Some(Err(end)) => Error::new(ErrorKind::Network, what).because(end),
            _ => Error::new(ErrorKind::Network, what).because(error),
        };
        error.hint("see that the host is up, and run the same command again to go on from here")
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request, progress: &dyn Progress) -> Result<T> {
        self.ask(request, None, progress, None)
    }
}

impl Node for There {
    fn facts(&mut self, interest: &Interest) -> Result<HostFacts> {
        self.call(&Request::Facts(interest.clone()), &Silent)
    }

    fn begin(&mut self, begin: &Begin, _: &[PathBuf]) -> Result<()> {
        self.call(&Request::Begin(Box::new(begin.clone())), &Silent)
    }

    fn unpack(&mut self, source: &dyn Source, image: &ClusterImage, progress: &dyn Progress) -> Result<()> {
        let task = Task::begin(progress, "sending the image", Some(image.packed_size()));
        let request = Request::Unpack(Box::new(image.clone()));
        self.ask(&request, Some(source), progress, Some(&task))
    }

    fn rootfs(&mut self) -> Result<RootfsFacts> {
        self.call(&Request::Rootfs, &Silent)
    }

    fn execute(&mut self, order: &Order, progress: &dyn Progress) -> Result<()> {
        self.call(&Request::Execute(Box::new(order.clone())), progress)
    }

    fn read(&mut self, path: &Path) -> Result<Option<String>> {
        self.call(&Request::Read(path.to_owned()), &Silent)
    }

    fn audit(&mut self, question: &Question, progress: &dyn Progress) -> Result<Found> {
        self.call(&Request::Audit(Box::new(question.clone())), progress)
    }

    fn delete(&mut self, root: &Path, cluster: &str, progress: &dyn Progress) -> Result<Summary> {
        let request = Request::Delete {
            root: root.to_owned(),
            cluster: cluster.to_owned(),
        };
        self.call(&request, progress)
    }
}

/// Digest and size of this program.
fn own_digest(executable: &Path) -> Result<(Digest, u64)> {
    static KNOWN: OnceLock<(PathBuf, Digest, u64)> = OnceLock::new();
    if let Some((_, digest, size)) = KNOWN.get().filter(|(path, ..)| path == executable) {
        return Ok((*digest, *size));
    }
    let place = || format!("cannot read {}", executable.display());
    // `/proc/self/exe` is a link; what it leads to counts, even when it has no name any more.
    let mut file = std::fs::File::open(executable).or_read(place)?;
    let size = file.metadata().or_read(place)?.len();
    let digest = files::digest_of(&mut file).or_read(place)?;
    let _ = KNOWN.set((executable.to_owned(), digest, size));
    Ok((digest, size))
}
