//! Garbage collection while the registry serves. Who pulls goes on meanwhile; who pushes waits for its end.
//!
//! Who adds holds the directory's lock with others, and who collects holds it alone, in whatever process. A client sends
//! or asks for blobs before the manifest that needs them, so what nothing names goes only when nobody touched it for a
//! while. Links go before the bytes, and what names something before what it names: whenever it is killed, all
//! that the registry still shows is whole.
//!
//! What cannot be understood may need anything, so it stops the collection before anything goes.

mod leftovers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use cap_std::fs::MetadataExt as _;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use serde::Serialize;
use serde_json::Value;

use super::changes::Changes;
use super::{Directory, found};
use crate::digest::BlobDigest;
use crate::layout;
use crate::manifest::Manifest;
use crate::name::{Repository, Tag};

/// What may go.
#[derive(Debug, Clone, Copy)]
pub struct Collect {
    /// Change nothing, and tell what would go.
    pub dry_run: bool,
    /// Also manifests that no tag leads to.
    pub delete_untagged: bool,
    /// What was stored, mounted or asked for within this time stays.
    pub grace: Duration,
    /// Uploads that nobody went on with for so long go.
    pub uploads_expire: Duration,
}

/// What went, or would go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Manifests taken out of their repositories.
    pub manifests: usize,
    /// Configs and layers taken out of their repositories.
    pub layers: usize,
    /// Blobs removed from the disk, manifests included.
    pub blobs: usize,
    /// Uploads given up.
    pub uploads: usize,
    /// Files and folders of nothing, which crashes left.
    pub leftovers: usize,
    /// The bytes on disk that all of it had. Files with other hard links free nothing, and don't count.
    pub bytes: u64,
}

/// A manifest of a repository, and all digests in it.
struct Revision {
    names: BTreeSet<BlobDigest>,
    subject: Option<BlobDigest>,
}

/// What is left of all repositories, and what goes from this one.
#[derive(Default)]
struct Plan {
    live: BTreeSet<BlobDigest>,
    /// In the order in which they may go.
    revisions: Vec<(Repository, BlobDigest, Option<BlobDigest>)>,
    layers: Vec<(Repository, BlobDigest)>,
}

impl Directory {
    /// Removes what nothing needs.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when a manifest or link file is damaged, [`ErrorKind::Input`] when there is a symbolic link
    /// or a name that no repository, tag or digest has, so that nobody can tell what is needed: then nothing was removed.
    /// [`ErrorKind::Disk`] when the directory cannot be read or changed.
    pub fn collect(&self, options: &Collect) -> Result<Collected> {
        let mut collected = Collected::default();
        if !self.is_in_use()? {
            return Ok(collected);
        }
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        let now = SystemTime::now();
        let mut plan = Plan::default();
        let repositories = self.all_repositories()?;
        for repository in &repositories {
            self.plan(repository, options, now, &mut plan)?;
        }
        let blobs = self.all_blobs()?;
        collected.manifests = plan.revisions.len();
        collected.layers = plan.layers.len();
        if !options.dry_run {
            self.unlink(&plan)?;
        }
        self.sweep(&blobs, &plan.live, options, now, &mut collected)?;
        for repository in &repositories {
            collected.leftovers += self.clear_repository(repository, options, now)?;
        }
        collected.leftovers += self.clear_blobs(options, now)?;
        for (repository, id) in self.idle_uploads(options.uploads_expire)? {
            let size = self.upload_size(&repository, &id)?.unwrap_or_default();
            if options.dry_run || self.expire_upload(&repository, &id, options.uploads_expire)? {
                collected.uploads += 1;
                collected.bytes += size;
            }
        }
        Ok(collected)
    }

