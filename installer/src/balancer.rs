//! A way to all API servers of a cluster from each of its hosts: what connects to a port of the loopback is connected to one
//! that is ready. TLS goes through it as it is.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sealrs_image::error::{IoResultExt as _, Result};

use crate::{command, files, probe};

/// How often servers are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// A server that has not taken a connection by then is passed by.
const PATIENCE: Duration = Duration::from_secs(1);
/// A server that was silent so often is down, and what goes through it is cut: its clients would wait for many minutes.
const FAILURES: u32 = 2;
/// How many looks lie between two questions for the cluster's masters.
const ASK_EVERY: u32 = 15;
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// What is balanced.
#[derive(Debug, Clone)]
pub struct Balance {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The servers' port.
    pub port: u16,
    /// The certificate authority of the servers.
    pub ca: PathBuf,
    /// The server that is asked first, where it is ready.
    pub first: Option<IpAddr>,
    /// A file with the addresses of servers, one a line. It is written anew when the cluster has others.
    pub servers: PathBuf,
    /// A program that prints the cluster's present servers.
    pub ask: Vec<String>,
}

/// A server and how it does.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    failures: u32,
    ready: bool,
}

/// A connection that goes through, by its two ends.
#[derive(Debug)]
struct Session {
    number: u64,
    server: SocketAddr,
    ends: [TcpStream; 2],
}

#[derive(Debug)]
struct Balancer {
    settings: Balance,
    servers: Mutex<Vec<Server>>,
    sessions: Mutex<Vec<Session>>,
    next: AtomicU64,
}

