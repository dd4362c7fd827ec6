//! The entries of an OCI archive that comes through a pipe, one after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::{Base, NO_ARCHIVE, TAR_BLOCK, begins_tar, listed, no_archive, packed_with};
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::graph;
use crate::layer::{MemberKind, TarReader};
use crate::reference::Reference;
use crate::spec::{self, Descriptor, Index, MAX_DOCUMENT, Manifest, media_type};

/// So many bytes of documents are kept in memory at most.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// The bytes of a stream.
pub type Input = Box<dyn Read + Send + Sync>;

/// An archive that can be read only once, from its start to its end.
pub(super) struct Entries {
    origin: String,
    tar: TarReader<Input>,
    images: Option<Vec<(Option<Reference>, Descriptor)>>,
    bases: Vec<Base>,
    /// The documents and configs that belong to the images, as far as they are known.
    wanted: BTreeMap<Digest, Descriptor>,
    documents: BTreeMap<Digest, Vec<u8>>,
    kept: u64,
    is_docker: bool,
}

/// Opens what `argument` names if it can be read only once: `-` for standard input, or a named pipe.
///
/// # Errors
/// [`ErrorKind::Input`] when standard input is a terminal; [`ErrorKind::Disk`] when it can't be opened.
pub fn open_stream(argument: &Path) -> Result<Option<(Input, String)>> {
    if argument == Path::new("-") {
        let input = std::io::stdin();
        if input.is_terminal() {
            return Err(
                Error::new(ErrorKind::Input, "standard input is a terminal, not an archive")
                    .hint("pipe an archive in, for instance `sealrs save NAME -o - | ssh HOST sealrs load -i -`"),
            );
        }
        // Not through the standard library's small buffer.
        let input = input
            .as_fd()
            .try_clone_to_owned()
            .or_io(|| "cannot read standard input")?;
        return Ok(Some((Box::new(File::from(input)), "standard input".to_owned())));
    }
    let is_pipe = std::fs::metadata(argument).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if !is_pipe {
        return Ok(None);
    }
    let file = File::open(argument).or_io(|| format!("cannot open {}", argument.display()))?;
    Ok(Some((Box::new(file), format!("pipe {}", argument.display()))))
}

impl Entries {
    pub(super) fn new(mut input: Input, origin: String) -> Result<Self> {
        let mut start = Vec::new();
        (&mut input)
            .take(TAR_BLOCK)
            .read_to_end(&mut start)
            .or_io(|| format!("cannot read {origin}"))?;
        if let Some((packed, unpack)) = packed_with(&start) {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("cannot read {origin}: all of it is packed with {packed}"),
            )
            .hint(format!("its layers are packed already; put `{unpack} |` in front")));
        }
        if !begins_tar(&start) {
            let what = format!("cannot read {origin}: {}", no_archive(&start));
            return Err(Error::new(ErrorKind::Integrity, what).hint(NO_ARCHIVE));
        }
        Ok(Self {
            tar: TarReader::new(Box::new(Cursor::new(start).chain(input))),
            origin,
            images: None,
            bases: Vec::new(),
            wanted: BTreeMap::new(),
            documents: BTreeMap::new(),
            kept: 0,
            is_docker: false,
        })
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// The images, as soon as `index.json` has come.
    pub(super) fn images(&self) -> Option<&[(Option<Reference>, Descriptor)]> {
        self.images.as_deref()
    }

    pub(super) fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// The document or config, if it is one that has come.
    pub(super) fn document(&self, digest: &Digest) -> Option<&[u8]> {
        self.documents.get(digest).map(Vec::as_slice)
    }

    /// Takes all documents and configs that have come.
    pub(super) fn take_documents(&mut self) -> BTreeMap<Digest, Vec<u8>> {
        std::mem::take(&mut self.documents)
    }

    /// Goes on to the next blob that is no document of a listed image; documents are kept on the way.
    pub(super) fn next_blob(&mut self) -> Result<Option<Descriptor>> {
        loop {
            let next = self.tar.next();
            let Some(member) = next.map_err(|error| self.broken("it is not a tar, or is cut off").because(error))?
            else {
                self.tar.drain()?;
                return Ok(None);
            };
            let MemberKind::File(size) = member.kind else { continue };
            let name = member.path.strip_prefix("./").unwrap_or(&member.path);
            if name == "index.json" {
                self.read_index(size)?;
                continue;
            }
            let digest = name
                .strip_prefix("blobs/sha256/")
                .map(|hex| format!("sha256:{hex}").parse::<Digest>());
            let Some(Ok(digest)) = digest else {
                self.is_docker |= name == "manifest.json";
                // What else is in an OCI archive is small.
                if size > MAX_DOCUMENT {
                    return Err(self.no_oci_archive());
                }
                continue;
            };
            match self.wanted.remove(&digest) {
                Some(document) if size == document.size && size <= MAX_DOCUMENTS.saturating_sub(self.kept) => {
                    self.keep(&document)?;
                }
                _ => return Ok(Some(Descriptor::new("", digest, size))),
            }
        }
    }

    /// The bytes of the blob that [`Entries::next_blob`] has come to.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        self.tar.content()
    }

    fn read_index(&mut self, size: u64) -> Result<()> {
        if self.images.is_some() {
            return Err(self.broken("it holds `index.json` twice"));
        }
        if size > MAX_DOCUMENT {
            return Err(self.broken(&format!("its `index.json` has {size} bytes")));
        }
        let mut bytes = Vec::new();
        let read = self.tar.content().read_to_end(&mut bytes);
        read.or_io(|| format!("cannot read {}", self.origin))?;
        let index: Index = spec::parse(&bytes, &format!("`index.json` of {}", self.origin))?;
        let (images, bases) = listed(index)?;
        if images.is_empty() {
            return Err(self.broken("its `index.json` lists no image"));
        }
        self.want(images.iter().map(|(_, image)| image.clone()));
        self.images = Some(images);
        self.bases = bases;
        Ok(())
    }

    fn want(&mut self, blobs: impl IntoIterator<Item = Descriptor>) {
        let unseen = blobs
            .into_iter()
            .filter(|blob| blob.size <= MAX_DOCUMENT && graph::is_json(blob));
        self.wanted.extend(unseen.map(|blob| (blob.digest, blob)));
    }

    fn keep(&mut self, document: &Descriptor) -> Result<()> {
        let place = || format!("cannot read {}", self.origin);
        let mut bytes = Vec::new();
        VerifyingReader::new(self.tar.content(), document.digest, document.size)
            .read_to_end(&mut bytes)
            .or_io(place)?;
        let origin = document.digest.to_string();
        if media_type::is_index(&document.media_type) {
            let index: Index = spec::parse(&bytes, &origin)?;
            self.want(index.manifests);
        } else if media_type::is_manifest(&document.media_type) {
            let manifest: Manifest = spec::parse(&bytes, &origin)?;
            self.want([manifest.config]);
        }
        self.kept += document.size;
        self.documents.insert(document.digest, bytes);
        Ok(())
    }

    /// The failure at the end of a stream without an `index.json`, or at something that has no place in one.
    pub(super) fn no_oci_archive(&self) -> Error {
        let what = match self.is_docker {
            true => "it is a Docker archive, which can't be read from a pipe",
            false => "it is no OCI archive",
        };
        self.broken(what)
            .hint("write it to a file and load that with `sealrs load -i FILE`")
    }

    fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Integrity, format!("cannot read {}: {why}", self.origin))
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({})", self.origin)
    }
}
