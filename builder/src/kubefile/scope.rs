//! The variables of a Kubefile, and the expansion of texts with them.
//!
//! As in a Dockerfile: ARGs before FROM are seen by FROM only, until they are declared again after it; ENV wins
//! over ARG; `--build-arg` wins over an ARG's default. `ARCH` and Docker's platform variables are always there.
//! Unlike in a Dockerfile, a variable that is not declared or has no value is an error, not an empty text, unless
//! it is written with a default: `${X:-}`.

use std::collections::{BTreeMap, BTreeSet};

use sealrs_image::platform::Platform;
use sealrs_image::suggest::nearest;

use super::BuildArgs;
use super::diagnostic::{Diagnostic, quoted};
use super::instruction::Declaration;
use super::template::{Operator, Part, Template, Variable};

/// Bytes that all expansions of a Kubefile together may produce: ARGs that double each other grow without end.
const LARGEST_EXPANSION: usize = 16 << 20;

/// Errors that get a suggestion.
const SUGGESTIONS: usize = 100;

#[derive(Debug)]
pub(super) struct Scope<'a> {
    build_args: &'a BuildArgs,
    /// `ARCH`, `TARGETARCH` and the like.
    automatic: BTreeMap<&'static str, String>,
    /// ARGs before FROM.
    outer: BTreeMap<String, Value>,
    /// ARGs after FROM; `None` before it.
    inner: Option<BTreeMap<String, Value>>,
    env: BTreeMap<String, Value>,
    /// Bytes that may still be produced.
    budget: usize,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    /// Declared without a value.
    None,
    /// Could not be expanded, which was reported already.
    Failed,
}

enum Lookup<'a> {
    Declared(&'a Value),
    Automatic(&'a str),
    OnlyBeforeFrom,
    Undeclared,
}

impl<'a> Scope<'a> {
    pub(super) fn new(build_args: &'a BuildArgs, target: &Platform, build: &Platform) -> Self {
        let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
        let automatic = BTreeMap::from([
            ("ARCH", target.architecture.clone()),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", variant(target)),
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", variant(build)),
        ]);
        Self {
            build_args,
            automatic,
            outer: BTreeMap::new(),
            inner: None,
            env: BTreeMap::new(),
            budget: LARGEST_EXPANSION,
        }
    }

    /// From here on, ARGs declared so far have to be declared again.
    pub(super) fn pass_from(&mut self) {
        self.inner.get_or_insert_default();
    }

    /// Carries out an ARG. All its defaults see the variables from before it.
    pub(super) fn declare(&mut self, declarations: &[Declaration], problems: &mut Vec<Diagnostic>) {
        let values: Vec<(String, Value)> = declarations
            .iter()
            .map(|declaration| {
                let default = declaration
                    .default
                    .as_ref()
                    .map(|default| match self.expand(default, problems) {
                        Some(text) => Value::Text(text),
                        None => Value::Failed,
                    });
                let name = &declaration.name;
                let given = self.build_args.get(name).cloned().map(Value::Text);
                let outer = || self.inner.as_ref().and_then(|_| self.outer.get(name).cloned());
                let automatic = || self.automatic.get(name.as_str()).cloned().map(Value::Text);
                let value = given.or(default).or_else(outer).or_else(automatic);
                (name.clone(), value.unwrap_or(Value::None))
            })
            .collect();
        match &mut self.inner {
            Some(inner) => inner.extend(values),
            None => self.outer.extend(values),
        }
    }

    /// Carries out an ENV; `None` is a value that could not be expanded.
    pub(super) fn set_env(&mut self, name: &str, value: Option<&str>) {
        let value = value.map_or(Value::Failed, |text| Value::Text(text.to_owned()));
        self.env.insert(name.to_owned(), value);
    }

    /// The template's text. `None` if there is none, which `problems` then says.
    pub(super) fn expand(&mut self, template: &Template, problems: &mut Vec<Diagnostic>) -> Option<String> {
        let mut expansion = Expansion {
            scope: self,
            template,
            problems,
            text: String::new(),
            failed: false,
        };
        expansion.parts(&template.parts);
        let Expansion { text, failed, .. } = expansion;
        // Failures count too, or they would be free to repeat.
        let rest = self.budget.checked_sub(text.len());
        self.budget = rest.unwrap_or(0);
        if rest.is_none() {
            problems.push(
                Diagnostic::error(
                    template.source.span(),
                    format!("the expanded texts of this Kubefile have more than {LARGEST_EXPANSION} bytes"),
                )
                .hint("put large texts into files and `COPY` them"),
            );
        }
        (!failed && rest.is_some()).then_some(text)
    }

    fn lookup(&self, name: &str) -> Lookup<'_> {
        let declared = match &self.inner {
            Some(inner) => self.env.get(name).or_else(|| inner.get(name)),
            None => self.outer.get(name),
        };
        match declared {
            Some(value) => Lookup::Declared(value),
            None => match self.automatic.get(name) {
                Some(text) => Lookup::Automatic(text),
                None if self.outer.contains_key(name) => Lookup::OnlyBeforeFrom,
                None => Lookup::Undeclared,
            },
        }
    }

    fn visible_names(&self) -> impl Iterator<Item = &str> {
        let (declared, env) = match &self.inner {
            Some(inner) => (inner, Some(&self.env)),
            None => (&self.outer, None),
        };
        let env = env.into_iter().flat_map(BTreeMap::keys);
        let declared = declared.keys().chain(env).map(String::as_str);
        declared.chain(self.automatic.keys().copied())
    }
}

