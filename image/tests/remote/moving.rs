//! Whole pulls and pushes over a way that breaks, stalls, lies and refuses: what may pass costs little, what does not is
//! told with the blob and the image, and no place ever holds wrong bytes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sealrs_image::copy::Copied;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::layout::Layout;
use sealrs_image::progress::Silent;
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::push::Pusher;
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Options};
use sealrs_image::spec::{Descriptor, Manifest, parse};
use sealrs_image::store::Store;
use sealrs_image::verify::verify;
use sealrs_image::wanted::Wanted;

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http::Response;
use crate::support::registry::{Registry, Setup};
use crate::support::{self, have, image, noise};
use crate::{TOOLS, quick, reference, whole};

/// An image in a layout, and a registry.
struct Ground {
    folder: tempfile::TempDir,
    layout: Layout,
    root: Descriptor,
    /// The layers, the largest first.
    layers: Vec<Descriptor>,
    /// Bytes of all that are not documents.
    bytes: u64,
    registry: Registry,
}

impl Ground {
    fn new(content: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("layout-{content}"));
        // Sent in pieces, sent in pieces with little room in the kernel's buffers to spare, and sent whole.
        let layers = [noise(content, 8 << 20), noise(2, 700_000), b"small".to_vec()];
        image::layout(&path, "app", &["linux/amd64"], &layers);
        let layout = Layout::open(&path).unwrap();
        let root = layout.find(Some("app")).unwrap();
        let manifest = fs::read(path.join("blobs/sha256").join(root.digest.hex())).unwrap();
        let Manifest { config, layers, .. } = parse(&manifest, "manifest").unwrap();
        let bytes = layers.iter().chain([&config]).map(|blob| blob.size).sum();
        Self {
            folder,
            layout,
            root,
            layers,
            bytes,
            registry: Registry::start(&Setup::default()),
        }
    }

    /// The same with the image in the registry.
    fn filled() -> Self {
        let ground = Self::new(1);
        ground.fill();
        ground
    }

    fn fill(&self) {
        let layout = self.folder.path().join("layout-1");
        self.registry
            .push(&format!("{}:app", layout.display()), "library/app:1");
    }

    fn store(&self, name: &str) -> Store {
        Store::open(&self.folder.path().join(name)).unwrap()
    }

    fn push(&self, proxy: &FaultProxy, client: &Client) -> Result<Copied> {
        let store = self.store("pusher");
        let pusher = Pusher {
            store: &store,
            client,
            jobs: 1,
        };
        let pushed = pusher.push(&self.layout, &self.root, &app(proxy), &Wanted::All, &Silent);
        pushed.map(|(_, copied)| copied)
    }

    /// Has skopeo read all of what the registry holds under the name.
    fn check_pushed(&self) {
        let (source, target) = (
            format!("docker://{}/library/app:1", self.registry.host()),
            tempfile::tempdir().unwrap(),
        );
        let options = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
        let into = format!("dir:{}", target.path().display());
        support::run("skopeo", &[&options[..], &[&source, &into]].concat());
        let manifest = fs::read(target.path().join("manifest.json")).unwrap();
        assert_eq!(Digest::of(&manifest), self.root.digest);
    }
}

fn app(proxy: &FaultProxy) -> Reference {
    reference(&format!("{}/library/app:1", proxy.host()))
}

fn pull(store: &Store, proxy: &FaultProxy, client: &Client) -> Result<Descriptor> {
    let puller = Puller {
        store,
        client,
        policy: PullPolicy::Always,
        jobs: 4,
    };
    let wanted = Wanted::Platforms(vec!["linux/amd64".parse().unwrap()]);
    Ok(puller.pull(&app(proxy), &wanted, &Silent)?.root)
}

