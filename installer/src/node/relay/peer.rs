//! The side that is passed on to.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use sealrs_image::error::{ErrorKind, Result, ResultExt as _};
use sealrs_image::progress::{Event, Progress};
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;

use super::super::wire::Frame;
use super::{Ask, Upstream, provider, unusable};

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A host that sends not even a sign of life for so long is gone.
const PATIENCE: Duration = Duration::from_secs(40);

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// What another host passes on, and what the operator sends where that ends.
pub(in super::super) struct Relayed<'r> {
    operator: &'r dyn Source,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    line: Mutex<Line>,
    progress: &'r dyn Progress,
}

/// The connection to the other host.
enum Line {
    /// None yet, or none any more.
    Closed,
    Open(Box<Connection>),
    /// It is of no use.
    GivenUp,
}

impl<'r> Relayed<'r> {
    /// # Errors
    /// [`ErrorKind::Internal`] when the pass is of no use.
    pub(in super::super) fn new(
        operator: &'r dyn Source,
        upstream: &Upstream,
        progress: &'r dyn Progress,
    ) -> Result<Self> {
        let (certificate, key) = upstream.pass.own()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .or_fail(ErrorKind::Internal, unusable)?
            .with_root_certificates(upstream.pass.roots()?)
            .with_client_auth_cert(certificate, key)
            .or_fail(ErrorKind::Internal, unusable)?;
        Ok(Self {
            operator,
            address: upstream.address,
            config: Arc::new(config),
            line: Mutex::new(Line::Closed),
            progress,
        })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> io::Result<Box<Connection>> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }

    /// Asks for a blob; none when the other host was given up before.
    fn ask(&self, blob: &Descriptor, offset: u64) -> io::Result<Option<Box<Connection>>> {
        let line = std::mem::replace(&mut *self.line(), Line::Closed);
        let mut connection = match line {
            Line::GivenUp => {
                *self.line() = Line::GivenUp;
                return Ok(None);
            }
            Line::Open(connection) => connection,
            Line::Closed => self.connect()?,
        };
        let blob = Descriptor::new(&blob.media_type, blob.digest, blob.size);
        Frame::json(&Ask { blob, offset })?.write(&mut connection)?;
        Ok(Some(connection))
    }

    /// One failure is enough: what follows would only take longer.
    fn give_up(&self, error: &io::Error) {
        *self.line() = Line::GivenUp;
        let host = self.address.ip();
        self.progress.event(Event::Warning(&format!(
            "{host} can't pass the image on ({error}), so it comes from the operator"
        )));
    }
}

impl Source for Relayed<'_> {
    fn origin(&self) -> String {
        format!("host {}", self.address.ip())
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let connection = self.ask(blob, offset).unwrap_or_else(|error| {
            self.give_up(&error);
            None
        });
        let Some(connection) = connection else {
            return self.operator.open(blob, offset);
        };
        Ok(Box::new(Blob {
            relayed: self,
            blob: blob.clone(),
            place: offset,
            from: From::Peer(connection),
            piece: Vec::new(),
            read: 0,
        }))
    }
}

/// A blob on its way.
struct Blob<'r> {
    relayed: &'r Relayed<'r>,
    blob: Descriptor,
    place: u64,
    from: From<'r>,
    piece: Vec<u8>,
    read: usize,
}

enum From<'r> {
    Peer(Box<Connection>),
    Operator(Box<dyn Read + Send + 'r>),
    Nobody,
}

impl Blob<'_> {
    /// The next piece that the other host sends; none at the end.
    fn next(connection: &mut Connection) -> io::Result<Option<Vec<u8>>> {
        let gone = |what: &str| Err(io::Error::new(io::ErrorKind::BrokenPipe, what));
        loop {
            match Frame::read(connection)? {
                Some(Frame::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Frame::End) => return Ok(None),
                Some(Frame::Message(_)) => {}
                Some(Frame::Broken) => return gone("it does not have it itself"),
                None => return gone("the connection broke"),
            }
        }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.piece.get(self.read..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buffer.len());
                if let (Some(from), Some(to)) = (rest.get(..count), buffer.get_mut(..count)) {
                    to.copy_from_slice(from);
                }
                self.read += count;
                self.place += count as u64;
                return Ok(count);
            }
            match &mut self.from {
                From::Nobody => return Ok(0),
                From::Operator(reader) => {
                    let count = reader.read(buffer)?;
                    self.place += count as u64;
                    return Ok(count);
                }
                From::Peer(connection) => match Self::next(connection) {
                    Ok(Some(piece)) => (self.piece, self.read) = (piece, 0),
                    Ok(None) => {
                        if let From::Peer(connection) = std::mem::replace(&mut self.from, From::Nobody) {
                            *self.relayed.line() = Line::Open(connection);
                        }
                    }
                    Err(error) => {
                        self.relayed.give_up(&error);
                        let reader = self
                            .relayed
                            .operator
                            .open(&self.blob, self.place)
                            .map_err(io::Error::other)?;
                        self.from = From::Operator(reader);
                    }
                },
            }
        }
    }
}
