//! A proxy in front of a plain HTTP registry that breaks what passes, as a test tells it to.
//!
//! One request a connection, so that a fault hits one request. Requests are recorded with what their clients got.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::http::{Acceptor, Request, Response, read_request};

/// What goes wrong with one request. Offsets count the bytes of the response's body.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: for the middle of a queue.
    None,
    /// The connection closes after so many bytes.
    Cut(u64),
    /// After so many bytes nothing comes any more, and the connection stays.
    Stall(u64),
    /// So many bytes come, and the header says that it is all.
    Truncate(u64),
    /// So many bytes come, no header says how many there are, and the end looks like one.
    EndEarly(u64),
    /// No header says how many bytes there are, and these follow the last one.
    Append(Vec<u8>),
    /// One bit of this byte is the other way round.
    Flip(u64),
    /// The upstream never sees the `Range` header.
    IgnoreRange,
    /// The proxy answers itself.
    Answer(Response),
}

/// A request that came through, and how much of its response's body went back.
#[derive(Debug, Clone)]
pub struct Passed {
    pub request: Request,
    pub status: u16,
    pub body_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    queues: Vec<(String, VecDeque<Fault>)>,
    always: Vec<(String, Fault)>,
    passed: Vec<Passed>,
}

/// The proxy. Stops when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    acceptor: Acceptor,
    state: Arc<Mutex<State>>,
}

impl FaultProxy {
    pub fn start(upstream: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let acceptor = Acceptor::start(move |client| {
            // A client that goes away in the middle is none of our business.
            let _ = serve(client, upstream, &shared);
        });
        Self { acceptor, state }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.acceptor.address.to_string()
    }

    /// The next requests whose target contains `part` meet these faults, one each; those after them meet none.
    pub fn next(&self, part: &str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().collect();
        self.state.lock().unwrap().queues.push((part.to_owned(), faults));
    }

    /// All requests whose target contains `part` meet this fault, if no queue has one for them.
    pub fn always(&self, part: &str, fault: Fault) {
        self.state.lock().unwrap().always.push((part.to_owned(), fault));
    }

    /// What passed so far, of the targets that contain `part`.
    pub fn passed(&self, part: &str) -> Vec<Passed> {
        let state = self.state.lock().unwrap();
        let matching = state
            .passed
            .iter()
            .filter(|passed| passed.request.target.contains(part));
        matching.cloned().collect()
    }

    /// How many bytes of bodies went back for them.
    pub fn body_bytes(&self, part: &str) -> u64 {
        self.passed(part).iter().map(|passed| passed.body_bytes).sum()
    }
}

impl State {
    fn fault_for(&mut self, target: &str) -> Fault {
        let queued = self
            .queues
            .iter_mut()
            .find(|(part, queue)| target.contains(part.as_str()) && !queue.is_empty());
        if let Some(fault) = queued.and_then(|(_, queue)| queue.pop_front()) {
            return fault;
        }
        let always = self.always.iter().find(|(part, _)| target.contains(part.as_str()));
        always.map_or(Fault::None, |(_, fault)| fault.clone())
    }
}

fn serve(mut client: TcpStream, upstream: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let Some((request, head)) = read_request(&mut client) else {
        return Ok(());
    };
    let fault = state.lock().unwrap().fault_for(&request.target);
    let record = |status| {
        let mut state = state.lock().unwrap();
        state.passed.push(Passed {
            request: request.clone(),
            status,
            body_bytes: 0,
        });
        state.passed.len() - 1
    };
    if let Fault::Answer(response) = &fault {
        record(response.status);
        return client.write_all(&response.bytes());
    }
    let mut server = TcpStream::connect(upstream)?;
    let mut dropped = vec!["connection"];
    if matches!(fault, Fault::IgnoreRange) {
        dropped.push("range");
    }
    server.write_all(rewrite(&head, &dropped, &["Connection: close".to_owned()]).as_bytes())?;
    server.write_all(&request.body)?;

    let (head, first) = read_head(&mut server)?;
    let (mut dropped, mut added) = (vec!["connection"], vec!["Connection: close".to_owned()]);
    match &fault {
        Fault::Truncate(length) => {
            dropped.push("content-length");
            added.push(format!("Content-Length: {length}"));
        }
        Fault::EndEarly(_) | Fault::Append(_) => dropped.push("content-length"),
        _ => {}
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let index = record(status);
    client.write_all(rewrite(&head, &dropped, &added).as_bytes())?;
    // Counted before they go: whoever has them finds them counted.
    let count = |bytes: usize| state.lock().unwrap().passed[index].body_bytes += bytes as u64;
    let ended = pump(&mut server, first, &mut client, &fault, count);
    if matches!(fault, Fault::Stall(_)) {
        // Until the client has had enough.
        let _ = client.read(&mut [0]);
    }
    let _ = client.shutdown(Shutdown::Both);
    ended
}

/// Moves the body up to where the fault ends it.
fn pump(
    server: &mut TcpStream,
    first: Vec<u8>,
    client: &mut TcpStream,
    fault: &Fault,
    count: impl Fn(usize),
) -> std::io::Result<()> {
    let limit = match fault {
        Fault::Cut(at) | Fault::Stall(at) | Fault::Truncate(at) | Fault::EndEarly(at) => *at,
        _ => u64::MAX,
    };
    let mut sent = 0;
    let mut buffer = first;
    loop {
        buffer.truncate(usize::try_from(limit - sent).unwrap_or(usize::MAX));
        if let Fault::Flip(at) = fault
            && let Some(index) = at.checked_sub(sent)
            && let Some(byte) = buffer.get_mut(usize::try_from(index).unwrap())
        {
            *byte ^= 1;
        }
        count(buffer.len());
        client.write_all(&buffer)?;
        sent += buffer.len() as u64;
        if sent == limit {
            return Ok(());
        }
        buffer.resize(32 << 10, 0);
        let read = server.read(&mut buffer)?;
        buffer.truncate(read);
        if read == 0 {
            if let Fault::Append(more) = fault {
                client.write_all(more)?;
            }
            return Ok(());
        }
    }
}

/// A response's head, and what of the body came with it.
fn read_head(server: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        match server.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A head without some headers and with others.
fn rewrite(head: &str, dropped: &[&str], added: &[String]) -> String {
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    lines.retain(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !dropped.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
    });
    lines.extend(added.iter().map(String::as_str));
    lines.join("\r\n") + "\r\n\r\n"
}
