//! Rules of single values, wherever they are in a Clusterfile.

use std::net::IpAddr;

use serde_saphyr::{Location, Spanned};

use super::hidden::is_secret;
use super::mistakes::{Mistakes, suggestion};
use super::secret::Secret;
use crate::options::is_variable_name;

/// A secret has one source, and better not this file.
pub(super) fn one_source(
    name: &str,
    clear: Option<&Spanned<Secret>>,
    others: [&Option<Spanned<String>>; 2],
    mistakes: &mut Mistakes<'_>,
) {
    if let Some(secret) = clear {
        let message = format!("`{name}` stands here in clear, for everybody who reads the file");
        mistakes.warn(secret.referenced, message, format!("write `{name}Env` or `{name}File`"));
    }
    for source in others.iter().copied().flatten() {
        filled(source, &format!("the place of `{name}`"), mistakes);
    }
    let clear = clear.map(|secret| secret.referenced);
    let rest = others.map(|source| source.as_ref().map(|source| source.referenced));
    if let Some(place) = std::iter::once(clear).chain(rest).flatten().nth(1) {
        let message = format!("`{name}` is given twice");
        let hint = format!("keep one of `{name}`, `{name}File` and `{name}Env`");
        mistakes.at(place, message, hint);
    }
}

pub(super) fn variables(env: &[Spanned<String>], mistakes: &mut Mistakes<'_>) {
    for variable in env {
        let name = variable.value.split_once('=').map_or("", |(name, _)| name);
        if name.is_empty() {
            mistakes.at(variable.referenced, "this is no variable", "write `NAME=VALUE`");
        } else if !is_variable_name(name) {
            let message = format!("`{}` is not a variable's name", name.escape_debug());
            let hint = "a name has letters, digits and `_` and does not start with a digit";
            mistakes.at(variable.referenced, message, hint);
        } else if is_secret(name) && !variable.value.ends_with('=') {
            let message = format!("`{name}` stands here in clear, for everybody who reads the file");
            let hint = format!("leave it out, and give `-e {name}` with the value in the environment");
            mistakes.warn(variable.referenced, message, hint);
        }
    }
}

/// The data of clusters have a folder of their own.
pub(super) fn is_root(text: &str) -> bool {
    let mut parts = text.split('/').filter(|part| !part.is_empty()).peekable();
    text.starts_with('/') && parts.peek().is_some() && parts.all(|part| part != "." && part != "..")
}

pub(super) fn host_name(name: &str, place: Location, mistakes: &mut Mistakes<'_>) {
    let message = format!("`{}` is no host name", name.escape_debug());
    mistakes.at(place, message, "write a DNS name, for instance `sea.hub`");
}

/// The name of an app, which is that of a folder.
pub(super) fn app(name: &str, place: Location, mistakes: &mut Mistakes<'_>) {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        let message = format!("`{}` is no name of an app", name.escape_debug());
        mistakes.at(place, message, "write the name that the image has for it");
    }
}

/// A path that stays below its root.
pub(super) fn path(path: &Spanned<String>, mistakes: &mut Mistakes<'_>) {
    let text = path.value.as_str();
    if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        mistakes.at(
            path.referenced,
            format!("`{text}` is no path below the rootfs"),
            "write for instance `etc/app.yaml`",
        );
    }
}

pub(super) fn words(text: &Spanned<String>, known: &[&str], what: &str, mistakes: &mut Mistakes<'_>) {
    for word in text.value.split('|').map(str::trim) {
        if !known.contains(&word) {
            let message = format!("there is no {what} `{word}`");
            mistakes.at(text.referenced, message, suggestion(word, known));
        }
    }
}

pub(super) fn filled(text: &Spanned<String>, what: &str, mistakes: &mut Mistakes<'_>) {
    if text.value.is_empty() {
        mistakes.at(text.referenced, format!("{what} is empty"), "write it");
    }
}

pub(super) fn address(text: &Spanned<String>, mistakes: &mut Mistakes<'_>) {
    if text.value.parse::<IpAddr>().is_err() {
        mistakes.at(
            text.referenced,
            format!("`{}` is no IP address", text.value),
            "write an address",
        );
    }
}

pub(super) fn port(port: Option<&Spanned<String>>, mistakes: &mut Mistakes<'_>) {
    if let Some(port) = port
        && !port.value.parse::<u16>().is_ok_and(|number| number > 0)
    {
        mistakes.at(
            port.referenced,
            format!("`{}` is no port", port.value),
            "write a number from 1 to 65535",
        );
    }
}

pub(super) fn report(place: &Spanned<String>, told: Result<(), String>, hint: &str, mistakes: &mut Mistakes<'_>) {
    if let Err(message) = told {
        mistakes.at(place.referenced, message, hint);
    }
}
