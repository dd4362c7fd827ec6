//! What steps do, as data: a plan can be printed, compared and stored, and whoever executes it needs nothing else.
//! Every action can be done again, after a crash in its middle, with the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::write::GzEncoder;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use serde::{Deserialize, Serialize};

use crate::service::Service;

/// What a step does on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Action {
    /// Unpack the ClusterImage.
    Unpack {
        /// Its manifest.
        image: Digest,
        /// The rootfs.
        path: PathBuf,
    },
    /// Make a certificate authority and a certificate for the private registry, unless they are there.
    MakePki {
        /// Where they go.
        path: PathBuf,
        /// The names that the certificate is for.
        names: BTreeSet<String>,
        /// The addresses that it is for.
        addresses: BTreeSet<IpAddr>,
        /// For how many years both are valid.
        years: u16,
    },
    /// Make a folder.
    MakeFolder {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: Mode,
    },
    /// Write a file.
    WriteFile {
        /// Where.
        path: PathBuf,
        /// Permission bits.
        mode: Mode,
        /// What.
        content: Content,
    },
    /// Write several files that belong together.
    WriteFiles(Vec<FileWrite>),
    /// Copy files.
    CopyFiles {
        /// Which and where to.
        files: Vec<FileCopy>,
        /// A second name is as good as a copy, where they are on the same file system.
        link: bool,
    },
    /// Copy a file, unless something that is not ours is there.
    OfferFile(FileCopy),
    /// Move the container images of a registry's folder into another one.
    AddImages {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
    },
    /// Make a symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Give an address names in a hosts file, between markers.
    HostsEntry {
        /// The hosts file.
        path: PathBuf,
        /// Names the block.
        cluster: String,
        /// The address.
        address: IpAddr,
        /// Its names.
        names: Vec<String>,
    },
    /// Write the cluster's block into a file that the clusters of the host share.
    SharedBlock {
        /// The file.
        path: PathBuf,
        /// Names the block.
        cluster: String,
        /// What is in it.
        text: String,
    },
    /// Write down what a runtime or script is about to make, so that it can be removed.
    Claim(Vec<Claim>),
    /// Install a service and start it.
    Service(Service),
    /// Start a service anew, with what was written for it.
    Restart(Service),
    /// Remove the cluster from the host.
    Remove,
    /// Run a program to its end.
    Run(Program),
    /// Run a program that waits for a service: what the service logs, and what the program says, tells why it can't succeed.
    RunWatched {
        /// The program.
        program: Program,
        /// The service.
        service: String,
    },
    /// Wait until all of this holds.
    Wait {
        /// What is to hold, in this order.
        probes: Vec<Probe>,
        /// For how long at most.
        seconds: u64,
        /// The service whose failure ends the wait.
        service: Option<String>,
        /// What to do when it does not, where the service's log does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

/// Permission bits, written as one writes them: `0755`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for Mode {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u32::from_str_radix(&text, 8).map(Self)
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// This text.
    Text(String),
    /// A secret of this name, made up on the operator's side when it is first needed. It is in no plan.
    Secret(String),
    /// Text with secrets in it.
    Pieces(Vec<Piece>),
    /// The same, packed by gzip and written as Base64.
    Packed(Vec<Piece>),
}

/// A piece of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// This text.
    Text(String),
    /// The secret of this name.
    Secret(String),
    /// The SHA-256 of the secret of this name, in hexadecimal.
    Sha256(String),
    /// The secret of this name as Base64.
    Base64(String),
}

impl Piece {
    fn text(&self, secrets: &BTreeMap<String, String>) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Secret(name) => secret(secrets, name).cloned(),
            Self::Sha256(name) => Ok(Digest::of(secret(secrets, name)?.as_bytes()).hex()),
            Self::Base64(name) => Ok(BASE64.encode(secret(secrets, name)?)),
        }
    }
}

fn secret<'s>(secrets: &'s BTreeMap<String, String>, name: &str) -> Result<&'s String> {
    let missing = || Error::new(ErrorKind::Internal, format!("the secret `{name}` did not come along"));
    secrets.get(name).ok_or_else(missing)
}

