//! Uploads that break off, servers that are killed, clients that come at once: nothing half is ever seen, and what
//! arrived is kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use sealrs_image::digest::Digest;
use sealrs_registry::layout;
use support::{
    Ours, Process, arrived, ask, begin, begin_upload, files, noise, push_blob, read_answer, send, succeed, try_begin,
    wait_for,
};

/// Sends the rest of a blob and finishes the upload, in two requests.
fn finish(address: SocketAddr, upload: &str, bytes: &[u8]) {
    let offset = arrived(address, upload);
    let rest = &bytes[usize::try_from(offset).unwrap()..];
    if !rest.is_empty() {
        let range = format!("Content-Range: {offset}-{}", bytes.len() - 1);
        assert_eq!(send(address, "PATCH", upload, &[&range], rest).status, 202);
    }
    let digest = Digest::of(bytes);
    let answer = send(address, "PUT", &format!("{upload}?digest={digest}"), &[], b"");
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    assert!(ask(address, "GET", answer.header("location"), &[]).body == bytes);
}

#[test]
fn what_arrived_before_a_cut_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let bytes = noise(3 << 20, 1);
    let length = format!("Content-Length: {}", bytes.len());
    for (method, sent) in [
        ("PATCH", 2),
        ("PATCH", 1_000_000),
        ("PUT", 2_500_000),
        ("PATCH", 3_000_000),
    ] {
        let upload = begin_upload(address, "a");
        let target = format!("{upload}?digest={}", Digest::of(&bytes));
        let mut stream = begin(address, method, &target, &[&length]);
        stream.write_all(&bytes[..sent]).unwrap();
        drop(stream);
        wait_for("all that was sent", || arrived(address, &upload) == sent as u64);
        finish(address, &upload, &bytes);
    }
    // A blob in one request has no place where it could go on.
    let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"other"));
    let mut stream = begin(address, "POST", &target, &[&length]);
    stream.write_all(&bytes[..1_000_000]).unwrap();
    let uploads = dir.path().join("docker/registry/v2/repositories/a/_uploads");
    wait_for("the upload", || fs::read_dir(&uploads).unwrap().count() == 1);
    drop(stream);
    wait_for("its end", || fs::read_dir(&uploads).unwrap().count() == 0);
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn a_new_request_goes_on_where_the_old_one_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let bytes = noise(1 << 20, 2);
    let upload = begin_upload(address, "a");
    let length = format!("Content-Length: {}", bytes.len());
    // Its network is gone, which the server cannot know: no byte comes, and no end.
    let mut hanging = begin(address, "PATCH", &upload, &[&length]);
    hanging.write_all(&bytes[..300_000]).unwrap();
    wait_for("the first part", || arrived(address, &upload) == 300_000);
    let start = Instant::now();
    finish(address, &upload, &bytes);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let answer = read_answer(hanging);
    assert_eq!((answer.status, answer.code().as_str()), (409, "BLOB_UPLOAD_INVALID"));

    // The same when the client gives up instead.
    let upload = begin_upload(address, "a");
    let mut hanging = begin(address, "PATCH", &upload, &[&length]);
    hanging.write_all(&bytes[..300_000]).unwrap();
    wait_for("the first part", || arrived(address, &upload) == 300_000);
    assert_eq!(send(address, "DELETE", &upload, &[], b"").status, 204);
    assert_eq!(read_answer(hanging).status, 409);
    assert_eq!(ask(address, "GET", &upload, &[]).status, 404);
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn a_killed_server_goes_on_with_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(24 << 20, 3);
    let digest = Digest::of(&bytes);
    let blob = dir.path().join(layout::blob_data(digest));
    let mut server = Process::start(dir.path());
    let upload = begin_upload(server.address, "a");
    let mut kept = 0;
    for round in 0..12 {
        let offset = usize::try_from(arrived(server.address, &upload)).unwrap();
        assert!(offset >= kept, "{offset} bytes are left of {kept}");
        let range = format!("Content-Range: {offset}-{}", bytes.len() - 1);
        let length = format!("Content-Length: {}", bytes.len() - offset);
        let mut stream = begin(server.address, "PATCH", &upload, &[&range, &length]);
        // A part of it in every round, then the end of the process, at whatever it is.
        let part = (offset + 1_900_000 + round * 1000).min(bytes.len());
        stream.write_all(&bytes[offset..part]).unwrap();
        std::thread::sleep(Duration::from_millis(round as u64 * 7));
        kept = usize::try_from(arrived(server.address, &upload)).unwrap();
        server.kill();
        assert!(!blob.exists());
        server = Process::start(dir.path());
    }
    assert!(kept > 1_000_000, "{kept}");
    finish(server.address, &upload, &bytes);
    assert!(fs::read(&blob).unwrap() == bytes);
    assert!(!files(dir.path()).iter().any(|path| path.contains("_uploads")));
}

