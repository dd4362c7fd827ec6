//! A relay in front of a server that counts what clients send through it, and can break all connections at a point.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Debug, Default)]
struct State {
    sent: AtomicU64,
    connections: AtomicU64,
    /// Connections break when so many bytes have been sent in all; the smallest comes first.
    cuts: Mutex<Vec<u64>>,
    open: Mutex<Vec<TcpStream>>,
}

/// The relay. Its threads end with the test's process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// Relays to `upstream`; `pause` is waited after each 64 KiB that a client sends.
    pub fn start(upstream: SocketAddr, pause: Duration, cuts: &[u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        *state.cuts.lock().unwrap() = cuts.to_vec();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else {
                    continue;
                };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                shared.open.lock().unwrap().push(client.try_clone().unwrap());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let state = Arc::clone(&shared);
                thread::spawn(move || up(from, to, pause, &state));
                thread::spawn(move || {
                    let (mut server, mut client) = (server, client);
                    let _ = std::io::copy(&mut server, &mut client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, state }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Bytes that clients have sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Connections that clients have made.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

fn up(mut from: TcpStream, mut to: TcpStream, pause: Duration, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        let sent = state.sent.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        let due = {
            let mut cuts = state.cuts.lock().unwrap();
            let before = cuts.len();
            cuts.retain(|cut| *cut > sent);
            cuts.len() < before
        };
        if due {
            // What came so far reaches the server: the sizes of the kernels' buffers are nobody's merit.
            thread::sleep(Duration::from_millis(200));
            for open in state.open.lock().unwrap().drain(..) {
                let _ = open.shutdown(Shutdown::Both);
            }
            break;
        }
        if read == buffer.len() {
            thread::sleep(pause);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
