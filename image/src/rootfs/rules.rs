//! What an entry of a layer may be called and may lead to: for unpacking, and for whoever writes a layer.

/// Linux takes no longer path.
const MAX_PATH: usize = 4096;
/// Nor a longer name.
const MAX_NAME: usize = 255;

/// A path below the rootfs, without a leading `./`, never absolute, never upwards.
///
/// # Errors
/// Why it can't be unpacked: the end of a sentence that begins with it.
pub fn clean(path: &str) -> Result<String, &'static str> {
    if path.len() >= MAX_PATH {
        return Err("a path longer than Linux takes");
    }
    if path.starts_with('/') {
        return Err("an absolute path");
    }
    if path.contains('\0') {
        return Err("a path with a zero byte");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("a path that leads upwards"),
            part if part.len() > MAX_NAME => return Err("a name longer than Linux takes"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Whether a symbolic link can have this target. It may lead anywhere: nothing follows it out of the rootfs.
#[must_use]
pub fn can_be_target(target: &str) -> bool {
    !target.is_empty() && target.len() < MAX_PATH && !target.contains('\0')
}

/// Why a hard link at `path` can't lead to `target`, which is clean.
#[must_use]
pub fn misleads(path: &str, target: &str) -> Option<&'static str> {
    (target == path || target.is_empty()).then_some("the hard link points to itself or to nothing")
}
