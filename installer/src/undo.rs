//! Takes back what the host manifest says was made. Each can be taken back twice, or when it was never really made.

mod containers;
pub(crate) mod named;
mod network;
pub(crate) mod pod_networks;
pub(crate) mod slices;

use std::fs::{self, FileTimes};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;
use sealrs_image::progress::Progress;

use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::execute::{NAMESPACES, program_environment, program_folders, run_program};
use crate::host_manifest::{Before, HostManifest, Made};
use crate::service::Services;
use crate::{files, host_lock, hosts_file, shared_file};

pub(crate) use containers::in_cgroup;
pub(crate) use network::rules_and_chains;

/// What removals are done with.
pub(crate) struct Remover<'r> {
    pub(crate) files: &'r ClusterFiles,
    pub(crate) environment: Environment,
    pub(crate) progress: &'r dyn Progress,
}

impl Remover<'_> {
    /// Takes back one thing, the entry with this number. Says what was done, if it is worth a line.
    ///
    /// # Errors
    /// What stands against it; then it can be tried again.
    pub(crate) fn undo(&self, number: usize, made: &Made, manifest: &HostManifest) -> Result<Option<String>> {
        let _lock = match made {
            Made::Folder { .. } | Made::File { .. } | Made::HostsBlock { .. } | Made::SharedBlock { .. } => {
                host_lock::hold()?
            }
            _ => None,
        };
        match made {
            Made::Folder { path } => {
                files::remove_empty_folder(path)?;
                Ok(None)
            }
            Made::Tree { path, kept: None } => {
                files::remove_tree(path)?;
                Ok(None)
            }
            Made::Tree { path, kept: Some(kept) } => {
                for name in names_in(path)? {
                    if !kept.contains(&name) {
                        files::remove_tree(&path.join(name))?;
                    }
                }
                Ok(None)
            }
            Made::PodNetworks { path, kept } => pod_networks::remove(path, kept),
            Made::File { path, before } => self.restore(path, before, manifest),
            Made::HostsBlock {
                path,
                cluster,
                line_break_added,
            } => hosts_block(path, cluster, *line_break_added),
            Made::SharedBlock { path, cluster } => shared_file::remove(path, cluster),
            Made::Service { name, manager } => {
                Services::new(*manager, self.files).remove(name)?;
                Ok(Some(format!("stopped and removed service {name}")))
            }
            Made::Command { argv, folder, env } => self.command(number, argv, folder, env),
            // A removal has to get through, whatever a hook says to it.
            Made::Hook {
                name,
                argv,
                folder,
                env,
            } => Ok(self
                .command(number, argv, folder, env)
                .err()
                .map(|error| format!("hook {name} failed, and the removal goes on: {}", one_line(&error)))),
            Made::Container { name, kept, silent } => named::remove(name, kept, silent, &program_folders(self.files)),
            Made::Processes { cgroups, socket } => containers::end_processes(cgroups, socket),
            Made::Mounts { below, kept } => containers::unmount(below, kept),
            Made::NetworkNamespaces { prefix, kept } => {
                let alone = manifest.has_folder(Path::new(NAMESPACES));
                network::remove_namespaces(prefix, kept, alone)
            }
            Made::Interfaces { names } => network::remove_interfaces(names),
            Made::Firewall {
                prefixes,
                programs,
                kept,
            } => network::remove_rules(prefixes, programs, kept),
            Made::Slice { name, kept } => slices::remove(name, kept),
            Made::Sysctls { values } => {
                for (name, value) in values {
                    sysctl(name, value)?;
                }
                Ok(None)
            }
        }
    }

    /// Puts back what was at a path before, unless somebody changed what we put there.
    fn restore(&self, path: &Path, before: &Before, manifest: &HostManifest) -> Result<Option<String>> {
        file::remove_partials(path)?;
        if let Some(found) = files::digest(path)?
            && !manifest.may_have_written(path, found)
            && !self.is_restored(before, found)?
        {
            return Ok(Some(format!("kept {}: it was changed since", path.display())));
        }
        match before {
            Before::Nothing => {
                files::remove_file(path)?;
                Ok(None)
            }
            Before::Link(target) => {
                if fs::read_link(path).is_ok_and(|found| found == *target) {
                    return Ok(None);
                }
                files::remove_file(path)?;
                symlink(target, path).or_io(|| format!("cannot restore {}", path.display()))?;
                Ok(Some(format!("restored {}", path.display())))
            }
            Before::File {
                backup,
                mode,
                uid,
                gid,
                modified,
            } => {
                let place = || format!("cannot restore {}", path.display());
                let backup = self.files.backup().join(backup);
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).or_io(place)?;
                }
                files::copy(&backup, path, Some(*mode), false)?;
                chown(path, Some(*uid), Some(*gid)).or_io(place)?;
                let seconds = u64::try_from(modified.0).unwrap_or(0);
                let time: SystemTime = UNIX_EPOCH + Duration::new(seconds, modified.1);
                fs::File::open(path)
                    .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
                    .or_io(place)?;
                Ok(Some(format!("restored {}", path.display())))
            }
        }
    }

    /// Whether what has this digest is what was there before: a removal that was killed put it back, or nothing was
    /// written yet.
    fn is_restored(&self, before: &Before, found: Digest) -> Result<bool> {
        Ok(match before {
            Before::Nothing => false,
            Before::Link(target) => files::link_digest(target) == found,
            Before::File { backup, .. } => files::digest(&self.files.backup().join(backup))? == Some(found),
        })
    }

    fn command(
        &self,
        number: usize,
        argv: &[String],
        folder: &Path,
        env: &std::collections::BTreeMap<String, String>,
    ) -> Result<Option<String>> {
        let data = self.files.data();
        let folder = if folder.is_dir() { folder } else { &data };
        let environment = program_environment(self.files, &self.environment, env);
        run_program(
            self.files,
            &format!("remove-{number}"),
            argv,
            folder,
            &environment,
            self.progress,
        )?;
        Ok(None)
    }
}

fn one_line(error: &Error) -> String {
    let whole: Vec<String> = std::iter::once(error.to_string()).chain(error.causes()).collect();
    whole.join(": ")
}

fn names_in(path: &Path) -> Result<Vec<String>> {
    let place = || format!("cannot read the folder {}", path.display());
    let entries = match fs::read_dir(path) {
        Err(error) if files::is_absent(&error) => return Ok(Vec::new()),
        entries => entries.or_io(place)?,
    };
    entries
        .map(|entry| Ok(entry.or_io(place)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn hosts_block(path: &Path, cluster: &str, line_break_added: bool) -> Result<Option<String>> {
    let path = &files::behind_links(path)?;
    file::remove_partials(path)?;
    let text = match fs::read_to_string(path) {
        Err(error) if files::is_absent(&error) => return Ok(None),
        text => text.or_io(|| format!("cannot read {}", path.display()))?,
    };
    let (mut without, found) = hosts_file::without_block(&text, cluster);
    if !found {
        return Ok(None);
    }
    if line_break_added && without.ends_with('\n') {
        without.pop();
    }
    let mode = fs::metadata(path).map_or(0o644, |metadata| {
        std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777
    });
    files::write(path, without.as_bytes(), mode)?;
    Ok(Some(format!("removed the registry's name from {}", path.display())))
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    let unchanged = fs::read_to_string(&path).is_ok_and(|now| now.trim() == value);
    if unchanged || !path.exists() {
        return Ok(());
    }
    fs::write(&path, value)
        .map_err(|error| Error::new(ErrorKind::Step, format!("cannot set {name} back to {value}")).because(error))
}
