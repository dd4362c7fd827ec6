//! What the installer's tests run in place of `sealrs`: installs, deletes, serves the registry and supervises services
//! in processes of their own, which can be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress, Silent};
use sealrs_image::spec::{Descriptor, media_type};
use sealrs_image::store::Store;
use sealrs_installer::member::Access;
use sealrs_installer::{Options, Supervise};
use sealrs_registry::server::{PushPolicy, ServeOptions, run};
use sealrs_registry::tls::TlsFiles;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["registry", "serve", rest @ ..] => serve(rest),
        ["node", "supervise", "--pid-file", pid, "--log-file", log, "--", ..] => {
            let command = arguments.get(7..).unwrap_or_default();
            sealrs_installer::supervise(&Supervise {
                pid_file: PathBuf::from(pid),
                log_file: PathBuf::from(log),
                command: command.iter().map(Into::into).collect(),
            })
        }
        ["run", rest @ ..] => install(rest),
        ["delete", root, cluster] => {
            sealrs_installer::delete(Path::new(root), cluster, &Access::default(), &Lines).map(drop)
        }
        other => Err(unknown(other)),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:?}"));
            std::process::ExitCode::from(error.kind().exit_code())
        }
    }
}

fn unknown(words: &[&str]) -> Error {
    Error::new(ErrorKind::Input, format!("not a command: {words:?}"))
}

/// `run STORE-ROOT MANIFEST [--dry-run] [NAME=VALUE…]`, where lower-case names are options and others variables.
fn install(words: &[&str]) -> Result<()> {
    let [store, manifest, rest @ ..] = words else {
        return Err(unknown(words));
    };
    let store = Store::open(Path::new(store))?;
    let digest = manifest.parse()?;
    let size = std::fs::metadata(store.blob_path(&digest)).map_or(0, |blob| blob.len());
    let root = Descriptor::new(media_type::MANIFEST, digest, size);
    let image = ClusterImage::read(&store, &root, &Platform::host())?;
    let mut options = Options::default();
    let mut dry_run = false;
    for word in rest {
        match word.split_once('=') {
            None => dry_run = true,
            Some(("root", value)) => options.root = PathBuf::from(value),
            Some(("cluster", value)) => options.cluster = value.to_owned(),
            Some(("domain", value)) => options.registry_domain = value.to_owned(),
            Some(("port", value)) => options.registry_port = value.parse().unwrap_or(0),
            Some(("config", value)) => options.runtime_config.push(value.to_owned()),
            Some(("host-ip", value)) => options.host_ip = value.parse().ok(),
            Some((name, value)) => drop(options.env.insert(name.to_owned(), value.to_owned())),
        }
    }
    if dry_run {
        let (plan, findings) = sealrs_installer::plan(&store, &image, &options)?;
        say(&plan.to_string());
        return sealrs_installer::preflight::enforce(&findings, &Lines);
    }
    let summary = sealrs_installer::run(&store, &image, &options, &Lines)?;
    say(&format!("{:?}: {} steps", summary.outcome, summary.steps));
    say(&summary.words.join("\n"));
    Ok(())
}

fn serve(words: &[&str]) -> Result<()> {
    let mut options = ServeOptions {
        dir: PathBuf::new(),
        listen: Vec::new(),
        tls: None,
        htpasswd: None,
        push: PushPolicy::Refuse,
        metrics: None,
    };
    let mut tls = TlsFiles {
        certificate: PathBuf::new(),
        key: PathBuf::new(),
    };
    for pair in words.chunks(2) {
        match pair {
            ["--dir", value] => options.dir = PathBuf::from(value),
            ["--listen", value] => options.listen.extend(value.parse::<SocketAddr>().ok()),
            ["--tls-cert", value] => tls.certificate = PathBuf::from(value),
            ["--tls-key", value] => tls.key = PathBuf::from(value),
            other => return Err(unknown(other)),
        }
    }
    options.tls = Some(tls);
    run(&options, Arc::new(Silent), |_| {})
}

struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Message(line) | Event::Begin { what: line, .. } => say(line),
            Event::Warning(line) => say(&format!("warning: {line}")),
            _ => {}
        }
    }
}

/// The tests read what their programs say.
#[expect(clippy::print_stdout, reason = "it is a program")]
fn say(line: &str) {
    println!("{line}");
}
