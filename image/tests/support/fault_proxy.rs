//! A proxy in front of a plain HTTP registry that breaks what passes, as a test tells it to.
//!
//! One request a connection, so that a fault hits one request. Requests are recorded with what their clients got.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Acceptor, Request, Response, read_head};

/// What goes wrong with one request. Offsets count the bytes of the response's body, and of the request's body for those
/// faults that are called `Sent`.
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
    /// The proxy answers itself, after it has read the request's body.
    Answer(Response),
    /// The connection closes after so many bytes of the request's body.
    SentCut(u64),
    /// After so many bytes of the request's body nothing is read any more, and the connection stays.
    SentStall(u64),
    /// One bit of this byte of the request's body is the other way round.
    SentFlip(u64),
    /// All of the request gets there, and its answer does not come back.
    LostAnswer,
}

/// A request that came through.
#[derive(Debug, Clone)]
pub struct Passed {
    pub request: Request,
    /// 0 when no answer came.
    pub status: u16,
    /// How much of the response's body went back.
    pub body_bytes: u64,
    /// How much of the request's body was taken from the client.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    queues: Vec<(String, VecDeque<Fault>)>,
    always: Vec<(String, Fault)>,
    passed: Vec<Passed>,
    /// For the bodies of responses and of requests.
    cuts: [Cuts; 2],
    hooks: Vec<Hook>,
}

/// Where the sum of all bodies in one direction stands, and at which sums the connection that is at it breaks.
#[derive(Debug, Default)]
struct Cuts {
    part: String,
    at: BTreeSet<u64>,
    moved: u64,
}

/// What happens before a request is passed on, once.
struct Hook {
    part: String,
    run: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({})", self.part)
    }
}

const ANSWERS: usize = 0;
const REQUESTS: usize = 1;

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

    /// Breaks a connection each time that the bodies of answers to targets that contain `part` have had so many bytes
    /// in all.
    pub fn cut_answers(&self, part: &str, sums: impl IntoIterator<Item = u64>) {
        self.state.lock().unwrap().cuts[ANSWERS] = Cuts::new(part, sums);
    }

    /// The same for the bodies of requests.
    pub fn cut_requests(&self, part: &str, sums: impl IntoIterator<Item = u64>) {
        self.state.lock().unwrap().cuts[REQUESTS] = Cuts::new(part, sums);
    }

    /// How many of those cuts are still to come, both ways.
    pub fn cuts_left(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.cuts.iter().map(|cuts| cuts.at.len()).sum()
    }

    /// Does something before the first request whose target contains `part` is passed on.
    pub fn before_first(&self, part: &str, run: impl FnOnce() + Send + 'static) {
        let hook = Hook {
            part: part.to_owned(),
            run: Box::new(run),
        };
        self.state.lock().unwrap().hooks.push(hook);
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

    /// How many bytes of bodies were taken from clients for them. What lies in the kernel's buffers when a connection
    /// breaks is not among them: nobody has read it.
    pub fn sent_bytes(&self, part: &str) -> u64 {
        self.passed(part).iter().map(|passed| passed.sent_bytes).sum()
    }
}

impl Cuts {
    fn new(part: &str, sums: impl IntoIterator<Item = u64>) -> Self {
        Self {
            part: part.to_owned(),
            at: sums.into_iter().collect(),
            moved: 0,
        }
    }

