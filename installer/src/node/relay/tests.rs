use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use sealrs_image::digest::Digest;
use sealrs_image::error::Result;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::source::Source;
use sealrs_image::spec::{Descriptor, media_type};

use super::keep::Kept;
use super::*;
use crate::pki;

/// A source of one blob that notes where it was opened, and whose pieces come when the test sends them; or all of them at once.
struct Origin {
    bytes: Vec<u8>,
    pieces: Mutex<Option<Receiver<usize>>>,
    opened: Mutex<Vec<u64>>,
}

impl Origin {
    fn of(bytes: &[u8], pieces: Option<Receiver<usize>>) -> Self {
        Self {
            bytes: bytes.to_vec(),
            pieces: Mutex::new(pieces),
            opened: Mutex::default(),
        }
    }
}

impl Source for Origin {
    fn origin(&self) -> String {
        "the operator".to_owned()
    }

    fn open<'a>(&'a self, _: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.opened.lock().unwrap().push(offset);
        let rest = &self.bytes[usize::try_from(offset).unwrap()..];
        match self.pieces.lock().unwrap().take() {
            None => Ok(Box::new(rest)),
            Some(pieces) => Ok(Box::new(Slow { rest, pieces, come: 0 })),
        }
    }
}

struct Slow<'s> {
    rest: &'s [u8],
    pieces: Receiver<usize>,
    /// What has come and was not read.
    come: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.come == 0 && !self.rest.is_empty() {
            self.come = self.pieces.recv().map_err(|_| io::ErrorKind::ConnectionReset)?;
        }
        let (piece, rest) = self.rest.split_at(self.come.min(self.rest.len()).min(buffer.len()));
        self.come -= piece.len();
        buffer[..piece.len()].copy_from_slice(piece);
        self.rest = rest;
        Ok(piece.len())
    }
}

/// Warnings that were given.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

fn blob() -> (Vec<u8>, Descriptor) {
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_be_bytes).collect();
    let descriptor = Descriptor::of(media_type::CONFIG, &bytes);
    (bytes, descriptor)
}

fn passes() -> (Pass, Pass) {
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let mut passes = pki::new_passes(&addresses).unwrap().into_iter();
    (passes.next().unwrap(), passes.next().unwrap())
}

fn upstream(port: u16, pass: &Pass) -> Upstream {
    Upstream {
        address: SocketAddr::new("127.0.0.1".parse().unwrap(), port),
        pass: pass.clone(),
    }
}

fn read_all(source: &dyn Source, blob: &Descriptor) -> io::Result<Digest> {
    let mut bytes = Vec::new();
    source.open(blob, 0).unwrap().read_to_end(&mut bytes)?;
    Ok(Digest::of(&bytes))
}

#[test]
fn a_blob_is_passed_on_while_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, blob) = blob();
    let (first, second) = passes();
    let kept = Kept::new(&folder.path().join("kept")).unwrap();
    let port = kept.serve(&first).unwrap();
    let (sender, pieces) = sync_channel(0);
    let (slow, unused) = (Origin::of(&bytes, Some(pieces)), Origin::of(&bytes, None));
    let warnings = Warnings::default();
    let relayed = Relayed::new(&unused, &upstream(port, &second), &warnings).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| read_all(&kept.of(&slow), &blob).unwrap());
        sender.send(100_000).unwrap();
        let mut reader = relayed.open(&blob, 0).unwrap();
        let mut begin = vec![0; 100_000];
        reader.read_exact(&mut begin).unwrap();
        assert_eq!(begin, bytes[..100_000]);
        // The other end does not have the rest yet.
        let rest = scope.spawn(move || {
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).map(|_| rest)
        });
        sender.send(bytes.len()).unwrap();
        assert!(rest.join().unwrap().unwrap() == bytes[100_000..]);
    });
    // The same connection brings more, from any place on.
    let mut rest = Vec::new();
    relayed.open(&blob, 3_999_990).unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, bytes[3_999_990..]);
    assert!(unused.opened.lock().unwrap().is_empty() && warnings.0.lock().unwrap().is_empty());
}

#[test]
fn the_operator_sends_the_rest_when_the_other_host_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, blob) = blob();
    let (first, second) = passes();
    let kept = Kept::new(&folder.path().join("kept")).unwrap();
    let port = kept.serve(&first).unwrap();
    let (sender, pieces) = sync_channel(0);
    let (slow, operator) = (Origin::of(&bytes, Some(pieces)), Origin::of(&bytes, None));
    let warnings = Warnings::default();
    let relayed = Relayed::new(&operator, &upstream(port, &second), &warnings).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| read_all(&kept.of(&slow), &blob));
        let second = scope.spawn(|| read_all(&relayed, &blob));
        sender.send(500_000).unwrap();
        sender.send(500_000).unwrap();
        drop(sender);
        assert!(first.join().unwrap().is_err());
        assert_eq!(second.join().unwrap().unwrap(), blob.digest);
    });
    let opened = operator.opened.lock().unwrap().clone();
    assert!(matches!(opened[..], [place] if place <= 1_000_000), "{opened:?}");
    assert_eq!(read_all(&relayed, &blob).unwrap(), blob.digest);
    // It is told once.
    let warnings = warnings.0.lock().unwrap().clone();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("127.0.0.1 can't pass the image on"),
        "{warnings:?}"
    );
}

#[test]
fn strangers_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, blob) = blob();
    let (first, _) = passes();
    let (_, stranger) = passes();
    let kept = Kept::new(&folder.path().join("kept")).unwrap();
    let port = kept.serve(&first).unwrap();
    let (source, operator) = (Origin::of(&bytes, None), Origin::of(&bytes, None));
    assert_eq!(read_all(&kept.of(&source), &blob).unwrap(), blob.digest);
    // Who does not know the authority, and who is not known by it.
    let half = Pass {
        authority: first.authority.clone(),
        ..stranger.clone()
    };
    for pass in [stranger, half] {
        let warnings = Warnings::default();
        let relayed = Relayed::new(&operator, &upstream(port, &pass), &warnings).unwrap();
        assert_eq!(read_all(&relayed, &blob).unwrap(), blob.digest);
        assert_eq!(warnings.0.lock().unwrap().len(), 1);
    }
    assert_eq!(*operator.opened.lock().unwrap(), [0, 0]);
}

#[test]
fn nothing_is_left_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, blob) = blob();
    let path = folder.path().join("kept");
    let kept = Kept::new(&path).unwrap();
    let source = Origin::of(&bytes, None);
    assert_eq!(read_all(&kept.of(&source), &blob).unwrap(), blob.digest);
    assert!(path.join(blob.digest.hex()).exists());
    drop(kept);
    assert!(!path.exists());
}

#[test]
fn each_passes_it_on_to_two_at_most() {
    assert_eq!(upstream_of(0), None);
    let upstreams: Vec<usize> = (1..30).map(|place| upstream_of(place).unwrap()).collect();
    for (place, from) in (1..).zip(&upstreams) {
        assert!(*from < place);
        assert!(upstreams.iter().filter(|other| *other == from).count() <= 2);
    }
}

#[test]
fn a_pass_is_not_shown() {
    let (pass, _) = passes();
    assert!(!format!("{:?}", upstream(1, &pass)).contains("KEY"));
    let arc = Arc::new(pass);
    assert_eq!(format!("{arc:?}"), "Pass");
}
