//! A very small HTTP server that answers as a test tells it to, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request that came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// How many bytes its body has, if it says so.
    pub fn body_length(&self) -> u64 {
        let length = self.header("content-length");
        length.and_then(|length| length.parse().ok()).unwrap_or(0)
    }
}

/// An answer to give.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The whole answer, with `Content-Length` unless it says otherwise how it ends, after which the connection closes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let ends = |name: &str| ["content-length", "transfer-encoding"].contains(&name.to_lowercase().as_str());
        if !self.headers.iter().any(|(name, _)| ends(name)) {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Accepts connections, each on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Acceptor {
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Acceptor {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let serve = Arc::new(serve);
        let flag = Arc::clone(&stopped);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, stopped }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// The server.
#[derive(Debug)]
pub struct Server {
    acceptor: Acceptor,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let acceptor = Acceptor::start(move |mut stream| {
            let Some((request, _)) = read_request(&mut stream) else {
                return;
            };
            log.lock().unwrap().push(request.clone());
            let _ = stream.write_all(&answer(&request).bytes());
        });
        Self { acceptor, requests }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.acceptor.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.acceptor.address)
    }

    pub fn port(&self) -> u16 {
        self.acceptor.address.port()
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a request's head, and its body if its length is given. Whoever speaks TLS gets what a plain server says to
/// that. The second part is the head as it came.
pub fn read_request(stream: &mut TcpStream) -> Option<(Request, String)> {
    let (mut request, head) = read_head(stream)?;
    request.body = vec![0; usize::try_from(request.body_length()).ok()?];
    stream.read_exact(&mut request.body).ok()?;
    Some((request, head))
}

/// As [`read_request`], and leaves the body where it is.
pub fn read_head(stream: &mut TcpStream) -> Option<(Request, String)> {
    let mut first = [0];
    if stream.peek(&mut first).ok()? == 1 && first[0] == 0x16 {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&Response::new(400).bytes());
        return None;
    }
    // One byte at a time: what follows the head is left to others.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut lines = head.lines();
    let mut first_line = lines.next()?.split(' ');
    let mut request = Request {
        method: first_line.next()?.to_owned(),
        target: first_line.next()?.to_owned(),
        ..Request::default()
    };
    for line in lines {
        if let Some((name, value)) = line.split_once(':') {
            request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Some((request, head))
}
