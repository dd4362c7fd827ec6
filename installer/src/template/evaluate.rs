//! From a tree to the text that it makes (Go's `text/template` execution).

use std::borrow::Cow;
use std::fmt::Write as _;

use super::functions;
use super::parser::{Base, Branch, Command, Node, Operand, Pipeline, Template};
use super::value::Value;
use super::{MAX_SIZE, Problem};
use crate::environment::Environment;

/// How deep lists of nodes may lie in each other, by nesting and by calls of templates together.
const MAX_DEPTH: usize = 250;
/// How many nodes are evaluated at most: templates that call each other twice would never end.
const MAX_NODES: usize = 1_000_000;
/// How many bytes of values are made at most, be they kept or not: a text may be doubled again and again.
const MAX_MADE: usize = 16 * MAX_SIZE;

/// Makes the text of a template, which may not use what is withheld.
pub(super) fn evaluate(
    template: &Template,
    environment: &Environment,
    withheld: Option<&Environment>,
) -> Result<String, Problem> {
    let is_withheld = |key: &String| withheld.is_some_and(|withheld| withheld.contains_key(key));
    let texts = environment.iter().filter(|(key, _)| !is_withheld(key));
    let data = Value::Map(
        texts
            .map(|(key, value)| (key.clone(), Value::Text(value.clone())))
            .collect(),
    );
    let mut evaluation = Evaluation {
        template,
        withheld,
        output: String::new(),
        variables: vec![(String::new(), data.clone())],
        depth: 0,
        nodes: 0,
        made: 0,
        line: 1,
    };
    evaluation.nodes(&template.nodes, &data)?;
    Ok(evaluation.output)
}