#[test]
fn a_server_killed_at_any_moment_shows_no_half_blob() {
    let dir = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for round in 0..25 {
        let mut server = Process::start(dir.path());
        let address = server.address;
        let bytes = noise(400_000 + round, round as u64);
        let digest = Digest::of(&bytes);
        let config = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":{}}}"#, bytes.len());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[]}}"#
        );
        let client = std::thread::spawn(move || {
            let push = || -> std::io::Result<()> {
                let length = format!("Content-Length: {}", bytes.len());
                let target = format!("/v2/a/blobs/uploads/?digest={digest}");
                let mut stream = try_begin(address, "POST", &target, &[&length])?;
                stream.write_all(&bytes)?;
                let mut answer = Vec::new();
                std::io::Read::read_to_end(&mut stream, &mut answer)?;
                if answer.starts_with(b"HTTP/1.1 201") {
                    let length = format!("Content-Length: {}", manifest.len());
                    let mut stream = try_begin(address, "PUT", "/v2/a/manifests/1", &[&length])?;
                    stream.write_all(manifest.as_bytes())?;
                    std::io::Read::read_to_end(&mut stream, &mut Vec::new())?;
                }
                Ok(())
            };
            // The server may be gone at any of these.
            let _ = push();
            bytes
        });
        std::thread::sleep(Duration::from_millis(round as u64));
        server.kill();
        let bytes = client.join().unwrap();
        let blob = dir.path().join(layout::blob_data(digest));
        if blob.exists() {
            assert!(fs::read(&blob).unwrap() == bytes, "round {round}");
            stored += 1;
        }
        let again = Process::start(dir.path());
        // The tag, if there is one, means something whole.
        let answer = ask(again.address, "GET", "/v2/a/manifests/1", &[]);
        assert!([200, 404].contains(&answer.status), "{}", answer.status);
        if answer.status == 200 {
            let config = answer.json()["config"]["digest"].as_str().unwrap().to_owned();
            let config = ask(again.address, "GET", &format!("/v2/a/blobs/{config}"), &[]);
            assert_eq!(config.status, 200, "round {round}");
        }
        push_blob(again.address, "a", &bytes);
    }
    println!("{stored} of 25 uploads were complete before the server was killed");
}

#[test]
fn many_clients_push_the_same_and_other_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let same = noise(2 << 20, 4);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let same = &same;
            scope.spawn(move || {
                let own = noise(500_000, 100 + number);
                let repository = format!("r{}", number % 3);
                // Four times at most, somebody takes it away between push and pull.
                let digest = (0..=4).find_map(|_| {
                    let digest = push_blob(address, &repository, same);
                    let answer = ask(address, "GET", &format!("/v2/{repository}/blobs/{digest}"), &[]);
                    assert!(answer.status == 404 || answer.body == *same, "{}", answer.status);
                    (answer.status == 200).then_some(digest)
                });
                let digest = digest.unwrap();
                let upload = begin_upload(address, &repository);
                finish(address, &upload, &own);
                // Somebody takes away what others push again.
                if number % 4 == 0 {
                    let target = format!("/v2/{repository}/blobs/{digest}");
                    assert!([202, 404].contains(&send(address, "DELETE", &target, &[], b"").status));
                }
                push_blob(address, &repository, &own);
            });
        }
    });
    let blobs = files(&dir.path().join("docker/registry/v2/blobs"));
    assert_eq!(blobs.len(), 17);
    for path in blobs {
        let bytes = fs::read(dir.path().join("docker/registry/v2/blobs").join(&path)).unwrap();
        assert!(path.contains(&Digest::of(&bytes).hex()), "{path}");
    }
    assert_eq!(ours.heard.all(), "");
}

/// A file system of 8 MiB, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=8m", "small"])
                .arg(dir.path()),
        );
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_and_the_upload_goes_on_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this test needs root to mount a small disk");
        return;
    }
    let disk = SmallDisk::new();
    let dir = disk.0.path();
    let filler = dir.join("filler");
    fs::write(&filler, noise(4 << 20, 5)).unwrap();
    let ours = Ours::open(dir);
    let address = ours.address;
    let bytes = noise(6 << 20, 6);
    let upload = begin_upload(address, "a");
    let answer = send(address, "PATCH", &upload, &[], &bytes);
    assert_eq!((answer.status, answer.code().as_str()), (507, "UNKNOWN"));
    assert!(answer.text().contains("full"), "{}", answer.text());
    assert!(ours.heard.all().contains("No space left"), "{}", ours.heard.all());
    assert!(arrived(address, &upload) > 2 << 20);
    fs::remove_file(&filler).unwrap();
    finish(address, &upload, &bytes);
}

#[test]
fn memory_does_not_grow_with_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let address = server.address;
    push_blob(address, "a", &noise(1 << 20, 7));
    let before = server.peak_memory();
    let piece = noise(8 << 20, 8);
    let pieces = 32;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let upload = begin_upload(address, "a");
                let length = format!("Content-Length: {}", piece.len() * pieces);
                let mut stream = begin(address, "PATCH", &upload, &[&length]);
                for _ in 0..pieces {
                    stream.write_all(&piece).unwrap();
                }
                assert_eq!(read_answer(stream).status, 202);
                assert_eq!(send(address, "DELETE", &upload, &[], b"").status, 204);
            });
        }
    });
    let grown = server.peak_memory() - before;
    println!(
        "four uploads of 256 MiB took {} KiB more memory than one of 1 MiB",
        grown >> 10
    );
    assert!(grown < 24 << 20, "{grown} bytes more");
}
