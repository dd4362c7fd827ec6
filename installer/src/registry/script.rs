//! The registry that an image's own script starts, and what takes it away.

use std::collections::BTreeMap;

use sealrs_image::error::Result;

use crate::action::{Action, Claim, FileCopy, Program};
use crate::command::word;
use crate::plan::{Context, Step};

/// The script that an image may bring to start its own registry.
pub(crate) const INIT_SCRIPT: &str = "scripts/init-registry.sh";
/// The step that runs it.
const INIT_STEP: &str = "registry";
/// The script that an image may bring to end it.
const UNINSTALL_SCRIPT: &str = "scripts/uninstall-registry.sh";
/// The container that sealer's init-registry.sh starts.
const CONTAINER: &str = "sealer-registry";

/// The steps from the image's script to a registry that it has started.
pub(super) fn steps(context: &Context<'_>) -> Result<Vec<Step>> {
    let files = context.files;
    let scripts = files.rootfs().join("scripts");
    let arguments = [
        context.options.registry_port.to_string(),
        word(&files.rootfs().join("registry")),
        context.options.registry_domain.clone(),
    ];
    let script = |path: String| Program {
        argv: [vec!["bash".to_owned(), path], arguments.to_vec()].concat(),
        folder: scripts.clone(),
        env: BTreeMap::new(),
    };
    let mut steps = Vec::new();
    let mut claims = vec![Claim::Container(CONTAINER.to_owned())];
    if context.rootfs.has(UNINSTALL_SCRIPT) {
        let kept = files.data().join("scripts/uninstall-registry.sh");
        steps.push(context.step(
            "registry-uninstall",
            "keep the script that removes the registry",
            Action::CopyFiles {
                files: vec![FileCopy {
                    from: files.rootfs().join(UNINSTALL_SCRIPT),
                    to: kept.clone(),
                    mode: None,
                }],
                link: false,
            },
        )?);
        claims.push(Claim::Command(script(word(&kept))));
    }
    steps.push(context.step(
        "registry-claim",
        "note how the registry is removed",
        Action::Claim(claims),
    )?);
    steps.push(context.step(
        INIT_STEP,
        "start the private registry by the image's script",
        Action::Run(script("init-registry.sh".to_owned())),
    )?);
    Ok(steps)
}

/// What the image's script owes when its registry does not answer.
pub(super) fn remedy(context: &Context<'_>) -> String {
    let (files, options) = (context.files, context.options);
    let certificate = files.rootfs().join("certs").join(&options.registry_domain);
    format!(
        "{INIT_SCRIPT} of the image has to start a registry that answers on port {} over TLS, with {certificate}.crt and \
         {certificate}.key; what it printed is in {}",
        options.registry_port,
        files.log().join(format!("{INIT_STEP}.log")).display(),
        certificate = certificate.display(),
    )
}
