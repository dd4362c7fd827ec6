//! The server's sockets.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use rustix::net::sockopt;
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A peer that takes no byte for so long, or has vanished, is given up.
const PEER_TIMEOUT: Duration = Duration::from_secs(300);

/// The sockets that connections come in by.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Listens on all of `addresses`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a port is taken, [`ErrorKind::Input`] when an address cannot be listened on.
    pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Self> {
        if addresses.is_empty() {
            return Err(Error::new(ErrorKind::Input, "the registry has no address to listen on"));
        }
        let listeners: Result<Vec<_>> = addresses
            .iter()
            .map(|address| {
                // A socket for all IPv6 addresses takes the IPv4 ones too, unless another one is to have them.
                let is_shared = addresses
                    .iter()
                    .any(|other| other.is_ipv4() && other.port() == address.port());
                listen(address, is_shared).map_err(|error| explain(error, address))
            })
            .collect();
        Ok(Self(listeners?))
    }

    /// Where they listen, with the ports that the system chose.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }

    /// The next connection to any of them.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = poll_fn(|context| {
            let mut ready = self.0.iter().map(|listener| listener.poll_accept(context));
            ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        let timeout = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&stream, timeout)?;
        Ok(stream)
    }
}

fn listen(address: &SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            sockopt::set_ipv6_v6only(&socket, is_shared)?;
            socket
        }
    };
    // A restarted server need not wait for the old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(*address)?;
    socket.listen(BACKLOG)
}

fn explain(error: io::Error, address: &SocketAddr) -> Error {
    let port = address.port();
    let (kind, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ErrorKind::Conflict,
            format!(
                "port {port} is taken: `ss -ltnp 'sport = :{port}'` shows by whom; stop that, or choose another port with `--listen`"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::Input,
            format!("port {port} needs root rights: choose one above 1023 with `--listen`"),
        ),
        _ => (
            ErrorKind::Input,
            "listen on an address of this host, or on 0.0.0.0 for all of them".to_owned(),
        ),
    };
    Error::new(kind, format!("cannot listen on {address}"))
        .because(error)
        .hint(hint)
}
