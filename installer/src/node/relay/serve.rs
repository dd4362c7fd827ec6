//! The side that passes on.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sealrs_image::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};

use super::super::wire::{Frame, PIECE, write_bytes};
use super::keep::{Kept, Told};
use super::{Ask, Pass, provider, unusable};

/// So many hosts are served at once; more are sent away, and ask the operator.
const MOST: usize = 8;
/// A host that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who waits for bytes hears so often that there is nothing yet.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

impl Kept {
    /// Serves others what is kept, to all who have a pass of the same run, for as long as this process lives; gives the port.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the pass is of no use; when no port can be listened on.
    pub(crate) fn serve(self: &Arc<Self>, pass: &Pass) -> Result<u16> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(pass.roots()?), provider());
        let verifier = verifier.build().or_fail(ErrorKind::Internal, unusable)?;
        let (certificate, key) = pass.own()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .or_fail(ErrorKind::Internal, unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificate, key)
            .or_fail(ErrorKind::Internal, unusable)?;
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind(("0.0.0.0", 0)));
        let failed = || "cannot listen for other hosts";
        let listener = listener.or_io(failed)?;
        let port = listener.local_addr().or_io(failed)?.port();
        let (kept, config) = (Arc::downgrade(self), Arc::new(config));
        thread::spawn(move || {
            let served = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let Some(kept) = kept.upgrade() else { return };
                let Ok(stream) = stream else { continue };
                if served.fetch_add(1, Ordering::Relaxed) >= MOST {
                    served.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (served, config) = (Arc::clone(&served), Arc::clone(&config));
                thread::spawn(move || {
                    // Whoever can't be served notices.
                    let _ = serve(&kept, stream, config);
                    served.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(port)
    }
}

fn serve(kept: &Kept, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    loop {
        let asked = match Frame::read(&mut stream) {
            Ok(Some(Frame::Message(bytes))) => bytes,
            // Whoever unpacks a layer for a while asks for the next one later.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        };
        let ask: Ask = serde_json::from_slice(&asked)?;
        send(kept, &ask, &mut stream)?;
    }
}

fn send(kept: &Kept, ask: &Ask, stream: &mut StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
    let digest = ask.blob.digest;
    let mut place = ask.offset;
    let mut file = None;
    let mut buffer = vec![0; PIECE];
    loop {
        match kept.wait(digest, place, SIGN_OF_LIFE) {
            Told::Nothing => Frame::Message(Vec::new()).write(stream)?,
            Told::End => return Frame::End.write(stream),
            Told::Broken => return Frame::Broken.write(stream),
            Told::More(count) => {
                let file = match &mut file {
                    Some(file) => file,
                    None => {
                        let mut opened = kept.open(digest)?;
                        opened.seek(SeekFrom::Start(place))?;
                        file.insert(opened)
                    }
                };
                let count = usize::try_from(count).unwrap_or(PIECE).min(PIECE);
                let piece = buffer.get_mut(..count).unwrap_or_default();
                file.read_exact(piece)?;
                write_bytes(stream, piece)?;
                place += piece.len() as u64;
            }
        }
    }
}
