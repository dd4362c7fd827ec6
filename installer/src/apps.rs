//! What an installation starts at its end: commands, or the launch commands of apps (sealer's rules, with what is
//! not repeatable made so: a helm release that is there is upgraded).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::{Application, Extension};
use sealrs_image::error::{Error, ErrorKind, Result};

use crate::action::{Action, Program};
use crate::options::Options;
use crate::plan::{Context, Step};

/// A command with the words for it.
#[derive(Debug, PartialEq, Eq)]
struct Launch {
    id: String,
    title: String,
    command: String,
    env: BTreeMap<String, String>,
}

/// The steps that start what the user, or else the image, wants started.
///
/// # Errors
/// [`ErrorKind::Input`] when an app is not in the image or can't be started.
pub(crate) fn steps(context: &Context<'_>, kubeconfig: Option<&Path>) -> Result<Vec<Step>> {
    launches(&context.image.extension, context.options)?
        .into_iter()
        .map(|launch| {
            let mut env = launch.env;
            if let Some(kubeconfig) = kubeconfig {
                env.insert("KUBECONFIG".to_owned(), kubeconfig.to_string_lossy().into_owned());
            }
            let program = Program {
                argv: vec!["bash".to_owned(), "-c".to_owned(), launch.command],
                folder: context.files.rootfs(),
                env,
            };
            context.step(launch.id, launch.title, Action::Run(program))
        })
        .collect()
}

/// Whether what is to be started can be.
///
/// # Errors
/// As [`steps`].
pub(crate) fn check(extension: &Extension, options: &Options) -> Result<()> {
    launches(extension, options).map(drop)
}

/// Explicit commands win over explicit apps, both over the image's commands, and these over its apps.
fn launches(extension: &Extension, options: &Options) -> Result<Vec<Launch>> {
    if let Some(commands) = &options.cmds {
        return Ok(of_commands(commands));
    }
    if let Some(names) = &options.apps {
        return of_apps(extension, options, names);
    }
    if !extension.launch.cmds.is_empty() {
        return Ok(of_commands(&extension.launch.cmds));
    }
    of_apps(extension, options, &extension.launch.app_names)
}

fn of_commands(commands: &[String]) -> Vec<Launch> {
    commands
        .iter()
        .filter(|command| !command.trim().is_empty())
        .enumerate()
        .map(|(number, command)| Launch {
            id: format!("command-{}", number + 1),
            title: format!("run `{command}`"),
            command: command.clone(),
            env: BTreeMap::new(),
        })
        .collect()
}

fn of_apps(extension: &Extension, options: &Options, names: &[String]) -> Result<Vec<Launch>> {
    let mut launches: Vec<Launch> = Vec::new();
    // An empty name is how one says "none".
    for name in names.iter().filter(|name| !name.is_empty()) {
        let app = extension.applications.iter().rfind(|app| &app.name == name);
        let Some(app) = app else {
            let known: Vec<&str> = extension.applications.iter().map(|app| app.name.as_str()).collect();
            return Err(Error::new(
                ErrorKind::Input,
                format!("app `{}` is not in the image", name.escape_debug()),
            )
            .hint(format!("its apps are: {}", known.join(", "))));
        };
        let mut env = app.env.clone();
        // The user's word counts more than the app's.
        env.retain(|name, _| !options.env.contains_key(name));
        let launch = Launch {
            id: format!("app-{name}"),
            title: format!("launch app {name}"),
            command: command_of(app)?,
            env,
        };
        if !launches.contains(&launch) {
            launches.push(launch);
        }
    }
    Ok(launches)
}

