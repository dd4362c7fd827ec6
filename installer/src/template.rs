//! Templates of a rootfs: files named `X.tmpl` below `etc/`, `charts/`, `manifests/` and the folders of apps, from which `X`
//! is made when the image is installed. They are written in the language of Go's `text/template`, as sealer's images have them, with the
//! cluster's environment as their data: `{{ .RegistryURL }}`.
//!
//! One thing differs: printing a variable that is not set is an error, where Go prints `<no value>` into the file.

mod evaluate;
mod functions;
mod lexer;
mod parser;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};

use crate::environment::Environment;
use crate::files;

/// Folders of the rootfs in which templates are looked for.
const FOLDERS: [&str; 3] = ["etc", "charts", "manifests"];
const SUFFIX: &str = ".tmpl";
/// The largest template, and the largest file that one makes, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// What is wrong in a template, and where: a line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    line: usize,
    what: String,
    hint: Option<String>,
}

impl Problem {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What templates can print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'e> {
    /// The cluster's environment.
    pub(crate) environment: &'e Environment,
    /// What of it the user gave: it may be secret.
    pub(crate) given: &'e Environment,
    /// Files that become a part of the plan, which people see: what the user gave has no place in them.
    pub(crate) planned: &'e [&'e str],
}

/// Makes the text of the template of this name.
///
/// # Errors
/// [`ErrorKind::Input`] when it is not well-formed or uses what is not set.
pub(crate) fn render(text: &str, name: &str, values: &Values<'_>) -> Result<String> {
    let is_planned = target(name).is_some_and(|target| values.planned.contains(&target));
    let withheld = is_planned.then_some(values.given);
    let rendered = parser::parse(text).and_then(|template| evaluate::evaluate(&template, values.environment, withheld));
    rendered.map_err(|problem| {
        let source = text.lines().nth(problem.line.saturating_sub(1)).unwrap_or_default();
        let what = format!("{name}:{}: {}", problem.line, problem.what);
        let error = Error::new(ErrorKind::Input, what);
        error.hint(
            problem
                .hint
                .unwrap_or_else(|| format!("the line is `{}`", source.trim())),
        )
    })
}

/// Makes a file of every template below a rootfs.
///
/// # Errors
/// As [`render`]; disk errors.
pub(crate) fn render_all(rootfs: &Path, values: &Values<'_>) -> Result<()> {
    let mut templates = Vec::new();
    for folder in FOLDERS {
        find(&rootfs.join(folder), &mut templates)?;
    }
    templates.sort();
    for path in templates {
        let name = path.strip_prefix(rootfs).unwrap_or(&path).display().to_string();
        render_file(&path, &name, values).context(|| format!("cannot make a file of the template {name}"))?;
    }
    Ok(())
}

/// Makes a file of every template in the folders of apps, each with its app's variables over the others.
///
/// # Errors
/// As [`render`]; disk errors.
pub(crate) fn render_apps(rootfs: &Path, values: &Values<'_>, apps: &BTreeMap<String, Environment>) -> Result<()> {
    for (app, own) in apps {
        let mut environment = values.environment.clone();
        environment.extend(own.clone());
        let values = Values {
            environment: &environment,
            ..*values
        };
        let mut templates = Vec::new();
        find(&rootfs.join("application/apps").join(app), &mut templates)?;
        templates.sort();
        for path in templates {
            let name = path.strip_prefix(rootfs).unwrap_or(&path).display().to_string();
            render_file(&path, &name, &values).context(|| format!("cannot make a file of the template {name}"))?;
        }
    }
    Ok(())
}

/// The name of the file that the template of this name makes; none when it is no template.
pub(crate) fn target(path: &str) -> Option<&str> {
    let is_inside = FOLDERS
        .iter()
        .any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    let (_, name) = path.rsplit_once('/')?;
    (is_inside && is_template(name.as_bytes()))
        .then(|| path.strip_suffix(SUFFIX))
        .flatten()
}

/// Whether a file of this name is a template: what it makes needs a name, too.
fn is_template(name: &[u8]) -> bool {
    let made = name.strip_suffix(SUFFIX.as_bytes());
    made.is_some_and(|made| !matches!(made, b"" | b"." | b".."))
}

fn render_file(path: &Path, name: &str, values: &Values<'_>) -> Result<()> {
    let place = || format!("cannot read {}", path.display());
    let metadata = fs::metadata(path).or_io(place)?;
    if metadata.len() > MAX_SIZE as u64 {
        let what = format!(
            "it has {} bytes, more than a template may have ({MAX_SIZE})",
            metadata.len()
        );
        return Err(Error::new(ErrorKind::Input, what));
    }
    let text = String::from_utf8(fs::read(path).or_io(place)?)
        .map_err(|error| Error::new(ErrorKind::Input, "it is not a text").because(error))?;
    let rendered = render(&text, name, values)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    files::write(&path.with_extension(""), rendered.as_bytes(), mode)
}

/// Templates are real files: a link may lead out of the rootfs.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let place = || format!("cannot read the folder {}", folder.display());
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Ok(()),
        Err(error) if files::is_absent(&error) => return Ok(()),
        Err(error) => return Err(error).or_io(place),
    }
    for entry in fs::read_dir(folder).or_io(place)? {
        let entry = entry.or_io(place)?;
        let kind = entry.file_type().or_io(place)?;
        if kind.is_dir() {
            find(&entry.path(), found)?;
        } else if kind.is_file() && is_template(entry.file_name().as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
