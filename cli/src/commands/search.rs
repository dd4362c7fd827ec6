//! `sealrs search`

use clap::Args;
use sealrs_image::error::{Error, Result};
use sealrs_image::reference::Reference;

use super::remote::Registries;
use crate::printer::Printer;

/// List the tags of a repository in a registry, the newest versions last.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs search registry.example.com/edge/k3s
  sealrs search registry.example.com/edge/k3s | tail -1")]
pub(crate) struct Search {
    /// Repository, without a tag.
    #[arg(value_name = "REPOSITORY", value_parser = repository)]
    repository: Reference,

    #[command(flatten)]
    registries: Registries,
}

impl Search {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let tags = self.registries.client()?.tags(&self.repository)?;
        let document = serde_json::json!({"repository": self.repository.repository(), "tags": tags});
        printer.result(&document, |_| tags.join("\n"))
    }
}

fn repository(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: Error| error.to_string())?;
    // Where a tag is, or a digest, no other fits.
    match format!("{text}:tag").parse::<Reference>() {
        Ok(_) => Ok(reference),
        Err(_) => Err("give a repository without tag and digest".to_owned()),
    }
}
