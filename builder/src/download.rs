//! Files that APP names by URL: into the store, resumed and verified.

use std::io::{self, Read};

use sealrs_image::digest::{Digest, Hasher, WrongDigest};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::remote::{Client, FileSource, shown};
use sealrs_image::spec::Descriptor;

use crate::kubefile::{Checksum, RemoteFile};
use crate::pack::Packing;

/// Fetches `file` into the store, unless it is there already. Gives its digest and size in bytes.
pub(crate) fn fetch(packing: &Packing<'_>, client: &Client, file: &RemoteFile) -> Result<(Digest, u64)> {
    let place = || format!("cannot fetch {}", shown(&file.url));
    let (store, progress) = (packing.store, packing.progress);
    let expected = file.checksum.map(|checksum| checksum.digest);
    if let Some(digest) = expected.or_else(|| packing.seen.fetched(&file.url))
        && let Some(size) = store.size(&digest)
    {
        return Ok((digest, size));
    }
    if file.checksum.is_none() {
        warn(progress, file);
    }
    let source = FileSource::new(client.clone(), &file.url)?;
    let (mut reader, size) = source.start().map_err(|error| explain(file, error)).context(place)?;
    let task = Task::begin(progress, &format!("fetching {}", shown(&file.url)), size);
    if let (Some(Checksum { digest, .. }), Some(size)) = (file.checksum, size) {
        drop(reader);
        let blob = Descriptor::new("application/octet-stream", digest, size);
        let fetched = store.fetch(&blob, &source, &task);
        fetched.map_err(|error| explain(file, error)).context(place)?;
        return Ok((digest, size));
    }
    let mut blob = store.create()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        let read = reader.read(&mut buffer).or_io(place)?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        hasher.update(bytes);
        io::Write::write_all(&mut blob, bytes).or_io(place)?;
        task.advance(read as u64);
    }
    check(file.checksum, hasher.finish()).context(place)?;
    let (digest, size) = blob.finish()?;
    packing.seen.remember_fetched(&file.url, digest);
    Ok((digest, size))
}

/// Says that a file has no checksum.
pub(crate) fn warn(progress: &dyn Progress, file: &RemoteFile) {
    progress.event(Event::Warning(&format!(
        "{} has no checksum: the build is only as reproducible as that server; add `--checksum=sha256:…`",
        shown(&file.url)
    )));
}

/// Refuses a file that is not what its checksum says.
pub(crate) fn check(checksum: Option<Checksum>, found: Digest) -> Result<()> {
    match checksum {
        Some(expected) if expected.digest != found => Err(mismatch(expected, found)),
        _ => Ok(()),
    }
}

/// A failure to fetch a file, as it is to be told. If the bytes have another digest, that is no damage, for only the
/// checksum says what they should have.
pub(crate) fn explain(file: &RemoteFile, error: Error) -> Error {
    if let (Some(checksum), Some(wrong)) = (file.checksum, error.cause::<WrongDigest>()) {
        return mismatch(checksum, wrong.found);
    }
    match error.kind() {
        _ if error.remedy().is_some() => error,
        ErrorKind::NotFound => error.hint("check the URL"),
        ErrorKind::Auth => error.hint("URLs are fetched without credentials: fetch the file yourself, and `COPY` it"),
        _ => error,
    }
}

fn mismatch(checksum: Checksum, found: Digest) -> Error {
    let Checksum { digest, line } = checksum;
    let what = format!("the checksum given in line {line} is {digest}, what was read has {found}");
    Error::new(ErrorKind::Integrity, what).hint(
        "either the file changed at its source, or the checksum is wrong: ask its publisher for the checksum; write \
         that one, or the URL of the file that it belongs to",
    )
}
