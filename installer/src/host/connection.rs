//! A connection to a host's SSH server, by way of its jump hosts.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use russh::client::{Config, Handle, Handler, connect_stream};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Disconnect, Preferred, cipher};
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::authentication::authenticate;
use super::known_hosts;
use super::options::SshOptions;

/// So often a silent server is asked whether it is there.
const KEEP_ALIVES: u32 = 3;

/// What a connection fails with: the library's errors, or our refusal of the host's key.
#[derive(Debug)]
pub(super) enum Failure {
    Library(russh::Error),
    Refused(Error),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

/// Looks at the key of the host.
pub(super) struct Client(SshOptions);

impl Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        let options = &self.0;
        known_hosts::check(
            options.host_keys,
            &options.known_hosts,
            &options.address,
            options.port,
            key,
        )
        .map_err(Failure::Refused)?;
        Ok(true)
    }
}

/// An open connection. The jump hosts' are kept as long as it.
pub(super) struct Connection {
    pub(super) handle: Handle<Client>,
    _jumps: Vec<Handle<Client>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) async fn open(options: &SshOptions) -> Result<Self> {
        let mut jumps: Vec<Handle<Client>> = Vec::new();
        for hop in &options.jumps {
            let handle = reach(hop, jumps.last()).await.map_err(|error| {
                let what = format!("cannot reach {} by way of {}", options.name, hop.name);
                Error::new(error.kind(), what).because(error)
            })?;
            jumps.push(handle);
        }
        let handle = reach(options, jumps.last()).await?;
        Ok(Self { handle, _jumps: jumps })
    }

    pub(super) async fn close(&self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

async fn reach(options: &SshOptions, by_way_of: Option<&Handle<Client>>) -> Result<Handle<Client>> {
    let place = format!("{} ({} port {})", options.name, options.address, options.port);
    let failed = || Error::new(ErrorKind::Network, format!("cannot connect to {place}"));
    let connect = async {
        match by_way_of {
            None => {
                let stream = TcpStream::connect((options.address.as_str(), options.port))
                    .await
                    .map_err(|error| failed().because(error))?;
                prepare(&stream, options).map_err(|error| failed().because(error))?;
                agree(options, stream).await
            }
            Some(jump) => {
                let channel = jump
                    .channel_open_direct_tcpip(options.address.clone(), u32::from(options.port), "127.0.0.1", 0)
                    .await
                    .map_err(|error| failed().because(error).hint("the jump host must allow TCP forwarding"))?;
                agree(options, channel.into_stream()).await
            }
        }
    };
    let mut handle = timeout(options.connect_limit, connect)
        .await
        .map_err(|_| failed().because(format!("no answer within {:?}", options.connect_limit)))??;
    authenticate(&mut handle, options).await?;
    Ok(handle)
}

/// Small messages of a protocol must not wait for larger ones. The library does not look at the clock while it sends,
/// so the system ends a connection on which nothing arrives.
fn prepare(stream: &TcpStream, options: &SshOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let patience = options.keep_alive.saturating_mul(KEEP_ALIVES);
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, patience)?)
}

async fn agree<S>(options: &SshOptions, stream: S) -> Result<Handle<Client>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = Arc::new(config(options)?);
    connect_stream(config, stream, Client(options.clone()))
        .await
        .map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Library(error) => {
                Error::new(ErrorKind::Network, format!("cannot speak SSH with {}", options.name)).because(error)
            }
        })
}

fn config(options: &SshOptions) -> Result<Config> {
    let known = known_hosts::keys(&options.known_hosts, &options.address, options.port)?;
    let is_known = |algorithm: &Algorithm| {
        known
            .iter()
            .any(|key| key.algorithm() == *algorithm || (key.algorithm().is_rsa() && algorithm.clone().is_rsa()))
    };
    // A host has keys of several types. It is asked for one that is known first, as OpenSSH does.
    let mut keys = Preferred::DEFAULT.key.into_owned();
    keys.sort_by_key(|algorithm| !is_known(algorithm));
    // Twice as fast as the library's first choice on processors with AES.
    let mut ciphers = Preferred::DEFAULT.cipher.into_owned();
    ciphers.sort_by_key(|&name| name != cipher::AES_128_GCM);
    Ok(Config {
        preferred: Preferred {
            key: Cow::Owned(keys),
            cipher: Cow::Owned(ciphers),
            ..Preferred::DEFAULT
        },
        window_size: 8 << 20,
        maximum_packet_size: 65_535,
        channel_buffer_size: 512,
        keepalive_interval: Some(options.keep_alive),
        keepalive_max: KEEP_ALIVES as usize,
        nodelay: true,
        ..Config::default()
    })
}
