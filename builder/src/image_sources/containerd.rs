//! Containerd: its images and their blobs as they came from the registry, by `ctr`, which finds its socket as usual
//! (`CONTAINERD_ADDRESS`).

use std::io::{self, Cursor, Read};
use std::process::{Child, Command, Stdio};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::reference::Reference;
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;

use super::{Local, cannot_run, failed, output};

const CTR: &str = "ctr";

/// The namespace of Kubernetes is looked at first.
const KUBERNETES: &str = "k8s.io";

/// What a namespace has.
struct Namespace(String);

/// Each namespace.
pub(super) fn open() -> Result<Vec<Local>> {
    let namespaces = output(Command::new(CTR).args(["namespaces", "ls", "--quiet"]))?;
    let mut namespaces: Vec<&str> = namespaces
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    namespaces.sort_by_key(|name| *name != KUBERNETES);
    namespaces
        .into_iter()
        .map(|namespace| {
            let listed = output(Command::new(CTR).args(["--namespace", namespace, "images", "ls"]))?;
            Ok(Local {
                names: listed.lines().filter_map(image).collect(),
                source: Box::new(Namespace(namespace.to_owned())),
            })
        })
        .collect()
}

/// A line `REF TYPE DIGEST SIZE…`. The head has no digest.
fn image(line: &str) -> Option<(Reference, Descriptor)> {
    let mut words = line.split_whitespace();
    let (name, kind, digest) = (words.next()?, words.next()?, words.next()?);
    Some((name.parse().ok()?, Descriptor::new(kind, digest.parse().ok()?, 0)))
}

impl Source for Namespace {
    fn origin(&self) -> String {
        format!("containerd's namespace {}", self.0)
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let digest = blob.digest.to_string();
        let mut child = Command::new(CTR)
            .args(["--namespace", &self.0, "content", "get", &digest])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| cannot_run(CTR, error))?;
        let place = || format!("cannot read {digest} of {}", self.origin());
        let Some(mut output) = child.stdout.take() else {
            return Err(Error::new(ErrorKind::Internal, place()));
        };
        // What is not there shows by the first byte that does not come.
        let mut first = [0];
        let mut ending = Ending(child);
        if output.read(&mut first).or_io(place)? == 0 {
            let mut said = String::new();
            if let Some(errors) = ending.0.stderr.take() {
                errors.take(4096).read_to_string(&mut said).or_io(place)?;
            }
            return Err(match said.contains("not found") {
                true => Error::new(ErrorKind::NotFound, format!("{} lacks {digest}", self.origin())),
                false => failed(CTR, said.trim()),
            });
        }
        let mut bytes = Cursor::new(first).chain(Piped { output, _child: ending });
        io::copy(&mut (&mut bytes).take(offset), &mut io::sink()).or_io(place)?;
        Ok(Box::new(bytes))
    }
}

struct Piped {
    output: std::process::ChildStdout,
    _child: Ending,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

/// A program that ends with its reader.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealrs_image::digest::Digest;

    #[test]
    fn lines_of_images_are_read() {
        let digest = Digest::of(b"x");
        let line =
            format!("docker.io/library/a:1 application/vnd.oci.image.index.v1+json {digest} 2.1 MiB linux/amd64 -");
        let (name, descriptor) = image(&line).unwrap();
        assert_eq!((name.familiar(), descriptor.digest), ("a:1".to_owned(), digest));
        for other in ["REF TYPE DIGEST SIZE PLATFORMS LABELS", "", "a b", "sha256:1 x y"] {
            assert_eq!(image(other), None, "{other}");
        }
    }
}