/// Text packed by gzip, as Base64.
fn packed(text: &str) -> Result<String> {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::best());
    let bytes = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
    Ok(BASE64.encode(bytes.or_fail(ErrorKind::Internal, || "cannot pack a text")?))
}

impl Content {
    /// The names of the secrets in it.
    fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Secret(name) => vec![name],
            Self::Pieces(pieces) | Self::Packed(pieces) => pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Text(_) => None,
                    Piece::Secret(name) | Piece::Sha256(name) | Piece::Base64(name) => Some(name.as_str()),
                })
                .collect(),
        }
    }

    /// The text, with these secrets in it.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when a secret is not among them.
    pub(crate) fn text(&self, secrets: &BTreeMap<String, String>) -> Result<String> {
        let joined = |pieces: &[Piece]| {
            pieces
                .iter()
                .map(|piece| piece.text(secrets))
                .collect::<Result<String>>()
        };
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Secret(name) => secret(secrets, name).cloned(),
            Self::Pieces(pieces) => joined(pieces),
            Self::Packed(pieces) => packed(&joined(pieces)?),
        }
    }
}

/// A file that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWrite {
    /// Where.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: Mode,
    /// What.
    pub content: Content,
}

/// A file that is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// From where.
    pub from: PathBuf,
    /// To where.
    pub to: PathBuf,
    /// Permission bits; those of the original if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// A program that is run in the cluster's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Set in its environment, on top of the cluster's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// What others will make. It is looked at right before, so that what was there before stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Claim {
    /// A folder that is filled.
    Tree(PathBuf),
    /// A folder that is made, and that others may use as well: it goes when it is empty.
    Folder(PathBuf),
    /// A folder where network plugins write down what they know of pods, and of the containers of others.
    PodNetworks(PathBuf),
    /// A container of this name, in docker or nerdctl.
    Container(String),
    /// Processes of containers, by parts of their cgroups and by containerd's socket.
    Processes {
        /// Parts of cgroup paths.
        cgroups: Vec<String>,
        /// containerd's socket.
        socket: PathBuf,
    },
    /// Mounts below these folders.
    Mounts(Vec<PathBuf>),
    /// Named network namespaces, by the start of their name.
    NetworkNamespaces(String),
    /// Network interfaces.
    Interfaces(Vec<String>),
    /// Firewall chains, by the starts of their names.
    Firewall {
        /// The starts of the names.
        prefixes: Vec<String>,
        /// Where else to look for the iptables programs.
        programs: Vec<PathBuf>,
    },
    /// A cgroup slice.
    Slice(String),
    /// Kernel settings, by their path below /proc/sys.
    Sysctls(Vec<String>),
    /// Whatever this command removes.
    Command(Program),
    /// What this hook does.
    Hook {
        /// Its name.
        name: String,
        /// Its script.
        program: Program,
    },
}

/// Something that can be waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Probe {
    /// The service is active.
    Service(String),
    /// A registry answers `GET /v2/` over TLS.
    Registry {
        /// Where it listens.
        address: SocketAddr,
        /// The name that its certificate is for.
        name: String,
        /// The certificate authority.
        ca: PathBuf,
    },
    /// A program ends well and prints this.
    Prints {
        /// What it shows, for people.
        what: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Set in its environment.
        env: BTreeMap<String, String>,
        /// The beginning of what it prints.
        starts: String,
    },
    /// A program ends well and prints JSON that has something at this place.
    Has {
        /// What it shows, for people.
        what: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Set in its environment.
        env: BTreeMap<String, String>,
        /// The place (RFC 6901).
        pointer: String,
    },
    /// Objects of Kubernetes are ready, by what this program prints: one, or a list, as JSON.
    ObjectsReady {
        /// What it shows, for people.
        what: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Set in its environment.
        env: BTreeMap<String, String>,
    },
    /// Kubernetes nodes are ready, by what this program prints: a list of nodes as JSON.
    NodeReady {
        /// Their names; any one will do if there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Set in its environment.
        env: BTreeMap<String, String>,
    },
}

