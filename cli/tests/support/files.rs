//! A plain web server for ADD and APP: files with `Range` and `ETag`, which can break off.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{Request, Response, Server};

/// The server.
#[derive(Debug)]
pub struct FileServer {
    server: Server,
    cuts: Arc<AtomicUsize>,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl FileServer {
    /// Serves files by their paths (`/name`).
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files: BTreeMap<String, Vec<u8>> = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), content.to_vec()))
            .collect();
        let files = Arc::new(Mutex::new(files));
        let cuts = Arc::new(AtomicUsize::new(0));
        let (served, left) = (Arc::clone(&files), Arc::clone(&cuts));
        let server = Server::start(move |request| {
            let Some(content) = served.lock().unwrap().get(&request.target).cloned() else {
                return Response::new(404);
            };
            let cut = left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
            answer(request, &content, cut)
        });
        Self { server, cuts, files }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.server.port()))
    }

    pub fn url(&self, path: &str) -> String {
        self.server.url() + path
    }

    /// The next `count` answers end in the middle.
    pub fn cut(&self, count: usize) {
        self.cuts.store(count, Ordering::SeqCst);
    }

    pub fn replace(&self, path: &str, content: &[u8]) {
        self.files.lock().unwrap().insert(path.to_owned(), content.to_vec());
    }

    /// What was asked for: `GET /name bytes=5-`.
    pub fn requests(&self) -> Vec<String> {
        let shown = |request: &Request| {
            let range = request.header("range").unwrap_or("");
            format!("{} {} {range}", request.method, request.target)
                .trim_end()
                .to_owned()
        };
        self.server.requests().iter().map(shown).collect()
    }
}

fn answer(request: &Request, content: &[u8], cut: bool) -> Response {
    let start = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, rest) = match start {
        Some(start) if start >= content.len() => return Response::new(416),
        Some(start) => (206, &content[start..]),
        None => (200, content),
    };
    // The length promises more than comes: the connection closes in the middle.
    let sent = if cut { &rest[..rest.len() / 2] } else { rest };
    let mut response = Response::new(status)
        .header("ETag", "\"1\"")
        .header("Accept-Ranges", "bytes")
        .header("Content-Length", &rest.len().to_string())
        .body(sent);
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        response = response.header("Content-Range", &range);
    }
    response
}
