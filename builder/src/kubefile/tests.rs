//! Tests of the whole way from text to steps or messages.

mod errors;
mod grammar;
mod robustness;
mod variables;

use super::*;

impl Kubefile {
    /// A file that is right, or all that is wrong in it.
    fn load(
        text: &[u8],
        file: &str,
        build_args: &BuildArgs,
        target: &Platform,
    ) -> Result<(Self, Vec<Step>), Diagnostics> {
        let kubefile = Self::read(text, file, build_args, target);
        kubefile.check(Vec::new())?;
        let steps = kubefile.steps().to_vec();
        Ok((kubefile, steps))
    }
}

/// The steps of `text` for linux/amd64.
fn load(text: &str) -> Result<Vec<Step>, Diagnostics> {
    load_with(text, &[])
}

fn load_with(text: &str, build_args: &[(&str, &str)]) -> Result<Vec<Step>, Diagnostics> {
    let build_args = build_args
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let target = "linux/amd64".parse().unwrap();
    Kubefile::load(text.as_bytes(), "Kubefile", &build_args, &target).map(|(_, steps)| steps)
}

/// The steps behind `FROM scratch`, each on a line.
fn shown(text: &str) -> String {
    match load(&format!("FROM scratch\n{text}")) {
        Ok(steps) => steps.iter().skip(1).map(show).collect::<Vec<_>>().join("\n"),
        Err(errors) => format!("error: {errors}"),
    }
}

fn show(step: &Step) -> String {
    let pairs = |pairs: &[(String, String)]| {
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        pairs.join(" ")
    };
    let names = |apps: &[AppName]| apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(" ");
    match &step.action {
        Action::From(BaseImage::Scratch) => "from scratch".to_owned(),
        Action::From(BaseImage::Image { name, platform: None }) => format!("from {name}"),
        Action::From(BaseImage::Image {
            name,
            platform: Some(platform),
        }) => format!("from {name} for {platform}"),
        Action::Env(variables) => format!("env {}", pairs(variables)),
        Action::Label(labels) => format!("label {}", pairs(labels)),
        Action::Maintainer(name) => format!("maintainer {name}"),
        Action::Copy(copy) => {
            let mut text = if copy.unpack { "add" } else { "copy" }.to_owned();
            for source in &copy.sources {
                text += &format!(" {}", show_source(source));
            }
            text += &format!(" -> {:?}", copy.destination.path);
            if copy.destination.is_directory {
                text += "/";
            }
            if let Some(mode) = copy.mode {
                text += &format!(" mode {mode:o}");
            }
            if let Some(owner) = copy.owner {
                text += &format!(" owner {}:{}", owner.uid, owner.gid);
            }
            text
        }
        Action::App(app) => {
            let kind = format!("{:?}", app.kind).to_lowercase();
            let sources: Vec<String> = app.sources.iter().map(show_source).collect();
            format!("{kind} {} {}", app.name.name, sources.join(" "))
        }
        Action::AppEnv { app, variables } => format!("appenv {} {}", app.name, pairs(variables)),
        Action::AppCommands { app, command } => format!("appcmds {} {command:?}", app.name),
        Action::Launch(apps) => format!("launch {}", names(apps)),
        Action::Commands(commands) => format!("commands {commands:?}"),
        Action::KubeVersion(constraint) => format!("kubeversion {constraint}"),
    }
}

fn show_source(source: &Source) -> String {
    match &source.kind {
        SourceKind::Local(glob) => glob.to_string(),
        SourceKind::Remote(file) => {
            let checksum = file.checksum.map(|checksum| format!("#{}", checksum.digest.short()));
            format!("<{}>{}", file.url, checksum.unwrap_or_default())
        }
        SourceKind::Inline(file) => format!("{}:{:?}", file.name, file.content),
    }
}
