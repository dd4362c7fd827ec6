//! `sealrs logout`

use clap::Args;
use sealrs_image::error::Result;
use sealrs_image::progress::{Event, Progress as _};
use sealrs_image::remote::{Credentials, RegistryName};

use crate::printer::Printer;

/// Forget a login to a registry.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs logout registry.example.com")]
pub(crate) struct Logout {
    /// Registry, as it was given to `sealrs login`.
    #[arg(value_name = "REGISTRY")]
    registry: RegistryName,
}

impl Logout {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let registry = &self.registry;
        let forgotten = Credentials::from_environment()?.forget(registry)?;
        if let Some(login) = &forgotten.still {
            let warning = format!("{registry} is still met as `{}`, by {}", login.user, login.origin);
            printer.progress().event(Event::Warning(&warning));
        }
        let document = serde_json::json!({"registry": registry.to_string(), "removedFrom": forgotten.place});
        printer.result(&document, |_| match &forgotten.place {
            Some(place) => format!("logged out of {registry}, removed from {place}"),
            None => format!("there was no login for {registry}"),
        })
    }
}