/// One template being expanded.
struct Expansion<'a, 'b> {
    scope: &'a Scope<'b>,
    template: &'a Template,
    problems: &'a mut Vec<Diagnostic>,
    text: String,
    failed: bool,
}

impl Expansion<'_, '_> {
    fn parts(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Text(text) => self.text.push_str(text),
                Part::Variable(variable) => self.variable(variable),
            }
            // One word alone could otherwise fill the memory before the budget is asked.
            if self.text.len() > self.scope.budget {
                return;
            }
        }
    }

    fn variable(&mut self, variable: &Variable) {
        let scope = self.scope;
        let found = scope.lookup(&variable.name);
        let value = match &found {
            Lookup::Declared(Value::Text(text)) => Some(text.as_str()),
            Lookup::Automatic(text) => Some(*text),
            Lookup::Declared(Value::Failed) => {
                self.failed = true;
                return;
            }
            Lookup::Declared(Value::None) | Lookup::OnlyBeforeFrom | Lookup::Undeclared => None,
        };
        let Some(modifier) = &variable.modifier else {
            match value {
                Some(value) => self.text.push_str(value),
                None => self.fail(self.no_value(variable, &found)),
            }
            return;
        };
        let value = value.filter(|value| !(modifier.empty_is_unset && value.is_empty()));
        match (modifier.operator, value) {
            (Operator::Default | Operator::Required, Some(value)) => self.text.push_str(value),
            (Operator::Default, None) | (Operator::Alternative, Some(_)) => {
                self.parts(&modifier.word);
            }
            (Operator::Alternative, None) => {}
            (Operator::Required, None) => {
                let text = std::mem::take(&mut self.text);
                self.parts(&modifier.word);
                let mut message = std::mem::replace(&mut self.text, text);
                if message.trim().is_empty() {
                    message = "it is required here".to_owned();
                }
                self.fail(
                    Diagnostic::error(
                        variable.span,
                        format!("`{}` has no value: {}", variable.name, message.trim()),
                    )
                    .hint(format!(
                        "pass `--build-arg {}=VALUE`, or set it with `ARG` or `ENV`",
                        variable.name
                    )),
                );
            }
        }
    }

    fn fail(&mut self, problem: Diagnostic) {
        self.failed = true;
        self.problems.push(problem);
    }

    fn no_value(&self, variable: &Variable, found: &Lookup<'_>) -> Diagnostic {
        let name = &variable.name;
        let problem = |message: &str| Diagnostic::error(variable.span, format!("`{name}` {message}"));
        let dollar = &self.template.plain_dollar;
        match found {
            Lookup::OnlyBeforeFrom => problem("is declared before `FROM`, which hides it here")
                .hint(format!("declare it again after `FROM`: `ARG {name}`")),
            Lookup::Undeclared => {
                // Comparing with all names takes time, which nobody reads the fruits of after so many errors.
                let near = (self.problems.len() < SUGGESTIONS)
                    .then(|| nearest(name, self.scope.visible_names()))
                    .flatten();
                problem("is not declared").hint(match near {
                    Some(near) => format!("did you mean `{near}`? Otherwise declare it with `ARG {name}`"),
                    None => format!("declare it with `ARG {name}`; write `${{{name}:-}}` if it may be empty, or {dollar}"),
                })
            }
            Lookup::Declared(_) | Lookup::Automatic(_) => problem("has no value").hint(format!(
                "pass `--build-arg {name}=VALUE`, give it a default with `ARG {name}=VALUE`, or write `${{{name}:-}}` if it may be empty"
            )),
        }
    }
}

/// Says which of `build_args` no ARG of the file takes.
pub(super) fn check_build_args<'a>(
    build_args: &BuildArgs,
    declared: impl Iterator<Item = &'a str>,
    problems: &mut Vec<Diagnostic>,
) {
    let declared: BTreeSet<&str> = declared.collect();
    let unknown: Vec<&str> = build_args
        .keys()
        .map(String::as_str)
        .filter(|name| !declared.contains(name))
        .collect();
    for name in unknown {
        let problem = Diagnostic::error_in_file(format!("no `ARG` takes {}", quoted(&format!("--build-arg {name}"))));
        problems.push(match nearest(name, declared.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `--build-arg {near}=…`?")),
            None if declared.is_empty() => problem.hint("leave it out: the file declares no `ARG`"),
            None => {
                let list: Vec<&str> = declared.iter().copied().collect();
                problem.hint(format!("the file declares {}", list.join(", ")))
            }
        });
    }
}
