//! A repository of a registry as a source of blobs.

use std::io::{Cursor, Read};

use crate::error::Result;
use crate::reference::Reference;
use crate::remote::client::Client;
use crate::source::Source;
use crate::spec::{Descriptor, media_type};

/// A repository of a registry.
#[derive(Debug, Clone)]
pub struct RemoteSource {
    /// The client that asks.
    pub client: Client,
    /// The repository; the image that is wanted from it, for messages.
    pub repository: Reference,
}

impl Source for RemoteSource {
    fn origin(&self) -> String {
        self.repository.to_string()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        // Registries serve manifests in a place of their own, and not as blobs.
        if media_type::is_index(&blob.media_type) || media_type::is_manifest(&blob.media_type) {
            let document = self.client.manifest(&self.repository, &blob.digest.to_string())?;
            let mut bytes = Cursor::new(document.bytes);
            bytes.set_position(offset);
            return Ok(Box::new(bytes));
        }
        Ok(Box::new(self.client.blob(&self.repository, blob, offset)?))
    }
}
