//! What an installation starts at its end: commands, or the launch commands of apps (sealer's rules, with what is
//! not repeatable made so: a helm release that is there is upgraded). And how apps are waited for, and go again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::{Application, Extension};
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::action::{Action, Probe, Program};
use crate::command::word;
use crate::options::Options;
use crate::plan::{Context, Step};

/// What the user says of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AppSettings {
    /// Variables for its commands and templates, over all others.
    pub env: BTreeMap<String, String>,
    /// Commands that launch it, in the rootfs, instead of the image's.
    pub launch: Vec<String>,
    /// Commands that remove it, in the rootfs.
    pub delete: Vec<String>,
}

/// A command with the words for it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The app; none for a command.
    pub(crate) app: Option<String>,
    /// The app's kind: `helm`, `kube`, `kustomize`, `shell` or `command`.
    pub(crate) kind: &'static str,
    id: String,
    title: String,
    command: String,
    env: BTreeMap<String, String>,
    /// Prints, as JSON, the objects that have to be ready.
    objects: Option<String>,
    /// Removes it again.
    pub(crate) remove: Option<String>,
}

/// The steps that start what the user, or else the image, wants started.
///
/// # Errors
/// [`ErrorKind::Input`] when an app is not in the image or can't be started.
pub(crate) fn steps(context: &Context<'_>, kubeconfig: Option<&Path>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for launch in launches(&context.image.extension, context.options)? {
        let mut env = launch.env;
        if let Some(kubeconfig) = kubeconfig {
            env.insert("KUBECONFIG".to_owned(), kubeconfig.to_string_lossy().into_owned());
        }
        let program = Program {
            argv: shell(launch.command),
            folder: context.files.rootfs(),
            env: env.clone(),
        };
        let wait = wait(context, &launch.id, launch.app, launch.objects, env)?;
        steps.push(context.step(launch.id, launch.title, Action::Run(program))?);
        steps.extend(wait);
    }
    Ok(steps)
}

fn shell(command: String) -> Vec<String> {
    vec!["bash".to_owned(), "-c".to_owned(), command]
}

/// The step that waits for an app, where that is wanted and one can tell.
fn wait(
    context: &Context<'_>,
    id: &str,
    app: Option<String>,
    objects: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<Option<Step>> {
    let (Some(seconds), Some(app), Some(objects)) = (context.options.wait, app, objects) else {
        return Ok(None);
    };
    // Probes run as they are: in no folder, and without the rootfs's programs.
    let folders = crate::execute::program_folders(context.files);
    let folders: Vec<String> = folders.iter().map(|folder| word(folder)).collect();
    let rootfs = quote(&word(&context.files.rootfs()));
    let line = format!(
        "cd {rootfs} && export PATH={}:$PATH && {objects}",
        quote(&folders.join(":"))
    );
    let mut env = env;
    for (name, path) in crate::execute::caches(context.files) {
        env.insert(name.to_owned(), path.to_string_lossy().into_owned());
    }
    let probe = Probe::ObjectsReady {
        what: format!("app {app} is ready"),
        argv: shell(line),
        env,
    };
    let action = Action::Wait {
        probes: vec![probe],
        seconds,
        service: None,
        remedy: Some("see what its pods say: `kubectl get pods -A`, `kubectl describe`".to_owned()),
    };
    context
        .step(format!("{id}-ready"), format!("wait for app {app}"), action)
        .map(Some)
}

/// Whether what is to be started can be.
///
/// # Errors
/// As [`steps`].
pub(crate) fn check(extension: &Extension, options: &Options) -> Result<()> {
    let known = |name: &String| extension.applications.iter().any(|app| &app.name == name);
    if let Some(name) = options.app_settings.keys().find(|name| !known(name)) {
        return Err(absent(extension, name));
    }
    launches(extension, options).map(drop)
}

/// Explicit commands win over explicit apps, both over the image's commands, and these over its apps.
///
/// # Errors
/// As [`steps`].
pub(crate) fn launches(extension: &Extension, options: &Options) -> Result<Vec<Launch>> {
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

/// The variables of each app, for its templates: the image's but for those that the user gave, and the user's for it.
pub(crate) fn environments(
    extension: &Extension,
    settings: &BTreeMap<String, AppSettings>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let of_app = |app: &Application| {
        let mut env = app.env.clone();
        env.retain(|name, _| !given.contains_key(name));
        env.extend(
            settings
                .get(&app.name)
                .map(|settings| settings.env.clone())
                .unwrap_or_default(),
        );
        (app.name.clone(), env)
    };
    extension.applications.iter().map(of_app).collect()
}

fn absent(extension: &Extension, name: &str) -> Error {
    let known: Vec<&str> = extension.applications.iter().map(|app| app.name.as_str()).collect();
    Error::new(
        ErrorKind::Input,
        format!("app `{}` is not in the image", name.escape_debug()),
    )
    .hint(format!("its apps are: {}", known.join(", ")))
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
            kind: "command",
            ..Launch::default()
        })
        .collect()
}

