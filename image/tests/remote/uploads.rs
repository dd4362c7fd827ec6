//! Uploads to registries of which Debian's is none: what `Range: 0-0` means, and who may write.

use std::sync::{Arc, Mutex};

use sealrs_image::copy::{Sink as _, Taken};
use sealrs_image::digest::Digest;
use sealrs_image::error::ErrorKind;
use sealrs_image::progress::{Silent, Task};
use sealrs_image::remote::RemoteSink;
use sealrs_image::spec::media_type;
use sealrs_image::store::Store;

use crate::support::http::{Request, Response, Server};
use crate::support::noise;
use crate::{client, log_in, reference};

/// A registry that keeps `kept` bytes of the first piece, fails, and counts strictly from then on.
fn forgetful(kept: usize) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let failed = Mutex::new(false);
    let bytes = Arc::clone(&received);
    let answer = move |request: &Request| {
        let mut bytes = bytes.lock().unwrap();
        let place = "/v2/edge/one/blobs/uploads/1";
        let path = request.target.split('?').next().unwrap();
        match (request.method.as_str(), path) {
            ("GET", "/v2/") => Response::new(200),
            ("POST", _) => Response::new(202).header("Location", place),
            ("PATCH", _) if !std::mem::replace(&mut *failed.lock().unwrap(), true) => {
                bytes.extend_from_slice(&request.body[..kept]);
                Response::new(503)
            }
            ("PATCH", _) => {
                let range = request.header("content-range");
                let start = range.and_then(|range| range.split('-').next()?.parse().ok());
                if start.is_some_and(|start: usize| start != bytes.len()) {
                    return Response::new(416);
                }
                bytes.extend_from_slice(&request.body);
                Response::new(202).header("Location", place)
            }
            ("GET", path) if path == place => Response::new(204).header("Location", place).header("Range", "0-0"),
            ("PUT", path) if path == place => match request.target.contains(&Digest::of(&bytes).hex()) {
                true => Response::new(201),
                false => Response::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#),
            },
            _ => Response::new(404),
        }
    };
    (Server::start(answer), received)
}

#[test]
fn zero_to_zero_is_one_byte_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let blob = store.put(media_type::LAYER, &noise(7, 2 << 20)).unwrap();
    for kept in [0, 1] {
        let (server, received) = forgetful(kept);
        let name = reference(&format!("{}/edge/one:v1", server.host()));
        let sink = RemoteSink::new(client(), name, blob.clone(), &store);
        let task = Task::begin(&Silent, "sending", None);
        assert_eq!(sink.take(&blob, &store, &task).unwrap(), Taken::Moved, "{kept}");
        assert_eq!(Digest::of(&received.lock().unwrap()), blob.digest, "{kept}");
        let tries = server.requests();
        let tries = tries.iter().filter(|request| request.method == "PATCH").count();
        assert_eq!(tries, 2 + kept, "the other reading is tried when the first is refused");
    }
}

#[test]
fn who_may_not_write_is_told_about_writing() {
    let server = Server::start(
        |request| match (request.header("authorization"), request.method.as_str()) {
            (None, _) => Response::new(401).header("WWW-Authenticate", "Basic realm=\"test\""),
            (Some(_), "GET") if request.target == "/v2/" => Response::new(200),
            _ => Response::new(403),
        },
    );
    let folder = tempfile::tempdir().unwrap();
    let entry = serde_json::json!({"username": "ops", "password": "word"});
    let client = log_in(folder.path(), &server.host(), &entry);
    let name = reference(&format!("{}/edge/one:v1", server.host()));
    let digest = Digest::of(b"x");
    let error = client.has_blob(&name, &digest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.remedy().unwrap().contains("may write"), "{error:?}");
    let error = client.manifest(&name, "v1").unwrap_err();
    assert!(error.remedy().unwrap().contains("may read"), "{error:?}");
}
