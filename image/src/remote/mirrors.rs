//! Other registries that have the images of one: asked before it, in their order.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::remote::registry_name::RegistryName;

/// A registry, or a path of one, that has the images of another registry below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    place: RegistryName,
}

impl Mirror {
    /// Where it has an image.
    fn at(&self, image: &Reference) -> Result<Reference> {
        let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = image.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}/{}{tag}{digest}", self.place, image.path()).parse()
    }
}

impl FromStr for Mirror {
    type Err = Error;

    /// Reads `HOST=REGISTRY[/PATH]`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::Input, format!("`{}` is not a mirror", text.escape_debug())).hint(
                "write HOST=REGISTRY, for instance `docker.io=registry.local:5000`; a path may follow: \
                 `docker.io=registry.local:5000/dockerhub`",
            )
        };
        let (host, place) = text.split_once('=').ok_or_else(bad)?;
        let host: RegistryName = host.parse().map_err(|error: Error| bad().because(error))?;
        let place: RegistryName = place.parse().map_err(|error: Error| bad().because(error))?;
        match host.has_path() {
            true => Err(bad()),
            false => Ok(Self {
                host: host.host().to_owned(),
                place,
            }),
        }
    }
}

/// The mirrors of a client, and how each failed that is not asked any more.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    all: Vec<(Mirror, Mutex<Option<String>>)>,
    /// Which repository answered for one that has mirrors.
    homes: Mutex<BTreeMap<String, Reference>>,
}

impl Mirrors {
    pub(super) fn new(mirrors: Vec<Mirror>) -> Self {
        Self {
            all: mirrors.into_iter().map(|mirror| (mirror, Mutex::default())).collect(),
            homes: Mutex::default(),
        }
    }

    /// Whether a registry has some.
    pub(super) fn has(&self, host: &str) -> bool {
        self.all.iter().any(|(mirror, _)| mirror.host == host)
    }

    /// Asks the mirrors of an image's registry, and last the registry itself. A mirror that lacks something is passed by,
    /// one that fails is not asked again.
    pub(super) fn first<T>(&self, image: &Reference, ask: impl Fn(&Reference) -> Result<T>) -> Result<T> {
        for (mirror, failure) in self.all.iter().filter(|(mirror, _)| mirror.host == image.host()) {
            let failure = || failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure().is_some() {
                continue;
            }
            // A name that gets too long there can't be there.
            let Ok(place) = mirror.at(image) else { continue };
            match ask(&place) {
                Ok(answer) => {
                    self.homes().insert(image.repository(), place);
                    return Ok(answer);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let mut words = vec![error.to_string()];
                    words.extend(error.causes());
                    failure().get_or_insert(words.join(": "));
                }
            }
        }
        let answer = ask(image)?;
        self.homes().remove(&image.repository());
        Ok(answer)
    }

    /// Where what was asked of a repository last came from.
    pub(super) fn home(&self, image: &Reference) -> Reference {
        self.homes().get(&image.repository()).unwrap_or(image).clone()
    }

    fn homes(&self) -> MutexGuard<'_, BTreeMap<String, Reference>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong with those that are not asked any more.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = |(mirror, failure): &(Mirror, Mutex<Option<String>>)| {
            let failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            let words = failure.as_deref()?;
            Some(format!(
                "the mirror {} of {} was given up: {words}",
                mirror.place, mirror.host
            ))
        };
        self.all.iter().filter_map(failed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn mirror(text: &str) -> Mirror {
        text.parse().unwrap()
    }

    #[test]
    fn a_mirror_has_images_below_its_path() {
        let digest = crate::digest::Digest::of(b"x");
        for (text, image, place) in [
            (
                "docker.io=r.local:5000",
                "nginx:1",
                "r.local:5000/library/nginx:1".to_owned(),
            ),
            (
                "docker.io=r.local:5000/hub",
                "a/b",
                "r.local:5000/hub/a/b:latest".to_owned(),
            ),
            (
                "quay.io=r.local/q/",
                &format!("quay.io/a/b:1@{digest}"),
                format!("r.local/q/a/b:1@{digest}"),
            ),
        ] {
            assert_eq!(mirror(text).at(&image.parse().unwrap()).unwrap().to_string(), place);
        }
        for bad in [
            "docker.io",
            "docker.io=",
            "=r.local",
            "docker.io/library=r.local",
            "a=r.local",
            "docker.io=UPPER/",
        ] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }

    #[test]
    fn they_are_asked_in_order_and_those_that_fail_once() {
        let mirrors = Mirrors::new(
            ["docker.io=a.local", "docker.io=b.local/x", "quay.io=c.local"]
                .map(mirror)
                .to_vec(),
        );
        let asked = RefCell::new(Vec::new());
        let ask = |answers: &str| {
            let found = mirrors.first(&"nginx:1".parse().unwrap(), |place| {
                asked.borrow_mut().push(place.host().to_owned());
                match place.host() {
                    "a.local" => Err(Error::new(ErrorKind::Network, "it is down")),
                    host if host == answers => Ok(place.to_string()),
                    _ => Err(Error::new(ErrorKind::NotFound, "nothing")),
                }
            });
            (found.map_err(|error| error.to_string()), asked.take().join(" "))
        };
        assert_eq!(
            ask("b.local"),
            (Ok("b.local/x/library/nginx:1".to_owned()), "a.local b.local".to_owned())
        );
        assert_eq!(
            ask("docker.io"),
            (
                Ok("docker.io/library/nginx:1".to_owned()),
                "b.local docker.io".to_owned()
            )
        );
        assert_eq!(ask("none"), (Err("nothing".to_owned()), "b.local docker.io".to_owned()));
        assert_eq!(
            mirrors.failures(),
            ["the mirror a.local of docker.io was given up: it is down"]
        );
    }
}