fn of_apps(extension: &Extension, options: &Options, names: &[String]) -> Result<Vec<Launch>> {
    let mut launches: Vec<Launch> = Vec::new();
    // An empty name is how one says "none".
    for name in names.iter().filter(|name| !name.is_empty()) {
        let app = extension.applications.iter().rfind(|app| &app.name == name);
        let app = app.ok_or_else(|| absent(extension, name))?;
        let settings = options.app_settings.get(name).cloned().unwrap_or_default();
        let mut env = app.env.clone();
        // The user's word counts more than the app's, and most what is said of the app alone.
        env.retain(|name, _| !options.env.contains_key(name));
        env.extend(settings.env.clone());
        let launch = Launch {
            app: Some(name.clone()),
            id: format!("app-{name}"),
            title: format!("launch app {name}"),
            env,
            ..of_app(app, &settings)?
        };
        if !launches.contains(&launch) {
            launches.push(launch);
        }
    }
    Ok(launches)
}

/// The commands of an app, from its type unless it has its own.
fn of_app(app: &Application, settings: &AppSettings) -> Result<Launch> {
    let folder = PathBuf::from("application/apps").join(&app.name);
    let path = |file: &str| quote(&folder.join(file).to_string_lossy());
    let is_kustomization = |file: &String| {
        matches!(
            file.as_str(),
            "kustomization.yaml" | "kustomization.yml" | "Kustomization"
        )
    };
    let name = quote(&app.name);
    let mut launch = match app.kind.as_str() {
        "kube" if app.files.iter().any(is_kustomization) => Launch {
            kind: "kustomize",
            command: format!("kubectl apply -k {}", path("")),
            objects: Some(format!("kubectl get -o json -k {}", path(""))),
            remove: Some(format!("kubectl delete --ignore-not-found -k {}", path(""))),
            ..Launch::default()
        },
        "kube" if !app.files.is_empty() => {
            let each = |command: &str| {
                let commands = app.files.iter().map(|file| format!("{command} {}", path(file)));
                commands.collect::<Vec<_>>().join(" && ")
            };
            let all = |files: &mut dyn Iterator<Item = &String>| {
                let flags = files.map(|file| format!(" -f {}", path(file)));
                flags.collect::<String>()
            };
            Launch {
                kind: "kube",
                command: each("kubectl apply -f"),
                objects: Some(format!("kubectl get -o json{}", all(&mut app.files.iter()))),
                // What came last may depend on what came first.
                remove: Some(format!(
                    "kubectl delete --ignore-not-found{}",
                    all(&mut app.files.iter().rev())
                )),
                ..Launch::default()
            }
        }
        "shell" if !app.files.is_empty() => {
            let commands = app.files.iter().map(|file| format!("bash {}", path(file)));
            Launch {
                kind: "shell",
                command: commands.collect::<Vec<_>>().join(" && "),
                ..Launch::default()
            }
        }
        "helm" => {
            let packed = |file: &&String| file.ends_with(".tgz") || file.ends_with(".tar.gz");
            let packed = app.files.iter().find(packed).map(String::as_str);
            let chart = path(packed.unwrap_or_default());
            // The values beside the chart, by which its images were found when the image was built.
            let stem = packed.map(|file| file.trim_end_matches(".tgz").trim_end_matches(".tar.gz"));
            let values = stem.map_or_else(|| folder.clone(), |stem| folder.join(stem));
            let values = quote(&format!("{}.values.yaml", values.display()));
            Launch {
                kind: "helm",
                command: format!(
                    "[ ! -e {values} ] || set -- -f {values}; helm upgrade --install {name} {chart} \"$@\""
                ),
                objects: Some(format!("helm get manifest {name} | kubectl get -o json -f -")),
                remove: Some(format!(
                    "if helm status {name} >/dev/null 2>&1; then helm uninstall {name}; fi"
                )),
                ..Launch::default()
            }
        }
        _ => Launch::default(),
    };
    let own = match (settings.launch.as_slice(), app.cmds.as_slice()) {
        ([], []) => None,
        ([], words) => Some(format!("cd {} && {}", path(""), words.join(" "))),
        (commands, _) => Some(commands.join(" && ")),
    };
    if let Some(command) = own {
        // What it makes is not known.
        launch = Launch {
            kind: "command",
            command,
            ..Launch::default()
        };
    }
    if launch.command.is_empty() {
        return Err(Error::new(
            ErrorKind::Input,
            format!("nothing says how app `{}` of type `{}` is launched", app.name, app.kind),
        )
        .hint("give it a command with APPCMDS and build the image again"));
    }
    if !settings.delete.is_empty() {
        launch.remove = Some(settings.delete.join(" && "));
    }
    Ok(launch)
}