    fn plan(&self, repository: &Repository, options: &Collect, now: SystemTime, plan: &mut Plan) -> Result<()> {
        let is_young = |path: &str| self.is_young(path, options.grace, now);
        let mut revisions = BTreeMap::new();
        for digest in self.digests(&format!("{}/revisions", layout::manifests(repository)))? {
            revisions.insert(digest, self.revision(repository, &digest)?);
        }
        let mut kept = BTreeSet::new();
        for digest in revisions.keys() {
            if !options.delete_untagged || is_young(&layout::revision_link(repository, digest))? {
                kept.insert(*digest);
            }
        }
        let tags = layout::tags(repository);
        for name in self.own_folders(&tags)? {
            let tag: Tag = name
                .parse()
                .map_err(|_| unclear(&format!("{tags}/{name}"), "is no tag"))?;
            if let Some(digest) = self.tag(repository, &tag)? {
                kept.insert(digest);
                kept.extend(signed_by(&tag));
            }
        }
        spread(&revisions, &mut kept);

        let mut needed = kept.clone();
        let (mut going, mut gone) = (BTreeMap::new(), Vec::new());
        for (digest, revision) in revisions {
            match kept.contains(&digest) {
                true => needed.extend(revision.names),
                false => _ = going.insert(digest, revision),
            }
        }
        while !going.is_empty() {
            let named: BTreeSet<BlobDigest> = going.values().flat_map(|revision| revision.names.clone()).collect();
            let (later, first): (BTreeMap<_, _>, BTreeMap<_, _>) =
                going.into_iter().partition(|(digest, _)| named.contains(digest));
            // No document can hold its own digest, so there is always one that no other names.
            if first.is_empty() {
                break;
            }
            gone.extend(
                first
                    .into_iter()
                    .map(|(digest, revision)| (repository.clone(), digest, revision.subject)),
            );
            going = later;
        }
        plan.revisions.extend(gone);
        // A link may lead to other bytes than it is named after: docker-distribution keeps what was pushed by
        // another algorithm under its sha256.
        let mut layers = BTreeMap::new();
        for digest in self.digests(&layout::layers(repository))? {
            if let Some(target) = self.link(&layout::layer_link(repository, digest))? {
                layers.insert(digest, target);
            }
        }
        for digest in &kept {
            needed.extend(self.link(&layout::revision_link(repository, digest))?);
        }
        for (digest, target) in &layers {
            if needed.contains(digest) || is_young(&layout::layer_link(repository, digest))? {
                needed.extend([*digest, *target]);
            }
        }
        let going = layers.into_keys().filter(|digest| !needed.contains(digest));
        plan.layers.extend(going.map(|digest| (repository.clone(), digest)));
        plan.live.extend(needed);
        Ok(())
    }

    /// What a manifest names: every digest in it, wherever it stands. So nothing that a client may read out of it goes.
    fn revision(&self, repository: &Repository, digest: &BlobDigest) -> Result<Revision> {
        let mut names = BTreeSet::new();
        let Some(stored) = self.manifest(repository, digest)? else {
            return Ok(Revision { names, subject: None });
        };
        let document: Value = serde_json::from_slice(&stored.bytes).or_fail(ErrorKind::Integrity, || {
            format!("manifest {digest} of `{repository}` cannot be read")
        })?;
        let mut values = vec![&document];
        while let Some(value) = values.pop() {
            match value {
                Value::String(text) => names.extend(text.parse::<BlobDigest>().ok()),
                Value::Array(items) => values.extend(items),
                Value::Object(fields) => values.extend(fields.values()),
                _ => {}
            }
        }
        names.remove(digest);
        let subject = Manifest::parse(&stored.bytes, None)
            .ok()
            .and_then(|manifest| manifest.subject);
        Ok(Revision { names, subject })
    }

    fn unlink(&self, plan: &Plan) -> Result<()> {
        for (repository, digest, subject) in &plan.revisions {
            // One after the other, and each on disk before what it named goes.
            let mut changes = Changes::of(self);
            for name in self.folders(&layout::tags(repository))? {
                if let Ok(tag) = name.parse::<Tag>() {
                    let link = layout::tag_index_link(repository, &tag, digest);
                    if self.exists(&link)? {
                        changes.remove_link(&link)?;
                    }
                }
            }
            changes.remove_link(&layout::revision_link(repository, digest))?;
            if let Some(subject) = subject {
                changes.remove_link(&layout::referrer_link(repository, subject, digest))?;
            }
            changes.sync()?;
        }
        let mut changes = Changes::of(self);
        for (repository, digest) in &plan.layers {
            changes.remove_link(&layout::layer_link(repository, digest))?;
        }
        changes.sync()
    }

    /// Removes the blobs that no repository has.
    fn sweep(
        &self,
        blobs: &[BlobDigest],
        live: &BTreeSet<BlobDigest>,
        options: &Collect,
        now: SystemTime,
        collected: &mut Collected,
    ) -> Result<()> {
        let mut changes = Changes::of(self);
        for digest in blobs.iter().filter(|digest| !live.contains(digest)) {
            let path = layout::blob_data(digest);
            if self.is_young(&path, options.grace, now)? {
                continue;
            }
            let metadata = found(self.dir.symlink_metadata(&path)).or_io(|| self.cannot("look up", &path))?;
            // A folder without bytes is what a crash left, or what somebody is about to fill.
            let Some(metadata) = metadata else { continue };
            collected.blobs += 1;
            if metadata.nlink() == 1 {
                collected.bytes += metadata.len();
            }
            if !options.dry_run {
                changes.remove_file(&path)?;
                changes.remove_folder(path.trim_end_matches("/data"))?;
            }
        }
        changes.sync()
    }

    /// Tells that somebody is about to need what a link makes part of a repository. Says whether it is there.
    pub(super) fn renew(&self, path: &str) -> Result<bool> {
        let Some(link) = self.file(path)? else {
            return Ok(false);
        };
        // Who may write a file may do this, and needs not own it.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::futimens(&link.file, &times)
            .map_err(std::io::Error::from)
            .or_io(|| self.cannot("renew", path))?;
        Ok(true)
    }

