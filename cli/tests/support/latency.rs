//! A relay that makes the way to a server long, and writes down what it is asked for.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The relay. Its threads end with the test's process.
#[derive(Debug)]
pub struct LongWay {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl LongWay {
    /// Relays to `upstream`. What is sent arrives `each_way` later, in both directions, however much it is: the way
    /// is long and not narrow. That a connection comes up takes no time.
    pub fn start(upstream: SocketAddr, each_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else {
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (there, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let mut lines = Lines {
                    log: Arc::clone(&log),
                    line: Vec::new(),
                };
                delay(there, server, each_way, move |bytes| lines.read(bytes));
                delay(back, client, each_way, |_| {});
            }
        });
        Self { address, requests }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The first lines of all requests that came: `GET /v2/ HTTP/1.1`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Moves bytes one way, each piece after a time; `see` is told of them when they come.
fn delay(mut from: TcpStream, to: TcpStream, time: Duration, mut see: impl FnMut(&[u8]) + Send + 'static) {
    let (pieces, waiting) = channel();
    thread::spawn(move || deliver(to, &waiting));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read) = from.read(&mut buffer) {
            see(&buffer[..read]);
            let piece = (Instant::now() + time, buffer[..read].to_vec());
            if read == 0 || pieces.send(piece).is_err() {
                break;
            }
        }
    });
}

fn deliver(mut to: TcpStream, waiting: &Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in waiting {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Finds the first lines of requests in what a client sends. Only requests without a body are told from each other.
struct Lines {
    log: Arc<Mutex<Vec<String>>>,
    line: Vec<u8>,
}

impl Lines {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line))
                .trim()
                .to_owned();
            if line.ends_with(" HTTP/1.1") {
                self.log.lock().unwrap().push(line);
            }
        }
    }
}
