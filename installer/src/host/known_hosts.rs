//! Keys of hosts that are known, in OpenSSH's format.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use russh::keys::{HashAlg, PublicKey, parse_public_key_base64};
use sealrs_image::error::{Error, ErrorKind, Result};

use super::options::HostKeyPolicy;

/// Two hosts may be added at the same time.
static WRITING: Mutex<()> = Mutex::new(());
const LARGEST: u64 = 16 << 20;

/// A line that is about the host.
struct Entry {
    line: usize,
    revoked: bool,
    key: PublicKey,
}

/// The keys that are known of a host.
pub(super) fn keys(file: &Path, address: &str, port: u16) -> Result<Vec<PublicKey>> {
    let entries = entries(&read(file)?, &name(address, port));
    let valid = entries.into_iter().filter(|entry| !entry.revoked);
    Ok(valid.map(|entry| entry.key).collect())
}

/// Accepts or refuses the key that a host shows.
pub(super) fn check(policy: HostKeyPolicy, file: &Path, address: &str, port: u16, key: &PublicKey) -> Result<()> {
    if policy == HostKeyPolicy::Off {
        return Ok(());
    }
    let name = name(address, port);
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = read(file)?;
    let mut entries = entries(&text, &name);
    if port != 22 && !entries.iter().any(|entry| !entry.revoked) {
        // As OpenSSH does: a key that is known without a port is the host's too, but none that differs counts.
        let plain = self::entries(&text, &self::name(address, 22));
        entries.extend(
            plain
                .into_iter()
                .filter(|entry| entry.revoked || entry.key.key_data() == key.key_data()),
        );
    }
    let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
    let shown = key.fingerprint(HashAlg::Sha256);
    if let Some(entry) = entries.iter().filter(same).find(|entry| entry.revoked) {
        let place = format!("{}:{}", file.display(), entry.line);
        return Err(Error::new(
            ErrorKind::Auth,
            format!("the key of {name} ({shown}) is revoked by {place}"),
        )
        .hint("do not use this host before its key was replaced"));
    }
    if entries.iter().any(|entry| same(&entry)) {
        return Ok(());
    }
    if let Some(entry) = entries.iter().find(|entry| !entry.revoked) {
        let place = format!("{}:{}", file.display(), entry.line);
        let known = entry.key.fingerprint(HashAlg::Sha256);
        return Err(Error::new(
            ErrorKind::Auth,
            format!("the key of {name} has changed: it shows {shown}, {place} has {known}"),
        )
        .hint(format!(
            "somebody may be listening in; if the host was installed anew, ask for its fingerprint and run \
             `ssh-keygen -R '{name}' -f '{}'`",
            file.display()
        )));
    }
    if policy == HostKeyPolicy::Strict {
        return Err(Error::new(
            ErrorKind::Auth,
            format!("{name} is not in {}; it shows {shown}", file.display()),
        )
        .hint("add its key to that file, or use --host-key-policy accept-new"));
    }
    add(file, &text, &name, key)
        .map_err(|error| Error::new(ErrorKind::Disk, format!("cannot add to {}", file.display())).because(error))
}

fn name(address: &str, port: u16) -> String {
    let address = address.to_ascii_lowercase();
    match port {
        22 => address,
        _ => format!("[{address}]:{port}"),
    }
}

fn read(file: &Path) -> Result<String> {
    let failed = |error| Error::new(ErrorKind::Disk, format!("cannot read {}", file.display())).because(error);
    let mut bytes = Vec::new();
    match File::open(file) {
        Ok(open) => open.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == IoKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > LARGEST {
        return Err(Error::new(ErrorKind::Input, format!("{} is too large", file.display())));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines that cannot be read are left out, as OpenSSH does. Certificates are not asked for, so their authorities are
/// left out as well.
fn entries(text: &str, name: &str) -> Vec<Entry> {
    let parse = |(index, line): (usize, &str)| {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let names = words.next().filter(|names| !names.starts_with('#'))?;
        if marker.is_some_and(|marker| marker != "@revoked") || !matches(names, name) {
            return None;
        }
        let key = parse_public_key_base64(words.nth(1)?).ok()?;
        Some(Entry {
            line: index + 1,
            revoked: marker.is_some(),
            key,
        })
    };
    text.lines().enumerate().filter_map(parse).collect()
}

fn matches(names: &str, name: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        let decode = |text| STANDARD.decode(text).ok();
        let parts = hashed.split_once('|');
        let Some((salt, hash)) = parts.and_then(|(salt, hash)| decode(salt).zip(decode(hash))) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    let mut found = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(pattern, name) => return false,
            Some(_) => {}
            None => found |= fits(pattern, name),
        }
    }
    found
}

/// `*` and `?`. What a star swallowed is given back one byte at a time, so that no pattern takes for ever.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase().into_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(&byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|&rest| rest == b'*')
}

fn add(file: &Path, text: &str, name: &str, key: &PublicKey) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let key = key.to_openssh().map_err(std::io::Error::other)?;
    let key: Vec<&str> = key.split(' ').take(2).collect();
    let newline = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let line = format!("{newline}{name} {}\n", key.join(" "));
    let mut open = OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
    open.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests;
