//! `sealrs tag`

use std::path::Path;

use clap::Args;
use sealrs_image::error::Result;
use sealrs_image::locate::in_store;
use sealrs_image::reference::Reference;
use sealrs_image::store::Store;

use crate::printer::Printer;

/// Give an image in the store more names.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs tag k3s:v1 registry.example.com/edge/k3s:v1")]
pub(crate) struct Tag {
    /// Image that is there: its name, or the start of its digest.
    source: String,

    /// Names it gets. A name that another image has moves over.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

impl Tag {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::look(root)?;
        let _lock = store.share()?;
        let (descriptor, _) = in_store(&store, &self.source)?;
        self.names.iter().try_for_each(Reference::check_givable)?;
        for name in &self.names {
            store.tag(Some(name), &descriptor)?;
        }
        let names: Vec<String> = self.names.iter().map(Reference::familiar).collect();
        printer.result(
            &serde_json::json!({"digest": descriptor.digest, "names": names}),
            |_| String::new(),
        )
    }
}