/// The store holds the image, whole, as skopeo finds too.
fn check_pulled(store: &Store, proxy: &FaultProxy, root: &Descriptor) {
    let name = app(proxy);
    let found = store.resolve(&name).unwrap().unwrap();
    assert_eq!(found.digest, root.digest);
    let report = verify(store, &[(name.to_string(), found)], |_| false, &Silent);
    assert_eq!((report.blobs, report.faults), (5, Vec::new()));
    let target = tempfile::tempdir().unwrap();
    let source = format!("oci:{}:{name}", store.path().display());
    let into = format!("dir:{}", target.path().display());
    support::run("skopeo", &["--insecure-policy", "copy", "--quiet", &source, &into]);
}

/// Every blob below a folder is what its name says: in a file of that name, or a folder of that name.
fn check_blobs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_blobs(&path);
            continue;
        }
        let named = if path.ends_with("data") {
            path.parent().unwrap()
        } else {
            &path
        };
        let hex = named.file_name().unwrap().to_str().unwrap();
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), hex, "{}", path.display());
    }
}

/// A busy machine stalls too: only where that is the point, it counts.
fn client(faults: &[Fault]) -> Client {
    let stalls = faults
        .iter()
        .any(|fault| matches!(fault, Fault::Stall(_) | Fault::SentStall(_)));
    let patience = if stalls { 500 } else { 30_000 };
    Client::new(Options {
        stall_timeout: Duration::from_millis(patience),
        ..quick()
    })
    .unwrap()
}

/// For a fault that does not pass. Stalls are waited for twice.
fn client_for_good(fault: &Fault) -> Client {
    match fault {
        Fault::Stall(_) | Fault::SentStall(_) => Client::new(Options {
            stall_timeout: Duration::from_millis(500),
            attempts: 2,
            ..quick()
        })
        .unwrap(),
        _ => client(&[]),
    }
}

fn answer(status: u16) -> Fault {
    Fault::Answer(Response::new(status))
}

fn busy(status: u16, pause: &str) -> Fault {
    Fault::Answer(Response::new(status).header("Retry-After", pause))
}

/// That a failure says which image it was about, and which blob.
#[track_caller]
fn assert_names(error: &Error, proxy: &FaultProxy, blob: &Digest, fault: &Fault) {
    let text = whole(error);
    for part in [&app(proxy).to_string(), &blob.to_string()] {
        assert!(text.contains(part.as_str()), "{fault:?}: `{part}` is not in: {text}");
    }
}

