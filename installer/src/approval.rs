//! A plan that somebody has read and agreed to: nothing else is done.

use std::path::Path;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

use crate::plan::Plan;

/// The plan that was agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    digest: Digest,
    /// The plan itself, where it was kept: with it, differences can be told.
    plan: Option<Box<Plan>>,
}

impl Approval {
    /// A plan's digest, or the file that `run --dry-run --output json` was kept in.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it is neither.
    pub fn read(word: &str) -> Result<Self> {
        if let Ok(digest) = word.parse::<Digest>() {
            return Ok(Self { digest, plan: None });
        }
        let path = Path::new(word);
        if !path.exists() {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{}` is neither the digest of a plan nor a file", word.escape_debug()),
            )
            .hint("`sealrs run --dry-run` prints the digest; with `--output json`, what it prints is such a file"));
        }
        let place = || format!("cannot read {}", path.display());
        let bytes = std::fs::read(path).or_read(place)?;
        let plan: Plan = serde_json::from_slice(&bytes)
            .or_fail(ErrorKind::Input, || format!("{} is no plan", path.display()))
            .map_err(|error| error.hint("keep what `sealrs run --dry-run --output json` prints"))?;
        Ok(Self {
            digest: plan.digest()?,
            plan: Some(Box::new(plan)),
        })
    }

    /// Whether `plan` is the one.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is not, with what differs where that is known.
    pub(crate) fn check(&self, plan: &Plan) -> Result<()> {
        let now = plan.digest()?;
        if now == self.digest {
            return Ok(());
        }
        let what = match &self.plan {
            Some(before) => format!(
                "the plan is another one than was agreed to: {}",
                differences(before, plan).join("; ")
            ),
            None => format!(
                "the plan is another one than was agreed to: it is {now}, not {}",
                self.digest
            ),
        };
        Err(Error::new(ErrorKind::Conflict, what)
            .hint("look at it with `--dry-run`: image, options or hosts have changed; then agree to the new one"))
    }
}

/// What differs, in words.
fn differences(before: &Plan, now: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let mut word = |what: &str, before: String, now: String| {
        if before != now {
            found.push(format!("{what} was {before} and is now {now}"));
        }
    };
    word("the cluster", before.cluster.clone(), now.cluster.clone());
    word("the image", before.image.to_string(), now.image.to_string());
    word("the runtime", before.runtime.clone(), now.runtime.clone());
    word("the registry", before.registry.clone(), now.registry.clone());
    let hosts = |plan: &Plan| {
        let words = plan
            .hosts
            .iter()
            .map(|peer| format!("{} {} ({})", peer.role, peer.address, peer.hostname));
        words.collect::<Vec<_>>().join(", ")
    };
    word("the hosts", hosts(before), hosts(now));
    for step in &before.steps {
        match now.steps.iter().find(|other| other.id == step.id) {
            None => found.push(format!("step `{}` is gone", step.id)),
            Some(other) if other.action != step.action => found.push(format!("step `{}` does something else", step.id)),
            Some(other) if other.phase != step.phase => found.push(format!("step `{}` comes at another time", step.id)),
            Some(_) => {}
        }
    }
    let new = now
        .steps
        .iter()
        .filter(|step| !before.steps.iter().any(|other| other.id == step.id));
    found.extend(new.map(|step| format!("step `{}` is new", step.id)));
    if found.is_empty() {
        found.push("its notes, or the order of its steps".to_owned());
    }
    found
}
