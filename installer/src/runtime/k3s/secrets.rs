//! Who trusts whom: the certificate authorities of the cluster and its tokens, all made before the first start.
//!
//! A full token names the authority that a host has to expect (`K10<SHA-256 of server-ca.crt>::USER:PASSWORD`). Agents
//! have a token of their own, which can't make a server.

use std::path::Path;

use sealrs_image::error::Result;

use super::{AGENT_TOKEN, DATA, TOKEN};
use crate::action::{Action, Content, FileWrite, Mode, Piece};
use crate::member::Role;
use crate::plan::{Context, Step};

/// The authorities that k3s takes over when they are there, below its `server/tls`.
const AUTHORITIES: [&str; 5] = [
    "client-ca",
    "etcd/peer-ca",
    "etcd/server-ca",
    "request-header-ca",
    "server-ca",
];
/// The key that service accounts' tokens are signed with.
const SERVICE: &str = "k3s/service.ec";

/// The name of a secret.
fn secret(name: &str, kind: &str) -> String {
    format!("k3s/{name}.{kind}")
}

/// The steps that give a host what it needs. Masters that join get the authorities from the founder.
pub(super) fn steps(context: &Context<'_>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if context.is_founder() {
        steps.push(context.step(
            "k3s-authorities",
            "make the cluster's certificate authorities",
            Action::WriteFiles(authorities()),
        )?);
    }
    let (user, password) = match context.role {
        Role::Master => ("server", "k3s-token"),
        Role::Node => ("node", "k3s-agent-token"),
    };
    let token = [
        Piece::Text("K10".to_owned()),
        Piece::Sha256(secret("server-ca", "crt")),
        Piece::Text(format!("::{user}:")),
        Piece::Secret(password.to_owned()),
    ];
    let mut files = vec![file(TOKEN, Content::Pieces(token.to_vec()))];
    if context.role == Role::Master {
        files.push(file(AGENT_TOKEN, Content::Secret("k3s-agent-token".to_owned())));
    }
    let title = match context.role {
        Role::Master => "make the cluster's tokens",
        Role::Node => "give the host the token of agents",
    };
    steps.push(context.step("k3s-token", title, Action::WriteFiles(files))?);
    Ok(steps)
}

fn file(path: impl AsRef<Path>, content: Content) -> FileWrite {
    FileWrite {
        path: path.as_ref().to_owned(),
        mode: Mode(0o600),
        content,
    }
}

fn authorities() -> Vec<FileWrite> {
    let folder = Path::new(DATA).join("server/tls");
    let place = |name: &str, kind: &str| {
        let content = Content::Secret(secret(name, kind));
        file(folder.join(format!("{name}.{kind}")), content)
    };
    AUTHORITIES
        .iter()
        .flat_map(|name| [place(name, "crt"), place(name, "key")])
        .chain([file(folder.join("service.key"), Content::Secret(SERVICE.to_owned()))])
        .collect()
}