#[test]
fn a_pull_survives_what_may_pass() {
    if !have(&TOOLS) {
        return;
    }
    let ground = Ground::filled();
    let layer = ground.layers[0].digest.to_string();
    for (number, (part, faults)) in [
        (
            &layer[..],
            vec![Fault::Cut(3_000_000), Fault::Stall(2_000_000), Fault::Cut(0)],
        ),
        (
            &layer,
            vec![answer(500), answer(503), busy(429, "1"), busy(503, "0"), answer(429)],
        ),
        (
            &layer,
            vec![
                Fault::EndEarly(5_000_000),
                answer(500),
                Fault::Cut(1),
                Fault::Cut(100_000),
            ],
        ),
        (
            "/manifests/",
            vec![answer(503), Fault::Cut(100), busy(429, "1"), Fault::Stall(0)],
        ),
        ("/v2/", vec![Fault::Cut(0), answer(500), busy(429, "0")]),
        (
            &layer,
            (0..20)
                .map(|at| [Fault::Cut(at * 30_000), answer(503)][at as usize % 2].clone())
                .collect(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = FaultProxy::start(ground.registry.address);
        let store = ground.store(&format!("store-{number}"));
        let client = client(&faults);
        let said = format!("{faults:?}");
        proxy.next(part, faults);
        let pulled = pull(&store, &proxy, &client).map_err(|error| format!("{said}: {error:?}"));
        assert_eq!(pulled.unwrap().digest, ground.root.digest);
        check_pulled(&store, &proxy, &ground.root);
        // Every byte of a body that went back to the client, those of errors and of what was cut off too.
        let moved = proxy.body_bytes("/blobs/");
        assert!(
            moved <= ground.bytes + ground.bytes / 20,
            "{said}: {moved} for {}",
            ground.bytes
        );
    }
}

#[test]
fn a_pull_that_fails_names_blob_and_image_and_leaves_nothing_wrong() {
    if !have(&TOOLS) {
        return;
    }
    let ground = Ground::filled();
    let (layer, manifest) = (ground.layers[0].digest, ground.root.digest);
    let store = ground.store("store");
    for (blob, fault, kind, words) in [
        (layer, Fault::Cut(0), ErrorKind::Network, "broke off"),
        (layer, Fault::Stall(0), ErrorKind::Network, "sent nothing"),
        (
            layer,
            Fault::Truncate(500_000),
            ErrorKind::Integrity,
            "announces 500000 bytes",
        ),
        (layer, Fault::Flip(4_000_000), ErrorKind::Integrity, "damaged"),
        (
            layer,
            Fault::Append(b"x".to_vec()),
            ErrorKind::Integrity,
            "more than the blob's",
        ),
        (layer, answer(401), ErrorKind::Auth, "401"),
        (layer, answer(403), ErrorKind::Auth, "403"),
        (layer, answer(404), ErrorKind::NotFound, "404"),
        (layer, answer(429), ErrorKind::Network, "answered 429"),
        (
            layer,
            busy(429, "7200"),
            ErrorKind::Network,
            "no further request for 7200 s",
        ),
        (layer, answer(500), ErrorKind::Network, "answered 500"),
        (
            layer,
            busy(503, "7200"),
            ErrorKind::Network,
            "no further request for 7200 s",
        ),
        (manifest, Fault::Flip(40), ErrorKind::Integrity, "was expected"),
    ] {
        let proxy = FaultProxy::start(ground.registry.address);
        let part = if blob == layer {
            layer.to_string()
        } else {
            "/manifests/".to_owned()
        };
        proxy.always(&part, fault.clone());
        let error = pull(&store, &proxy, &client_for_good(&fault)).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        assert!(whole(&error).contains(words), "{fault:?}: {error:?}");
        assert_names(&error, &proxy, &blob, &fault);
        assert_eq!(store.resolve(&app(&proxy)).unwrap(), None, "{fault:?}");
        check_blobs(&store.path().join("blobs/sha256"));
        assert!(!store.has(&layer), "{fault:?}");
    }
    // The same store takes it as soon as the way is good, whatever all these have left.
    let proxy = FaultProxy::start(ground.registry.address);
    pull(&store, &proxy, &client(&[])).unwrap();
    check_pulled(&store, &proxy, &ground.root);
}

#[test]
fn a_tag_that_moves_on_during_a_pull_means_what_it_meant_at_first() {
    if !have(&TOOLS) {
        return;
    }
    let (ground, next) = (Ground::filled(), Ground::new(7));
    let proxy = FaultProxy::start(ground.registry.address);
    let (host, from) = (ground.registry.host(), next.folder.path().join("layout-7"));
    proxy.before_first("/blobs/", move || {
        let (from, to) = (
            format!("oci:{}:app", from.display()),
            format!("docker://{host}/library/app:1"),
        );
        let options = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        support::run("skopeo", &[&options[..], &[&from, &to]].concat());
    });
    let store = ground.store("store");
    assert_eq!(pull(&store, &proxy, &client(&[])).unwrap().digest, ground.root.digest);
    check_pulled(&store, &proxy, &ground.root);
    assert_eq!(pull(&store, &proxy, &client(&[])).unwrap().digest, next.root.digest);
    check_pulled(&store, &proxy, &next.root);
}

#[test]
fn a_push_survives_what_may_pass() {
    if !have(&TOOLS) {
        return;
    }
    let mut ground = Ground::new(1);
    // Docker's registry forgets an upload whose request was cut or whose answer was lost: that blob is sent again.
    for (faults, again) in [
        (
            vec![answer(500), answer(503), busy(429, "1"), Fault::LostAnswer, answer(429)],
            0,
        ),
        (vec![Fault::None, answer(503), answer(500)], 2),
        (vec![Fault::None, answer(401)], 1),
        (vec![Fault::None, Fault::SentCut(5_000_000)], 1),
        (vec![Fault::None, Fault::SentStall(1_000_000)], 1),
        (vec![Fault::None, Fault::LostAnswer], 1),
        // The registry has put it in its place, and nobody hears so.
        (vec![Fault::None, Fault::None, Fault::LostAnswer], 0),
    ] {
        ground.registry = Registry::start(&Setup::default());
        let proxy = FaultProxy::start(ground.registry.address);
        let said = format!("{faults:?}");
        let client = client(&faults);
        proxy.next("/blobs/uploads/", faults);
        proxy.next(
            "/manifests/",
            [Fault::None, answer(503), Fault::LostAnswer, busy(429, "0")],
        );
        let pushed = ground
            .push(&proxy, &client)
            .map_err(|error| format!("{said}: {error:?}"));
        assert_eq!(pushed.unwrap().blobs, 5);
        ground.check_pushed();
        // What the proxy took of the bodies of requests. What a broken connection left in the kernel's buffers nobody read.
        let sent = proxy.sent_bytes("/blobs/");
        let most = ground.bytes + again * ground.layers[0].size + ground.bytes / 20;
        assert!(sent <= most, "{said}: {sent} for {}", ground.bytes);
    }
}

#[test]
fn a_push_that_fails_names_blob_and_image_and_leaves_nothing_wrong() {
    if !have(&TOOLS) {
        return;
    }
    let ground = Ground::new(1);
    let (layer, root) = (ground.layers[0].digest, ground.root.digest);
    for (blob, part, fault, kind, words) in [
        (
            layer,
            "/uploads/",
            Fault::SentCut(1_000_000),
            ErrorKind::Network,
            "broke off",
        ),
        (
            layer,
            "/uploads/",
            Fault::SentStall(1_000_000),
            ErrorKind::Network,
            "sent nothing",
        ),
        (
            layer,
            "/uploads/",
            Fault::SentFlip(4_000_000),
            ErrorKind::Network,
            "damages what is sent",
        ),
        (layer, "/uploads/", answer(401), ErrorKind::Auth, "401"),
        (layer, "/uploads/", answer(403), ErrorKind::Auth, "403"),
        (layer, "/uploads/", answer(404), ErrorKind::NotFound, "404"),
        (layer, "/uploads/", answer(429), ErrorKind::Network, "answered 429"),
        (
            layer,
            "/uploads/",
            busy(429, "7200"),
            ErrorKind::Network,
            "no further request for 7200 s",
        ),
        (layer, "/uploads/", answer(500), ErrorKind::Network, "answered 500"),
        (
            layer,
            "/uploads/",
            busy(503, "7200"),
            ErrorKind::Network,
            "no further request for 7200 s",
        ),
        (
            root,
            "/manifests/sha256",
            answer(500),
            ErrorKind::Network,
            "answered 500",
        ),
    ] {
        let proxy = FaultProxy::start(ground.registry.address);
        proxy.always(part, fault.clone());
        let error = ground.push(&proxy, &client_for_good(&fault)).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        assert!(whole(&error).contains(words), "{fault:?}: {error:?}");
        assert_names(&error, &proxy, &blob, &fault);
        let tags = ground
            .registry
            .storage()
            .join("docker/registry/v2/repositories/library/app/_manifests/tags");
        assert!(!tags.exists(), "{fault:?}: it has a name");
        check_blobs(&ground.registry.storage().join("docker/registry/v2/blobs"));
    }
    let proxy = FaultProxy::start(ground.registry.address);
    ground.push(&proxy, &client(&[])).unwrap();
    ground.check_pushed();
    let left = fs::read_dir(ground.store("pusher").path().join("partial"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "an upload is remembered that nobody goes on with");
}
