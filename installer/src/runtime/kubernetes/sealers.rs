//! Base images that sealer's own build made (its repository basefs): what of them is used, and what can't be.
//!
//! They bring Kubernetes' programs, container images and kubeadm's documents at the places that are read here. Their container
//! runtime is one that is installed by their scripts, which are not run.

use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::action::{Action, FileCopy, Mode};
use crate::member::Role;
use crate::plan::{Context, Step};
use crate::rootfs::RootfsFacts;

/// What sealer runs before kubeadm; none of its base images is without it.
const SCRIPT: &str = "scripts/init-kube.sh";
/// What kubeadm's documents in them name, as they do `audit-policy-file` of the API servers.
const AUDIT_POLICY: &str = "statics/audit-policy.yml";

/// Whether an image is built on one of them.
pub(super) fn made(rootfs: &RootfsFacts) -> bool {
    rootfs.has(SCRIPT)
}

/// Takes out of one of kubeadm's documents what sealer writes anew on the host, whatever stands there: it is of the cluster on
/// which somebody tried it out.
pub(super) fn take_out(document: &mut Value) {
    let Some(fields) = document.as_object_mut() else { return };
    fields.remove("kubernetesVersion");
    fields.remove("imageRepository");
    match fields
        .get_mut("apiServer")
        .and_then(|server| server.get_mut("extraArgs"))
    {
        Some(Value::Object(arguments)) => drop(arguments.remove("etcd-servers")),
        Some(Value::Array(arguments)) => {
            arguments.retain(|argument| argument.get("name").and_then(Value::as_str) != Some("etcd-servers"));
        }
        _ => {}
    }
}

/// The step that puts the policy for audits where sealer puts it.
pub(super) fn audit_policy(context: &Context<'_>) -> Result<Option<Step>> {
    if context.role != Role::Master || !context.rootfs.has(AUDIT_POLICY) {
        return Ok(None);
    }
    let files = vec![FileCopy {
        from: context.files.rootfs().join(AUDIT_POLICY),
        to: Path::new("/etc/kubernetes/audit-policy.yml").to_owned(),
        mode: Some(Mode(0o600)),
    }];
    let action = Action::CopyFiles { files, link: false };
    context
        .step("audit-policy", "give the API server its policy for audits", action)
        .map(Some)
}

/// Why the container runtime that an image brings can't be used, if it is one of sealer's.
pub(super) fn refuse(context: &Context<'_>) -> Result<()> {
    let docker = context.rootfs.has("scripts/docker.sh");
    if !made(context.rootfs) || !(docker || context.rootfs.has("scripts/containerd.sh")) {
        return Ok(());
    }
    let (script, why) = if docker {
        (
            "scripts/docker.sh",
            "it installs Docker 19.03 with changes of sealer's: that needs cgroups of version 1, and Kubernetes speaks to no \
             Docker from 1.24 on",
        )
    } else {
        (
            "scripts/containerd.sh",
            "it unpacks files that the image does not have, and sets up mirrors where this containerd does not look",
        )
    };
    let what = format!("this is a base image of sealer's, and its container runtime can't be used: `{script}`");
    Err(Error::new(ErrorKind::Input, what)
        .because(Error::new(ErrorKind::Input, why))
        .hint(
            "build an image FROM it that adds containerd's programs and runc to bin/; the rest of it is used as it is \
             (docs/kubernetes.md, \"Base images of sealer\")",
        ))
}
