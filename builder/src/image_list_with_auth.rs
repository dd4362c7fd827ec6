//! Image lists that say who one is to each registry: sealer's `--image-list-with-auth`.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Login, RegistryName};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::image_list::Wanted;

const FORM: &str = "write a list of entries with `registry`, `username`, `password` and `images`, and nothing else";

/// Container images, with the logins to pull them. The file holds passwords, so no build packs it.
#[derive(Debug, Clone)]
pub struct ImageListWithAuth {
    /// The file itself, links resolved.
    pub(crate) path: PathBuf,
    pub(crate) wanted: Vec<Wanted>,
    logins: Vec<(Reference, Login)>,
}

/// As sealer's files have it. Not `Debug`: it holds a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    registry: Option<Spanned<String>>,
    username: Option<Spanned<String>>,
    password: Option<Spanned<String>>,
    #[serde(default)]
    images: Vec<Spanned<String>>,
}

impl ImageListWithAuth {
    /// Reads a list.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not there, [`ErrorKind::Input`] with everything that is wrong in it. No error
    /// quotes the file, for a line of it may be a password.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read the image list {}", path.display());
        let text = fs::read_to_string(path).or_read(what)?;
        let real = path.canonicalize().or_read(what)?;
        let origin = path.display().to_string();
        let mut wrong = Vec::new();
        let mut list = Self {
            path: real,
            wanted: Vec::new(),
            logins: Vec::new(),
        };
        match sections(&text) {
            Ok(sections) => {
                for section in sections {
                    list.add(section, &origin, &mut wrong);
                }
            }
            Err(line) => {
                let finding = Finding::new(ErrorKind::Input, &origin, "that is not how such a list is written");
                wrong.push(line.map_or(finding.clone(), |line| finding.at(line)));
            }
        }
        if !wrong.is_empty() {
            for finding in &mut wrong {
                finding.hint.get_or_insert_with(|| FORM.to_owned());
            }
            return Err(Error::together(
                format!("the image list with logins {origin} can't be understood"),
                wrong,
            ));
        }
        Ok(list)
    }

    /// Who one is to the repository of each image.
    #[must_use]
    pub fn logins(&self) -> &[(Reference, Login)] {
        &self.logins
    }

    fn add(&mut self, section: Spanned<Section>, origin: &str, wrong: &mut Vec<Finding>) {
        let line = number(&section);
        let Section {
            registry,
            username,
            password,
            images,
        } = section.value;
        let mut fault = |line: usize, message: String| {
            wrong.push(Finding::new(ErrorKind::Input, origin, message).at(line));
        };
        let registry = match registry.as_ref().map(|name| name.value.parse::<RegistryName>()) {
            Some(Ok(registry)) => Some(registry),
            None => None,
            Some(Err(_)) => {
                let line = registry.as_ref().map_or(line, number);
                return fault(
                    line,
                    "`registry` is not the name of a registry: write HOST[:PORT][/PATH]".to_owned(),
                );
            }
        };
        let (Some(username), Some(password)) = (username, password) else {
            return fault(line, "an entry needs both `username` and `password`".to_owned());
        };
        let mut login = match Login::new(&username.value, password.value.clone()) {
            Ok(login) => login,
            Err(error) => return fault(number(&username), error.to_string()),
        };
        login.origin = format!("{origin}:{}", number(&username));
        if images.is_empty() {
            return fault(line, "an entry needs `images`: its login is for them alone".to_owned());
        }
        for image in images {
            let line = number(&image);
            let reference = match in_registry(&image.value, registry.as_ref()) {
                Ok(reference) => reference,
                Err(message) => {
                    fault(line, message);
                    continue;
                }
            };
            let repository = reference.repository();
            let other = self
                .logins
                .iter()
                .find(|(known, other)| known.repository() == repository && !is_same(other, &login));
            if let Some((_, other)) = other {
                let message = format!("{repository} has another login already, at {}", other.origin);
                fault(line, message);
                continue;
            }
            self.logins.push((reference.clone(), login.clone()));
            self.wanted.push(Wanted {
                reference,
                asked_by: vec![format!("{origin}:{line}")],
            });
        }
    }
}

/// The entries, or the line where they are something else.
fn sections(text: &str) -> Result<Vec<Spanned<Section>>, Option<usize>> {
    let line = |error: serde_saphyr::Error| {
        let place = error.location().map(|place| place.line());
        place.and_then(|line| usize::try_from(line).ok())
    };
    let sections: Option<Vec<Spanned<Section>>> = serde_saphyr::from_str(text).map_err(line)?;
    Ok(sections.unwrap_or_default())
}

