//! A token server as registries name it in their challenges: JSON web tokens that Debian's docker-registry accepts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::http::{Request, Response, Server};
use super::run;

/// The issuer that the registry has to be set up with.
pub const ISSUER: &str = "test-issuer";
/// Who gets tokens.
pub const USER: &str = "reader";
/// With which password.
pub const PASSWORD: &str = "reader-password";
/// Or with which identity token.
pub const IDENTITY: &str = "reader-identity";

/// How long after its end docker-registry still takes a token, in seconds (its leeway for wrong clocks).
const LEEWAY: u64 = 60;

/// The server. Its certificate is `FOLDER/token.pem`.
#[derive(Debug)]
pub struct TokenServer {
    pub server: Server,
    /// The life of the tokens that it gives out, in seconds.
    pub life: Arc<AtomicU64>,
    /// How long it thinks before it answers, in milliseconds.
    pub pause: Arc<AtomicU64>,
    /// Its tokens end after two seconds, whatever it says.
    pub lies: Arc<AtomicBool>,
    /// Unless 0: the status that it answers everybody with, and no token.
    pub status: Arc<AtomicU16>,
}

impl TokenServer {
    pub fn start(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        let (key, pem) = (path("token.key"), path("token.pem"));
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=token",
        ];
        run("openssl", &[&arguments[..], &["-keyout", &key, "-out", &pem]].concat());
        let der = run("openssl", &["x509", "-in", &pem, "-outform", "DER"]);
        let life = Arc::new(AtomicU64::new(300));
        let pause = Arc::new(AtomicU64::new(0));
        let (lies, status) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(0)));
        let (lives, pauses, folder) = (Arc::clone(&life), Arc::clone(&pause), folder.to_owned());
        let (lie, answers) = (Arc::clone(&lies), Arc::clone(&status));
        let server = Server::start(move |request| {
            std::thread::sleep(Duration::from_millis(pauses.load(Ordering::SeqCst)));
            match answers.load(Ordering::SeqCst) {
                0 => answer(
                    request,
                    &folder,
                    &der,
                    lives.load(Ordering::SeqCst),
                    lie.load(Ordering::SeqCst),
                ),
                status => Response::new(status).body("{}"),
            }
        });
        Self {
            server,
            life,
            pause,
            lies,
            status,
        }
    }
}

fn answer(request: &Request, folder: &Path, certificate: &[u8], life: u64, lies: bool) -> Response {
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let (allowed, query) = match request.method.as_str() {
        "POST" => (form.contains(&format!("refresh_token={IDENTITY}")), form),
        _ => (
            request.header("authorization") == Some(&basic),
            request
                .target
                .split_once('?')
                .map_or(String::new(), |(_, query)| query.to_owned()),
        ),
    };
    if !allowed {
        return Response::new(401).body(r#"{"details":"incorrect username or password"}"#);
    }
    let values = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let values = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"));
        values.collect::<Vec<String>>()
    };
    let access: Vec<_> = values("scope")
        .iter()
        .flat_map(|scopes| scopes.split('+'))
        .filter_map(|scope| {
            let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else { return None };
            Some(json!({"type": kind, "name": name, "actions": actions.replace("%2C", ",").split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // Two seconds at least: a token is of use to whoever has just got it.
    let end = now + if lies { 2 } else { life.max(2) } - LEEWAY;
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(certificate)]});
    let claims = json!({
        "iss": ISSUER, "sub": USER, "aud": values("service").concat(), "exp": end, "nbf": now - LEEWAY - 10, "iat": now,
        "jti": format!("{now}-{}", request.target.len()), "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    std::fs::write(file.path(), &signed).unwrap();
    let (key, file) = (
        folder.join("token.key").display().to_string(),
        file.path().display().to_string(),
    );
    let signature = run("openssl", &["dgst", "-sha256", "-sign", &key, &file]);
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let field = if request.method == "POST" {
        "access_token"
    } else {
        "token"
    };
    let body = serde_json::to_vec(&json!({field: token, "expires_in": life})).unwrap();
    Response::new(200).header("Content-Type", "application/json").body(body)
}