/// A word for bash.
fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:".contains(letter);
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
                "[ ! -e application/apps/web.values.yaml ] || set -- -f application/apps/web.values.yaml; \
                 helm upgrade --install web application/apps/web/ \"$@\"",
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
    fn apps_go_and_are_waited_for_by_their_type() {
        let mut extension = extension();
        extension
            .applications
            .push(app("site", "kube", &["base/a.yaml", "kustomization.yaml"]));
        extension.applications.push(app("packed", "helm", &["chart-1.tgz"]));
        let mut options = Options {
            apps: Some(
                ["redis", "web", "setup", "site", "packed", "biz"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            ..Options::default()
        };
        let all = |options: &Options| launches(&extension, options).unwrap();
        let removals = |options: &Options| -> Vec<String> {
            let launches = all(options).into_iter();
            launches
                .map(|launch| format!("{}: {}", launch.kind, launch.remove.unwrap_or_default()))
                .collect()
        };
        assert_eq!(
            removals(&options),
            [
                "kube: kubectl delete --ignore-not-found -f 'application/apps/redis/b c.yaml' -f \
                 application/apps/redis/a.yaml",
                "helm: if helm status web >/dev/null 2>&1; then helm uninstall web; fi",
                "shell: ",
                "kustomize: kubectl delete --ignore-not-found -k application/apps/site/",
                "helm: if helm status packed >/dev/null 2>&1; then helm uninstall packed; fi",
                "command: ",
            ]
        );
        let launches = all(&options);
        assert_eq!(launches[3].command, "kubectl apply -k application/apps/site/");
        assert_eq!(
            launches[4].command,
            "[ ! -e application/apps/packed/chart-1.values.yaml ] || set -- -f application/apps/packed/chart-1.values.yaml; \
             helm upgrade --install packed application/apps/packed/chart-1.tgz \"$@\""
        );
        let objects = launches[0].objects.as_deref().unwrap();
        assert_eq!(
            objects,
            "kubectl get -o json -f application/apps/redis/a.yaml -f 'application/apps/redis/b c.yaml'"
        );
        assert!(launches[2].objects.is_none() && launches[5].objects.is_none());
        // What the user says of an app is over all else.
        let settings = AppSettings {
            env: BTreeMap::from([("A".into(), "settings".into())]),
            launch: vec!["one".into(), "two".into()],
            delete: vec!["three".into()],
        };
        options.app_settings.insert("biz".into(), settings);
        options.env.insert("B".into(), "user".into());
        let launches = all(&options);
        let biz = launches.last().unwrap();
        assert_eq!(
            (biz.command.as_str(), biz.remove.as_deref()),
            ("one && two", Some("three"))
        );
        assert_eq!(biz.env, BTreeMap::from([("A".into(), "settings".into())]));
        let environments = environments(&extension, &options.app_settings, &options.env);
        assert_eq!(environments["biz"], biz.env);
        options.app_settings.insert("nobody".into(), AppSettings::default());
        assert!(
            check(&extension, &options)
                .unwrap_err()
                .to_string()
                .contains("`nobody` is not in the image")
        );
    }

    #[test]
    fn commands_win_over_apps() {
        let mut image = extension();
        image.launch.cmds = vec!["echo image".into()];
        let mut options = Options::default();
        assert_eq!(commands(&image, &options), ["echo image"]);
        options.apps = Some(vec!["web".into()]);
        assert_eq!(commands(&image, &options).len(), 1);
        assert!(commands(&image, &options)[0].contains("helm"));
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
