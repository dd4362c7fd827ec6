//! A repository of a registry as a source of blobs, and an image in it.

use std::io::{Cursor, Read};

use crate::error::Result;
use crate::reference::Reference;
use crate::remote::client::Client;
use crate::remote::manifest::Document;
use crate::source::{Source, rest};
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

    fn repository(&self) -> Option<&Reference> {
        Some(&self.repository)
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

/// An image of a registry: what its name meant when it was asked for. The tag may move on while the parts come.
#[derive(Debug)]
pub struct RemoteImage {
    repository: RemoteSource,
    document: Document,
}

impl RemoteImage {
    /// Asks for the image `name`.
    ///
    /// # Errors
    /// As [`Client::manifest`].
    pub fn find(client: &Client, name: &Reference) -> Result<Self> {
        Ok(Self {
            document: client.manifest(name, &name.selector())?,
            repository: RemoteSource {
                client: client.clone(),
                repository: name.clone(),
            },
        })
    }

    /// Its manifest or index.
    #[must_use]
    pub fn root(&self) -> &Descriptor {
        &self.document.descriptor
    }
}

impl Source for RemoteImage {
    fn origin(&self) -> String {
        self.repository.origin()
    }

    fn repository(&self) -> Option<&Reference> {
        self.repository.repository()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if blob.digest == self.document.descriptor.digest {
            return Ok(Box::new(rest(&self.document.bytes, offset)));
        }
        self.repository.open(blob, offset)
    }
}