/// Takes connections for ever.
///
/// # Errors
/// When the port can't be listened on, or the file of servers can't be read.
pub fn balance(settings: Balance) -> Result<()> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).or_io(|| format!("cannot listen on {listen}"))?;
    let balancer = Arc::new(Balancer {
        servers: Mutex::default(),
        sessions: Mutex::default(),
        next: AtomicU64::new(0),
        settings,
    });
    balancer.use_servers(&read(&balancer.settings.servers)?);
    let watcher = Arc::clone(&balancer);
    thread::spawn(move || watcher.watch());
    for client in listener.incoming() {
        let balancer = Arc::clone(&balancer);
        match client {
            Ok(client) => drop(thread::spawn(move || balancer.serve(&client))),
            // Too many open files, and the like: it gets better when connections end.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).or_io(|| format!("cannot read {}", path.display()))
}

impl Balancer {
    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Balances over these servers from now on. Gives whether there were any.
    fn use_servers(&self, lines: &str) -> bool {
        let mut wanted: Vec<IpAddr> = lines.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        wanted.sort_by_key(|address| (Some(*address) != self.settings.first, *address));
        wanted.dedup();
        if wanted.is_empty() {
            return false;
        }
        let mut servers = self.servers();
        let mut before = std::mem::take(&mut *servers);
        *servers = wanted
            .into_iter()
            .map(|address| {
                let address = SocketAddr::new(address, self.settings.port);
                match before.iter().position(|server| server.address == address) {
                    Some(known) => before.swap_remove(known),
                    None => Server {
                        address,
                        failures: 0,
                        ready: true,
                    },
                }
            })
            .collect();
        drop(servers);
        // What is left is no server any more.
        before.iter().for_each(|gone| self.cut(gone.address));
        true
    }

    /// Ends what goes through a server.
    fn cut(&self, server: SocketAddr) {
        for session in self.sessions().iter().filter(|session| session.server == server) {
            for end in &session.ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Looks at the servers again and again, and sometimes whether they are still those of the cluster.
    fn watch(&self) {
        for round in 1u32.. {
            let addresses: Vec<SocketAddr> = self.servers().iter().map(|server| server.address).collect();
            thread::scope(|scope| {
                for address in addresses {
                    scope.spawn(move || self.look(address));
                }
            });
            if round % ASK_EVERY == 0 {
                self.ask();
            }
            thread::sleep(PERIOD);
        }
    }

    fn look(&self, address: SocketAddr) {
        let ready = probe::api_server(address, &self.settings.ca).is_ok();
        let down = {
            let mut servers = self.servers();
            let Some(server) = servers.iter_mut().find(|server| server.address == address) else {
                return;
            };
            server.failures = if ready { 0 } else { server.failures.saturating_add(1) };
            server.ready = server.failures < FAILURES;
            server.failures == FAILURES
        };
        if down {
            self.cut(address);
        }
    }

    fn ask(&self) {
        let Ok(prepared) = command::prepare(&self.settings.ask, &std::collections::BTreeMap::new(), &[]) else {
            return;
        };
        match command::output(prepared, None, ASK_LIMIT) {
            Ok(done) if done.success && self.use_servers(&done.stdout) => {
                let path = &self.settings.servers;
                let text: String = self
                    .servers()
                    .iter()
                    .map(|server| format!("{}\n", server.address.ip()))
                    .collect();
                if read(path).ok().as_deref() != Some(text.as_str()) {
                    let _ = files::write(path, text.as_bytes(), 0o644);
                }
            }
            // A host that is no member yet can't ask.
            _ => {}
        }
    }

    /// The servers in the order in which they are tried: those that are ready, and then the others. Where none comes first,
    /// clients are spread over all.
    fn order(&self, number: u64) -> Vec<SocketAddr> {
        let servers = self.servers();
        let (mut ready, others): (Vec<&Server>, Vec<&Server>) = servers.iter().partition(|server| server.ready);
        let own = |server: &&Server| Some(server.address.ip()) == self.settings.first;
        if !ready.is_empty() && !ready.first().is_some_and(own) {
            let turn = usize::try_from(number).unwrap_or(0) % ready.len();
            ready.rotate_left(turn);
        }
        ready.into_iter().chain(others).map(|server| server.address).collect()
    }

    fn serve(&self, client: &TcpStream) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connected = self
            .order(number)
            .into_iter()
            .find_map(|address| Some((address, TcpStream::connect_timeout(&address, PATIENCE).ok()?)));
        if let Some((address, server)) = connected {
            let _ = self.join(number, address, client, &server);
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    fn join(&self, number: u64, address: SocketAddr, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        for end in [client, server] {
            end.set_nodelay(true)?;
            rustix::net::sockopt::set_socket_keepalive(end, true)?;
        }
        self.sessions().push(Session {
            number,
            server: address,
            ends: [client.try_clone()?, server.try_clone()?],
        });
        thread::scope(|scope| {
            scope.spawn(|| pass_on(client, server));
            pass_on(server, client);
        });
        self.sessions().retain(|session| session.number != number);
        Ok(())
    }
}

/// Passes on what comes until it ends, and then tells the other side.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream) {
    let end = match io::copy(&mut from, &mut to) {
        Ok(_) => Shutdown::Write,
        Err(_) => Shutdown::Both,
    };
    let _ = to.shutdown(end);
    if end == Shutdown::Both {
        let _ = from.shutdown(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// A server that sends its name to who connects, until it is told something.
    fn server(ip: &str, port: u16, name: &'static str) -> u16 {
        let listener = TcpListener::bind((ip, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                client.write_all(name.as_bytes()).unwrap();
                let _ = client.read(&mut [0; 1]);
            }
        });
        port
    }

    fn say(listen: SocketAddr) -> (TcpStream, String) {
        let mut client = TcpStream::connect(listen).unwrap();
        let mut name = [0; 3];
        let read = client.read(&mut name).unwrap();
        (client, String::from_utf8_lossy(&name[..read]).into_owned())
    }

    #[test]
    fn goes_to_one_that_answers_and_cuts_what_goes_through_one_that_does_not() {
        let port = server("127.0.0.1", 0, "one");
        server("127.0.0.2", port, "two");
        let folder = tempfile::tempdir().unwrap();
        let servers = folder.path().join("servers");
        std::fs::write(&servers, "127.0.0.3\n127.0.0.2\n127.0.0.1\n").unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = Balance {
            listen,
            port,
            ca: folder.path().join("ca.crt"),
            first: Some([127, 0, 0, 2].into()),
            servers: servers.clone(),
            ask: ["echo", "127.0.0.1"].map(str::to_owned).to_vec(),
        };
        let balancer = Arc::new(Balancer {
            servers: Mutex::default(),
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
            settings,
        });
        assert!(balancer.use_servers(&read(&servers).unwrap()));
        let listener = TcpListener::bind(listen).unwrap();
        let serving = Arc::clone(&balancer);
        thread::spawn(move || {
            for client in listener.incoming() {
                let serving = Arc::clone(&serving);
                thread::spawn(move || serving.serve(&client.unwrap()));
            }
        });
        // The one that comes first, whatever the order in the file.
        let (mut client, name) = say(listen);
        assert_eq!(name, "two");
        // The authority is not there: no server is ready, and sessions are cut when that is sure.
        let two: SocketAddr = SocketAddr::new([127, 0, 0, 2].into(), port);
        (0..FAILURES).for_each(|_| balancer.look(two));
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        // Another one is ready, or at least was not found silent.
        assert_eq!(say(listen).1, "one");
        // The cluster has others: the file says so, and those that are none any more get nothing.
        balancer.ask();
        assert_eq!(read(&servers).unwrap(), "127.0.0.1\n");
        assert_eq!(balancer.order(7), [SocketAddr::new([127, 0, 0, 1].into(), port)]);
        assert!(!balancer.use_servers("nonsense"));
    }
}
