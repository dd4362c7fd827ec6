//! Who trusts whom: the cluster's certificate authorities, and its key for service accounts, all made before the first start.
//! What else there is of certificates kubeadm makes on each host.

use std::path::PathBuf;

use sealrs_image::error::Result;

use super::{file, secret, secret_file, state};
use crate::action::{Action, Content, FileWrite};
use crate::plan::{Context, Step};

/// Authorities, by their names below kubeadm's folder.
const AUTHORITIES: [&str; 3] = ["ca", "etcd/ca", "front-proxy-ca"];

/// The file of the authority by which API servers are known.
pub(super) fn ca(context: &Context<'_>) -> PathBuf {
    state(context.files).join("ca.crt")
}

/// What every host has to know beforehand.
pub(super) fn authority(context: &Context<'_>) -> Result<Step> {
    let action = Action::WriteFiles(vec![file(ca(context), 0o644, Content::Secret(secret("ca.crt")))]);
    context.step(
        "kubernetes-ca",
        "give the host the cluster's certificate authority",
        action,
    )
}

/// What masters need. kubeadm takes it over from its own folder; a copy is kept because a reset empties that.
pub(super) fn authorities(context: &Context<'_>) -> Result<Step> {
    let folder = state(context.files).join("pki");
    let place = |path: &str, name: &str| {
        let content = Content::Secret(secret(name));
        secret_file(folder.join(path), content)
    };
    let files: Vec<FileWrite> = AUTHORITIES
        .iter()
        .flat_map(|name| ["crt", "key"].map(|kind| format!("{name}.{kind}")))
        .map(|name| place(&name, &name))
        .chain([place("sa.key", "sa.rsa"), place("sa.pub", "sa.rsa-pub")])
        .collect();
    context.step(
        "kubernetes-authorities",
        "give the host the keys of the cluster's certificate authorities",
        Action::WriteFiles(files),
    )
}