impl Action {
    /// Whether it makes sure that something runs, which is worth doing again whenever the same run is repeated.
    #[must_use]
    pub fn assures(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Wait { .. })
    }

    /// The names of the secrets that are needed for it.
    pub(crate) fn secrets(&self) -> BTreeSet<&str> {
        match self {
            Self::WriteFile { content, .. } => content.secrets().into_iter().collect(),
            Self::WriteFiles(files) => files.iter().flat_map(|file| file.content.secrets()).collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// What the action does, in words for `--dry-run`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpack { image, path } => write!(f, "unpack {image} to {}", path.display()),
            Self::MakePki { path, names, .. } => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                write!(f, "make certificates for {} in {}", names.join(", "), path.display())
            }
            Self::MakeFolder { path, mode } => {
                write!(f, "make the folder {} ({mode})", path.display())
            }
            Self::WriteFile { path, mode, content } => match content {
                Content::Text(_) => write!(f, "write {} ({mode})", path.display()),
                Content::Secret(name) => {
                    write!(f, "write the generated secret {name} to {} ({mode})", path.display())
                }
                Content::Pieces(_) | Content::Packed(_) => {
                    write!(f, "write {} ({mode}), with generated secrets in it", path.display())
                }
            },
            Self::WriteFiles(files) => match files.as_slice() {
                [first, ..] => {
                    let folder = first.path.parent().unwrap_or(&first.path);
                    write!(f, "write {} files to {}", files.len(), folder.display())
                }
                [] => write!(f, "write nothing"),
            },
            Self::CopyFiles { files, .. } => match files.as_slice() {
                [file] => write!(f, "copy {} to {}", file.from.display(), file.to.display()),
                [first, ..] => {
                    let folder = first.to.parent().unwrap_or(&first.to);
                    write!(f, "copy {} files to {}", files.len(), folder.display())
                }
                [] => write!(f, "copy nothing"),
            },
            Self::OfferFile(file) => write!(
                f,
                "copy {} to {} if nothing is there",
                file.from.display(),
                file.to.display()
            ),
            Self::AddImages { from, to } => {
                write!(f, "add the container images of {} to {}", from.display(), to.display())
            }
            Self::Link { path, target } => {
                write!(f, "link {} to {}", path.display(), target.display())
            }
            Self::HostsEntry {
                path, address, names, ..
            } => {
                write!(f, "write `{address} {}` to {}", names.join(" "), path.display())
            }
            Self::SharedBlock { path, cluster, .. } => {
                write!(f, "write the block of cluster {cluster} in {}", path.display())
            }
            Self::Claim(claims) => write!(f, "note {} things that will be made", claims.len()),
            Self::Service(service) => {
                write!(f, "start service {}: {}", service.name, service.argv.join(" "))
            }
            Self::Restart(service) => write!(f, "start service {} anew", service.name),
            Self::Remove => write!(f, "remove what was made on the host"),
            Self::Run(program) | Self::RunWatched { program, .. } => {
                write!(f, "run `{}` in {}", program.argv.join(" "), program.folder.display())
            }
            Self::Wait { probes, seconds, .. } => {
                let probes: Vec<String> = probes.iter().map(ToString::to_string).collect();
                write!(f, "wait at most {seconds} s until {}", probes.join(", "))
            }
        }
    }
}

/// What is waited for, in words that follow "until".
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name} is active"),
            Self::Registry { address, .. } => write!(f, "the registry answers on {address}"),
            Self::Prints { what, .. } | Self::Has { what, .. } | Self::ObjectsReady { what, .. } => f.write_str(what),
            Self::NodeReady { names, .. } => match names.as_slice() {
                [] => f.write_str("the node is ready"),
                [name] => write!(f, "node {name} is ready"),
                names => write!(f, "nodes {} are ready", names.join(", ")),
            },
        }
    }
}