struct Evaluation<'t> {
    template: &'t Template,
    withheld: Option<&'t Environment>,
    output: String,
    /// The variables in scope, the innermost last.
    variables: Vec<(String, Value)>,
    depth: usize,
    nodes: usize,
    made: usize,
    line: usize,
}

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Evaluation<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.problem("the actions nest too deep, or a template calls itself without end"));
        }
        let flow = self.each(nodes, dot)?;
        self.depth -= 1;
        Ok(flow)
    }

    fn each(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Problem> {
        for node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES || self.output.len() > MAX_SIZE {
                return Err(self.too_much());
            }
            let flow = match node {
                Node::Text(text) => {
                    self.output.push_str(text);
                    Flow::On
                }
                Node::Print(pipeline) => self.print(pipeline, dot)?,
                Node::If(branch) => self.condition(branch, dot, false)?,
                Node::With(branch) => self.condition(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Call { line, name, data } => self.call(*line, name, data.as_ref(), dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn print(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Flow, Problem> {
        let value = self.pipeline(pipeline, dot)?;
        if !pipeline.variables.is_empty() {
            return Ok(Flow::On);
        }
        if value == Value::Nothing {
            return Err(self.unset(pipeline));
        }
        let _ = write!(self.output, "{value}");
        Ok(Flow::On)
    }

    fn unset(&self, pipeline: &Pipeline) -> Problem {
        let operand = pipeline.commands.first().and_then(|command| command.operands.first());
        let name = operand.and_then(|operand| operand.fields.last());
        let Some(name) = name else {
            return self.problem("this has no value");
        };
        self.problem(format!("`{name}` is not set")).hint(format!(
            "set it with `-e {name}=VALUE`, or write `{{{{ or .{name} \"VALUE\" }}}}` for a default"
        ))
    }

    fn condition(&mut self, branch: &Branch, dot: &Value, moves_dot: bool) -> Result<Flow, Problem> {
        let scope = self.variables.len();
        let value = self.pipeline(&branch.subject, dot)?;
        let flow = if value.is_true() {
            self.nodes(&branch.body, if moves_dot { &value } else { dot })?
        } else {
            self.nodes(&branch.otherwise, dot)?
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, Problem> {
        let scope = self.variables.len();
        let subject = &branch.subject;
        let items = match self.commands(subject, dot)? {
            Value::Map(map) => map,
            Value::Nothing => std::collections::BTreeMap::new(),
            other => return Err(self.problem(format!("`range` can't go over {}", other.sort()))),
        };
        if items.is_empty() {
            let flow = self.nodes(&branch.otherwise, dot)?;
            self.variables.truncate(scope);
            return Ok(flow);
        }
        for (key, value) in items {
            let values = match subject.variables.as_slice() {
                [] => Vec::new(),
                [_] => vec![value.clone()],
                _ => vec![Value::Text(key), value.clone()],
            };
            for (name, value) in subject.variables.iter().zip(values) {
                self.set(name, value, subject.declares)?;
            }
            let flow = self.nodes(&branch.body, &value)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn call(&mut self, line: usize, name: &str, data: Option<&Pipeline>, dot: &Value) -> Result<Flow, Problem> {
        self.line = line;
        let template = self.template;
        let Some(nodes) = template.defined.get(name) else {
            return Err(self.problem(format!("there is no template `{name}`")));
        };
        let data = match data {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nothing,
        };
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), data.clone())]);
        self.nodes(nodes, &data)?;
        self.variables = outer;
        Ok(Flow::On)
    }

    /// The pipeline's value; sets the variables that it names.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Problem> {
        let value = self.commands(pipeline, dot)?;
        match pipeline.variables.as_slice() {
            [] => {}
            [name] => self.set(name, value.clone(), pipeline.declares)?,
            _ => return Err(self.problem("only `range` can set two variables")),
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Problem> {
        self.line = pipeline.line;
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nothing))
    }

    fn set(&mut self, name: &str, value: Value, declares: bool) -> Result<(), Problem> {
        if declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => return Err(self.problem(format!("there is no variable `${name}` to set"))),
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, dot: &Value, last: Option<Value>) -> Result<Value, Problem> {
        self.line = command.line;
        let Some((first, rest)) = command.operands.split_first() else {
            return Err(self.problem("a value is missing"));
        };
        let Base::Function(name) = &first.base else {
            if !rest.is_empty() || last.is_some() {
                return Err(self.problem("only functions take arguments"));
            }
            return self.operand(first, dot);
        };
        // These two look at no more arguments than they need.
        if name == "and" || name == "or" {
            let mut value = None;
            for operand in rest {
                let next = self.operand(operand, dot)?;
                let decided = next.is_true() == (name == "or");
                value = Some(next);
                if decided {
                    return value.ok_or_else(|| self.problem("a value is missing"));
                }
            }
            return last
                .or(value)
                .ok_or_else(|| self.problem(format!("`{name}` needs a value")));
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        self.line = command.line;
        let value = functions::call(name, &arguments).map_err(|what| self.problem(what))?;
        self.count(value)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Problem> {
        if let (Some(field), Some(withheld)) = (operand.fields.first(), self.withheld)
            && withheld.contains_key(field)
        {
            return Err(self
                .problem(format!(
                    "`{field}` is given with `-e`, so it may be a secret, and this file is a part of the plan, which people see"
                ))
                .hint("give the setting itself with `--runtime-config`, or the variable in the image with ENV"));
        }
        let base = match &operand.base {
            Base::Dot => Cow::Borrowed(dot),
            Base::Literal(value) => Cow::Borrowed(value),
            Base::Function(name) => Cow::Owned(functions::call(name, &[]).map_err(|what| self.problem(what))?),
            Base::Pipeline(pipeline) => Cow::Owned(self.pipeline(pipeline, dot)?),
            Base::Variable(name) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => Cow::Borrowed(value),
                None => return Err(self.problem(format!("there is no variable `${name}`"))),
            },
        };
        let mut value = base.as_ref();
        for field in &operand.fields {
            value = match value {
                Value::Map(map) => map.get(field).unwrap_or(&Value::Nothing),
                other => return Err(self.problem(format!("{} has no field `{field}`", other.sort()))),
            };
        }
        let value = value.clone();
        self.count(value)
    }

    /// Takes a value into account that was made.
    fn count(&mut self, value: Value) -> Result<Value, Problem> {
        self.made = self.made.saturating_add(value.size());
        if self.made > MAX_MADE {
            return Err(self.too_much());
        }
        Ok(value)
    }

    fn too_much(&self) -> Problem {
        self.problem("the template makes too much")
    }

    fn problem(&self, what: impl Into<String>) -> Problem {
        Problem::new(self.line, what)
    }
}
