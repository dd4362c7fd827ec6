//! Whether the apps that instructions name exist.
//!
//! This takes the apps of the base image, so it is known only once that image is at hand.

use std::collections::BTreeSet;

use sealrs_image::suggest::nearest;

use super::diagnostic::{Diagnostic, quoted};
use super::step::{Action, AppName, Step};

/// Says which of the apps that `steps` name are neither defined before nor in `inherited`.
pub(super) fn check(steps: &[Step], inherited: &BTreeSet<String>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut defined: BTreeSet<&str> = inherited.iter().map(String::as_str).collect();
    for step in steps {
        let named: &[AppName] = match &step.action {
            Action::App(app) => {
                defined.insert(&app.name.name);
                &[]
            }
            Action::AppEnv { app, .. } | Action::AppCommands { app, .. } => std::slice::from_ref(app),
            Action::Launch(apps) => apps,
            _ => &[],
        };
        for app in named {
            if !defined.contains(app.name.as_str()) {
                problems.push(unknown(app, &defined, steps));
            }
        }
    }
    problems
}

fn unknown(app: &AppName, defined: &BTreeSet<&str>, steps: &[Step]) -> Diagnostic {
    let later = steps.iter().find_map(|step| match &step.action {
        Action::App(other) if other.name.name == app.name => Some(other.name.span.line),
        _ => None,
    });
    let shown = quoted(&app.name);
    if let Some(line) = later {
        return Diagnostic::error(app.span, format!("the app {shown} is defined only in line {line}"))
            .hint("move this line below it");
    }
    let problem = Diagnostic::error(app.span, format!("application {shown} does not exist in the image"));
    match nearest(&app.name, defined.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if defined.is_empty() => problem.hint("define it before: `APP NAME local://FILE...`"),
        None => {
            let list: Vec<&str> = defined.iter().copied().collect();
            problem.hint(format!("the image has {}", list.join(", ")))
        }
    }
}