    /// How many of the next `wanted` bytes may pass, and whether the connection breaks after them.
    fn pass(&mut self, target: &str, wanted: usize) -> (usize, bool) {
        if !target.contains(&self.part) {
            return (wanted, false);
        }
        let left = self.at.first().map_or(u64::MAX, |cut| cut - self.moved);
        let passing = left.min(wanted as u64);
        self.moved += passing;
        let is_cut = left <= wanted as u64;
        if is_cut {
            self.at.pop_first();
        }
        (usize::try_from(passing).unwrap(), is_cut)
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
    let Some((request, head)) = read_head(&mut client) else {
        return Ok(());
    };
    let target = request.target.clone();
    let (fault, hooks) = {
        let mut state = state.lock().unwrap();
        let hooks: Vec<Hook> = state.hooks.extract_if(.., |hook| target.contains(&hook.part)).collect();
        (state.fault_for(&target), hooks)
    };
    for hook in hooks {
        (hook.run)();
    }
    let length = request.body_length();
    let index = {
        let mut state = state.lock().unwrap();
        state.passed.push(Passed {
            request,
            status: 0,
            body_bytes: 0,
            sent_bytes: 0,
        });
        state.passed.len() - 1
    };
    let way = Way {
        state,
        index,
        target: &target,
    };
    if let Fault::Answer(response) = &fault {
        way.note(|passed| passed.status = response.status);
        way.request_body(&mut client, &mut std::io::sink(), length, &Fault::None)?;
        return client.write_all(&response.bytes());
    }
    let mut server = TcpStream::connect(upstream)?;
    let mut dropped = vec!["connection"];
    if matches!(fault, Fault::IgnoreRange) {
        dropped.push("range");
    }
    server.write_all(rewrite(&head, &dropped, &["Connection: close".to_owned()]).as_bytes())?;
    if !way.request_body(&mut client, &mut server, length, &fault)? {
        if matches!(fault, Fault::SentStall(_)) {
            // Longer than any test's patience.
            std::thread::sleep(Duration::from_secs(20));
        }
        // The server takes in all that it was sent before the client hears of the end: how much of it the kernel's
        // buffers would have swallowed is nobody's merit.
        server.shutdown(Shutdown::Write)?;
        server.set_read_timeout(Some(Duration::from_secs(10)))?;
        std::io::copy(&mut server, &mut std::io::sink())?;
        return client.shutdown(Shutdown::Both);
    }

    let (head, first) = read_response_head(&mut server)?;
    let (mut dropped, mut added) = (vec!["connection"], vec!["Connection: close".to_owned()]);
    match &fault {
        Fault::Truncate(length) => {
            dropped.push("content-length");
            added.push(format!("Content-Length: {length}"));
        }
        Fault::EndEarly(_) | Fault::Append(_) => dropped.push("content-length"),
        Fault::LostAnswer => return client.shutdown(Shutdown::Both),
        _ => {}
    }
    let status = head.split(' ').nth(1);
    let status = status.and_then(|status| status.parse().ok()).unwrap_or(0);
    way.note(|passed| passed.status = status);
    client.write_all(rewrite(&head, &dropped, &added).as_bytes())?;
    let ended = way.response_body(&mut server, first, &mut client, &fault);
    if matches!(fault, Fault::Stall(_)) {
        // Until the client has had enough.
        let _ = client.read(&mut [0]);
    }
    let _ = client.shutdown(Shutdown::Both);
    ended
}

/// The way of one request.
struct Way<'w> {
    state: &'w Mutex<State>,
    index: usize,
    target: &'w str,
}

impl Way<'_> {
    fn note(&self, change: impl FnOnce(&mut Passed)) {
        change(&mut self.state.lock().unwrap().passed[self.index]);
    }

    /// How many of the next `wanted` bytes may pass, counted before they go: whoever has them finds them counted.
    fn pass(&self, direction: usize, wanted: usize) -> (usize, bool) {
        let mut state = self.state.lock().unwrap();
        let (passing, is_cut) = state.cuts[direction].pass(self.target, wanted);
        let passed = &mut state.passed[self.index];
        match direction {
            ANSWERS => passed.body_bytes += passing as u64,
            _ => passed.sent_bytes += passing as u64,
        }
        (passing, is_cut)
    }

    /// Moves the request's body up to where a fault ends it; false if one did.
    fn request_body(
        &self,
        client: &mut TcpStream,
        server: &mut impl std::io::Write,
        length: u64,
        fault: &Fault,
    ) -> std::io::Result<bool> {
        let limit = match fault {
            Fault::SentCut(at) | Fault::SentStall(at) => (*at).min(length),
            _ => length,
        };
        let mut sent = 0;
        let mut buffer = vec![0; 32 << 10];
        while sent < limit {
            let wanted = buffer.len().min(usize::try_from(limit - sent).unwrap());
            let read = client.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let (passing, is_cut) = self.pass(REQUESTS, read);
            if let Fault::SentFlip(at) = fault {
                flip(*at, &mut buffer[..passing], sent);
            }
            // A server that has answered already takes no more, and its answer says why.
            let taken = server.write_all(&buffer[..passing]).is_ok();
            if is_cut {
                return Ok(false);
            }
            if !taken {
                return Ok(true);
            }
            sent += read as u64;
        }
        Ok(!matches!(fault, Fault::SentCut(_) | Fault::SentStall(_)))
    }

    /// Moves the response's body up to where a fault ends it.
    fn response_body(
        &self,
        server: &mut TcpStream,
        first: Vec<u8>,
        client: &mut TcpStream,
        fault: &Fault,
    ) -> std::io::Result<()> {
        let limit = match fault {
            Fault::Cut(at) | Fault::Stall(at) | Fault::Truncate(at) | Fault::EndEarly(at) => *at,
            _ => u64::MAX,
        };
        let mut sent = 0;
        let mut buffer = first;
        loop {
            buffer.truncate(usize::try_from(limit - sent).unwrap_or(usize::MAX));
            if let Fault::Flip(at) = fault {
                flip(*at, &mut buffer, sent);
            }
            let (passing, is_cut) = self.pass(ANSWERS, buffer.len());
            client.write_all(&buffer[..passing])?;
            sent += passing as u64;
            if sent == limit || is_cut {
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
}

/// Turns one bit of the byte at `at` round if it is among these bytes, which come after `before` others.
fn flip(at: u64, bytes: &mut [u8], before: u64) {
    if let Some(index) = at.checked_sub(before)
        && let Some(byte) = bytes.get_mut(usize::try_from(index).unwrap())
    {
        *byte ^= 1;
    }
}

/// A response's head, and what of the body came with it.
fn read_response_head(server: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
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