/// The command that launches an app, from its type unless it has its own.
fn command_of(app: &Application) -> Result<String> {
    let folder = PathBuf::from("application/apps").join(&app.name);
    let path = |file: &str| quote(&folder.join(file).to_string_lossy());
    if !app.cmds.is_empty() {
        let folder = quote(&format!("{}/", folder.display()));
        return Ok(format!("cd {folder} && {}", app.cmds.join(" ")));
    }
    let each = |command: &str| {
        let commands: Vec<String> = app
            .files
            .iter()
            .map(|file| format!("{command} {}", path(file)))
            .collect();
        commands.join(" && ")
    };
    match app.kind.as_str() {
        "kube" if !app.files.is_empty() => Ok(each("kubectl apply -f")),
        "shell" if !app.files.is_empty() => Ok(each("bash")),
        "helm" => Ok(format!("helm upgrade --install {} {}", quote(&app.name), path(""))),
        kind => Err(Error::new(
            ErrorKind::Input,
            format!("nothing says how app `{}` of type `{kind}` is launched", app.name),
        )
        .hint("give it a command with APPCMDS and build the image again")),
    }
}

/// A word for bash.
fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str, kind: &str, files: &[&str]) -> Application {
        Application {
            name: name.into(),
            kind: kind.into(),
            files: files.iter().map(|&file| file.to_owned()).collect(),
            ..Application::default()
        }
    }

    fn extension() -> Extension {
        let text = r#"{"launch":{"app_names":["redis","web"]}}"#;
        let mut extension: Extension = serde_json::from_str(text).unwrap();
        extension.applications = vec![
            app("redis", "kube", &["a.yaml", "b c.yaml"]),
            app("web", "helm", &["web"]),
            app("setup", "shell", &["one.sh", "two.sh"]),
            Application {
                cmds: ["bash", "install.sh"].map(str::to_owned).to_vec(),
                env: BTreeMap::from([("A".into(), "app".into()), ("B".into(), "app".into())]),
                ..app("biz", "", &[])
            },
            app("none", "", &[]),
        ];
        extension
    }

    fn commands(extension: &Extension, options: &Options) -> Vec<String> {
        let launches = launches(extension, options).unwrap();
        launches.into_iter().map(|launch| launch.command).collect()
    }

    #[test]
    fn launches_apps_by_their_type() {
        let mut options = Options::default();
        assert_eq!(
            commands(&extension(), &options),
            [
                "kubectl apply -f application/apps/redis/a.yaml && \
                 kubectl apply -f 'application/apps/redis/b c.yaml'",
                "helm upgrade --install web application/apps/web/",
            ]
        );
        options.apps = Some(vec!["setup".into(), "biz".into(), "biz".into()]);
        assert_eq!(
            commands(&extension(), &options),
            [
                "bash application/apps/setup/one.sh && bash application/apps/setup/two.sh",
                "cd application/apps/biz/ && bash install.sh",
            ]
        );
        options.env.insert("A".into(), "user".into());
        let launches = launches(&extension(), &options).unwrap();
        assert_eq!(launches[1].env, BTreeMap::from([("B".into(), "app".into())]));
        options.apps = Some(vec![String::new()]);
        assert!(commands(&extension(), &options).is_empty());
    }

    #[test]
    fn commands_win_over_apps() {
        let mut image = extension();
        image.launch.cmds = vec!["echo image".into()];
        let mut options = Options::default();
        assert_eq!(commands(&image, &options), ["echo image"]);
        options.apps = Some(vec!["web".into()]);
        assert_eq!(commands(&image, &options).len(), 1);
        assert!(commands(&image, &options)[0].starts_with("helm"));
        options.cmds = Some(vec!["echo user".into(), " ".into()]);
        assert_eq!(commands(&image, &options), ["echo user"]);
    }

    #[test]
    fn an_app_that_is_not_there_or_has_no_command_is_an_error() {
        for (name, says) in [("nginx", "is not in the image"), ("none", "nothing says how")] {
            let options = Options {
                apps: Some(vec![name.into()]),
                ..Options::default()
            };
            let error = launches(&extension(), &options).unwrap_err();
            assert!(error.to_string().contains(says), "{error:?}");
        }
    }
}
