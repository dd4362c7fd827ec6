//! What commands of the image, and people, use of a cluster: kubectl and ctr, and the kubeconfig.

use std::path::{Path, PathBuf};

use sealrs_image::error::Result;

use super::KUBECONFIG;
use crate::action::{Action, Claim, FileCopy, Mode};
use crate::plan::{Context, Step};

/// Names under which the binary is another program.
pub(super) const LINKS: [&str; 2] = ["kubectl", "ctr"];

/// `kubectl` and its like: for commands of the image the cluster's own, for people unless the host has others.
pub(super) fn links(context: &Context<'_>, program: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in LINKS {
        steps.push(context.step(
            format!("k0s-own-{name}"),
            format!("let commands of the image find {name}"),
            Action::Link {
                path: context.files.programs().join(name),
                target: program.to_owned(),
            },
        )?);
        if !context.facts.programs.contains(name) {
            steps.push(context.step(
                format!("k0s-{name}"),
                format!("link {name} to k0s"),
                Action::Link {
                    path: program.with_file_name(name),
                    target: "k0s".into(),
                },
            )?);
        }
    }
    Ok(steps)
}

/// The administrator's kubeconfig, for sealrs and, if there is none yet, for who installs.
pub(super) fn kubeconfig(context: &Context<'_>) -> Result<Vec<Step>> {
    let copy = |to: PathBuf| FileCopy {
        from: KUBECONFIG.into(),
        to,
        mode: Some(Mode(0o600)),
    };
    let mut steps = vec![context.step(
        "kubeconfig",
        "keep the kubeconfig",
        Action::CopyFiles {
            files: vec![copy(context.files.kubeconfig())],
            link: false,
        },
    )?];
    if let Some(home) = &context.facts.home {
        let folder = home.join(".kube");
        steps.push(context.step(
            "kubeconfig-home",
            "offer the kubeconfig to kubectl",
            Action::OfferFile(copy(folder.join("config"))),
        )?);
        steps.push(context.step(
            "kubectl-cache",
            "note where kubectl keeps its cache",
            Action::Claim(vec![Claim::Tree(folder.join("cache"))]),
        )?);
    }
    Ok(steps)
}