fn number<T>(of: &Spanned<T>) -> usize {
    usize::try_from(of.referenced.line()).unwrap_or(usize::MAX)
}

/// An image of an entry: with its whole name, or with what follows after the entry's registry.
fn in_registry(image: &str, registry: Option<&RegistryName>) -> Result<Reference, String> {
    // What it is may have a password in it.
    let told = |_: Error| "this is not the name of an image".to_owned();
    let alone: Reference = image.parse().map_err(told)?;
    let Some(registry) = registry else { return Ok(alone) };
    let below = format!("{registry}/");
    let is_below = |name: &Reference| format!("{}/", name.repository()).starts_with(&below);
    if has_host(image) {
        return match is_below(&alone) {
            true => Ok(alone),
            false => Err(format!(
                "{} is not in {registry}, the entry's registry",
                alone.familiar()
            )),
        };
    }
    format!("{below}{image}").parse().map_err(told)
}

/// Whether an image's name begins with a registry, by the rule that Docker has for it.
fn has_host(image: &str) -> bool {
    let first = image.split_once('/').map(|(first, _)| first);
    first.is_some_and(|first| first.contains(['.', ':']) || first == "localhost")
}

/// Whether two logins are one, wherever they are written.
fn is_same(one: &Login, other: &Login) -> bool {
    let mut moved = one.clone();
    moved.origin.clone_from(&other.origin);
    moved == *other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ImageListWithAuth> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.yaml");
        fs::write(&path, text).unwrap();
        ImageListWithAuth::read(&path)
    }

    #[test]
    fn reads_sealers_form_with_comments() {
        let list = read(
            "# two registries\n- registry: hub.example.com/team\n  username: one # the reader\n  password: 012345\n  images:\n  \
             - app:v1\n  - hub.example.com/team/web\n- username: two\n  password: 'p#q'\n  images: [nginx, quay.io/a/b:1]\n",
        )
        .unwrap();
        let names: Vec<String> = list.wanted.iter().map(|wanted| wanted.reference.to_string()).collect();
        assert_eq!(
            names,
            [
                "hub.example.com/team/app:v1",
                "hub.example.com/team/web:latest",
                "docker.io/library/nginx:latest",
                "quay.io/a/b:1"
            ]
        );
        assert!(list.wanted[1].asked_by[0].ends_with("auth.yaml:7"));
        let (_, login) = &list.logins()[0];
        assert_eq!(*login, {
            let mut wanted = Login::new("one", "012345".to_owned()).unwrap();
            wanted.origin.clone_from(&login.origin);
            wanted
        });
        assert!(login.origin.ends_with("auth.yaml:3"));
        assert!(!format!("{list:?}").contains("012345"));
        assert!(read("# nothing yet\n").unwrap().wanted.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_without_a_password() {
        for (text, line, word) in [
            (
                "- username: u\n  password: p\n  images: [\"u:s3cret@a.com/b c\"]\n",
                3,
                "not the name of an image",
            ),
            ("- username: u\n  images: [a]\n", 1, "both"),
            (
                "- registry: https://u:s3cret@a.com\n  username: u\n  password: s3cret\n  images: [a]\n",
                1,
                "registry",
            ),
            ("- username: u\n  password: s3cret\n", 1, "images"),
            ("- username: u\n  password: s3cret\n  image: [a]\n", 3, "not how"),
            ("- username: u\n  password: [s3cret]\n  images: [a]\n", 2, "not how"),
            ("- username: u\n  password: \"s3cret\n  images: [a]\n", 2, "not how"),
            ("username: u\npassword: s3cret\n", 1, "not how"),
            ("s3cret", 1, "not how"),
            ("- username: u:v\n  password: s3cret\n  images: [a]\n", 1, "user"),
            (
                "- registry: a.com\n  username: u\n  password: s3cret\n  images: [b.com/a]\n",
                4,
                "not in a.com",
            ),
            (
                "- username: u\n  password: s3cret\n  images:\n  - ok\n  - UPPER/x\n",
                5,
                "not the name of an image",
            ),
            (
                "- username: u\n  password: s3cret\n  images: [a:1]\n- username: u\n  password: other\n  images: [a:2]\n",
                6,
                "another login",
            ),
        ] {
            let error = read(text).unwrap_err();
            let told = format!("{error:?} {:?}", error.findings());
            let [finding] = error.findings() else { panic!("{told}") };
            assert!(finding.message.contains(word), "{text}: {told}");
            assert!(
                finding.line.is_none_or(|found| found.abs_diff(line) <= 1),
                "{text}: {told}"
            );
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}
