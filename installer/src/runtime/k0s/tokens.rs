//! Who trusts whom. The founder gets the cluster's authority and its key for service accounts before its first start; so do
//! other controllers where they share a datastore. A host that joins otherwise gets a bootstrap token of Kubernetes, packed
//! into a kubeconfig as k0s has it. The API server hears of it right before the host joins, and forgets it right after.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use sealrs_image::error::Result;

use super::config::{Config, Datastore};
use super::{DATA, TOKEN, program_path, secret_file};
use crate::action::{Action, Content, FileWrite, Mode, Piece, Program};
use crate::command::word;
use crate::member::Role;
use crate::plan::{Context, Step};

const CA: &str = "k0s/ca.crt";
/// How long a token is good for, in seconds: a join takes a minute or two, and forgetting it is what ends it.
const VALID: u32 = 3600;

/// Makes the token of a file known to the API server. What is secret goes through pipes alone.
const INVITE: &str = r#"
set -eu
token=$(cat "$TOKEN_FILE"); id=${token%%.*}; secret=${token#*.}
expires=$(date -u -d "@$(($(date +%s) + VALID))" +%Y-%m-%dT%H:%M:%SZ)
timeout -k 5 90 "$K0S" kubectl apply -f - <<X
{"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
 "metadata": {"name": "bootstrap-token-$id", "namespace": "kube-system"},
 "stringData": {"token-id": "$id", "token-secret": "$secret", "expiration": "$expires",
  "description": "made by sealrs for hosts that join now", $USAGES}}
X"#;

/// Makes the API server forget the token of a file, and removes the file.
const FORGET: &str = r#"
set -eu
[ -e "$TOKEN_FILE" ] || exit 0
token=$(cat "$TOKEN_FILE"); id=${token%%.*}
timeout -k 5 90 "$K0S" kubectl delete secret -n kube-system "bootstrap-token-$id" --ignore-not-found
rm -f "$TOKEN_FILE""#;

/// The authority and the key for service accounts, for who needs them before the first start.
pub(super) fn authorities(context: &Context<'_>, config: &Config) -> Result<Vec<Step>> {
    if is_invited(context, config) {
        return Ok(Vec::new());
    }
    let folder = Path::new(DATA).join("pki");
    let files = [
        ("ca.crt", CA),
        ("ca.key", "k0s/ca.key"),
        ("sa.key", "k0s/sa.ec"),
        ("sa.pub", "k0s/sa.pub"),
    ];
    // k0s gives the keys to who needs them, and leaves the rest as it is: its parts run as users of their own.
    let readable = |name: &str| name == "ca.crt" || name == "sa.pub";
    let files = files.map(|(name, secret)| FileWrite {
        path: folder.join(name),
        mode: Mode(if readable(name) { 0o644 } else { 0o600 }),
        content: Content::Secret(secret.to_owned()),
    });
    let action = Action::WriteFiles(files.to_vec());
    Ok(vec![context.step(
        "k0s-authorities",
        "make the cluster's certificate authority",
        action,
    )?])
}

/// Whether the host needs a token to join.
pub(super) fn is_invited(context: &Context<'_>, config: &Config) -> bool {
    match context.role {
        Role::Node => true,
        Role::Master => !context.is_founder() && config.datastore == Datastore::Etcd,
    }
}

/// Controllers come one by one and each has a token of its own; nodes come together and share one.
fn secret(context: &Context<'_>) -> String {
    match context.role {
        Role::Node => "k0s/node.token".to_owned(),
        Role::Master => format!("k0s/controller-{}.token", file_name(context.host)),
    }
}

fn file_name(address: IpAddr) -> String {
    address.to_string().replace(':', "-")
}

/// Where the founder has the token meanwhile.
fn known(context: &Context<'_>) -> PathBuf {
    context.files.data().join(secret(context).replace('/', "-"))
}

pub(super) fn invite(context: &Context<'_>) -> Result<Vec<Step>> {
    let (what, usages) = match context.role {
        Role::Node => ("nodes", r#""usage-bootstrap-authentication": "true""#),
        Role::Master => (
            "a controller",
            r#""usage-bootstrap-controller-join": "true", "usage-controller-join": "true""#,
        ),
    };
    let file = Action::WriteFiles(vec![secret_file(known(context), Content::Secret(secret(context)))]);
    let mut program = shell(context, INVITE);
    program.env.insert("USAGES".to_owned(), usages.to_owned());
    program.env.insert("VALID".to_owned(), VALID.to_string());
    let id = |id: &str| of(context, id);
    Ok(vec![
        on_founder(context, id("k0s-token"), format!("make a token for {what}"), file)?,
        on_founder(
            context,
            id("k0s-invite"),
            format!("let {what} join for an hour"),
            Action::Run(program),
        )?,
    ])
}

pub(super) fn forget(context: &Context<'_>) -> Result<Vec<Step>> {
    let action = Action::Run(shell(context, FORGET));
    Ok(vec![on_founder(
        context,
        of(context, "k0s-forget"),
        "let nobody join any more".to_owned(),
        action,
    )?])
}

fn of(context: &Context<'_>, id: &str) -> String {
    match context.role {
        Role::Node => format!("{id}-nodes"),
        Role::Master => format!("{id}-{}", file_name(context.host)),
    }
}

fn on_founder(context: &Context<'_>, id: String, title: String, action: Action) -> Result<Step> {
    Step::on(context.founder(), id, title, action)
}

fn shell(context: &Context<'_>, script: &str) -> Program {
    let variables = [
        ("TOKEN_FILE", word(&known(context))),
        ("K0S", word(&program_path(context.facts))),
    ];
    Program {
        argv: ["sh", "-c", script.trim_start()].map(str::to_owned).to_vec(),
        folder: context.files.data(),
        env: variables.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// Gives the joining host its token.
pub(super) fn give(context: &Context<'_>, config: &Config) -> Result<Step> {
    let (user, port) = match context.role {
        Role::Node => ("kubelet-bootstrap", config.port("/api/port", 6443)),
        Role::Master => ("controller-bootstrap", config.port("/api/k0sApiPort", 9443)),
    };
    let server = match config.text("/api/externalAddress") {
        Some(name) if name.contains(':') && !name.starts_with('[') => format!("[{name}]:{port}"),
        Some(name) => format!("{name}:{port}"),
        None => SocketAddr::new(context.founder(), port).to_string(),
    };
    let pieces = vec![
        Piece::Text(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: k0s\nclusters:\n- name: k0s\n  cluster:\n    \
             server: https://{server}\n    certificate-authority-data: "
        )),
        Piece::Base64(CA.to_owned()),
        Piece::Text(format!(
            "\ncontexts:\n- name: k0s\n  context:\n    cluster: k0s\n    user: {user}\nusers:\n- name: {user}\n  \
             user:\n    token: "
        )),
        Piece::Secret(secret(context)),
        Piece::Text("\n".to_owned()),
    ];
    let action = Action::WriteFiles(vec![secret_file(TOKEN, Content::Packed(pieces))]);
    context.step("k0s-join-token", "give the host its token", action)
}