    /// Keeps a blob that a client asked for, which may be about to push what needs it. Waits while something is removed.
    pub(crate) fn lease_blob(&self, repository: &Repository, digest: &BlobDigest) -> Result<()> {
        let _adding = self.adding()?;
        self.renew(&layout::layer_link(repository, digest))?;
        Ok(())
    }

    /// The same for a manifest. Those who pull ask for manifests too, and must not wait: while something is removed
    /// nothing is promised, and a push of what needs the manifest is refused if it is gone.
    pub(crate) fn lease_manifest(&self, repository: &Repository, digest: &BlobDigest) -> Result<()> {
        if let Some(_adding) = self.try_adding()? {
            self.renew(&layout::revision_link(repository, digest))?;
        }
        Ok(())
    }

    /// By the time of the last change of the file or its attributes, which nobody can set to an earlier one.
    fn is_young(&self, path: &str, grace: Duration, now: SystemTime) -> Result<bool> {
        let Some(metadata) = found(self.dir.symlink_metadata(path)).or_io(|| self.cannot("look up", path))? else {
            return Ok(false);
        };
        let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
        let age = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(changed));
        // One from the future has an age of nothing.
        Ok(age.unwrap_or_default() < grace)
    }

    /// The repositories, and what only has the name of one.
    fn all_repositories(&self) -> Result<Vec<Repository>> {
        let mut found = Vec::new();
        let mut parents = vec![String::new()];
        while let Some(parent) = parents.pop() {
            let folder = format!("{}/{parent}", layout::repositories());
            for name in self.own_folders(&folder)? {
                if ["_manifests", "_layers", "_uploads"].contains(&name.as_str()) {
                    continue;
                }
                let repository: Repository = format!("{parent}{name}")
                    .parse()
                    .map_err(|_| unclear(&format!("{folder}{name}"), "has not the name of a repository"))?;
                parents.push(format!("{repository}/"));
                found.push(repository);
            }
        }
        Ok(found)
    }

    /// The blobs that have a folder.
    fn all_blobs(&self) -> Result<Vec<BlobDigest>> {
        let blobs = format!("{}/blobs", layout::ROOT);
        let mut digests = Vec::new();
        for algorithm in self.own_folders(&blobs)? {
            for start in self.own_folders(&format!("{blobs}/{algorithm}"))? {
                for hex in self.own_folders(&format!("{blobs}/{algorithm}/{start}"))? {
                    // What is no digest nobody can ask for, and it stays.
                    digests.extend(format!("{algorithm}:{hex}").parse::<BlobDigest>().ok());
                }
            }
        }
        Ok(digests)
    }

    /// The digests that a folder has links for.
    fn digests(&self, folder: &str) -> Result<Vec<BlobDigest>> {
        let mut digests = Vec::new();
        for algorithm in self.own_folders(folder)? {
            for hex in self.own_folders(&format!("{folder}/{algorithm}"))? {
                let path = format!("{folder}/{algorithm}/{hex}");
                let digest = format!("{algorithm}:{hex}");
                let digest = digest.parse().map_err(|_| unclear(&path, "is no digest"))?;
                if self.exists(&format!("{path}/link"))? {
                    digests.push(digest);
                }
            }
        }
        Ok(digests)
    }

    /// The names of the folders in a folder. Links are followed when the registry serves, so what is behind one could
    /// need anything.
    fn own_folders(&self, path: &str) -> Result<Vec<String>> {
        let failed = || self.cannot("list", path);
        let Some(entries) = found(self.dir.read_dir(path)).or_io(failed)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.or_io(failed)?;
            let kind = entry.file_type().or_io(failed)?;
            let name = entry.file_name();
            let shown = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
            if kind.is_symlink() {
                return Err(unclear(&shown, "is a symbolic link"));
            }
            if kind.is_dir() {
                names.push(name.into_string().map_err(|_| unclear(&shown, "is not UTF-8"))?);
            }
        }
        Ok(names)
    }
}

/// Why nothing is collected: something that may need what would go.
fn unclear(path: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Input,
        format!(
            "`{}` {why}: nothing was removed, because it may need what would go",
            path.escape_debug()
        ),
    )
    .hint("move it out of the registry's folder; put what a link leads to in its place")
}

/// Adds what the kept manifests name, and what refers to them.
fn spread(revisions: &BTreeMap<BlobDigest, Revision>, kept: &mut BTreeSet<BlobDigest>) {
    loop {
        let before = kept.len();
        for (digest, revision) in revisions {
            if revision.subject.is_some_and(|subject| kept.contains(&subject)) {
                kept.insert(*digest);
            }
            if kept.contains(digest) {
                kept.extend(&revision.names);
            }
        }
        if kept.len() == before {
            return;
        }
    }
}

/// What a tag like `sha256-HEX.sig` of cosign is about.
fn signed_by(tag: &Tag) -> Option<BlobDigest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split('.').next()?;
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests;
