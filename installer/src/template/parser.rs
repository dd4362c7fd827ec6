//! From words to a tree (Go's `text/template/parse`).

use std::collections::BTreeMap;

use super::Problem;
use super::lexer::{self, Kind, Piece, Word};
use super::value::Value;

/// How deep actions and parentheses may nest.
const MAX_DEPTH: usize = 100;

/// A template with those that it defines.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) nodes: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// A pipeline, printed unless it sets a variable.
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// Another template, with its data.
    Call {
        line: usize,
        name: String,
        data: Option<Pipeline>,
    },
    Break,
    Continue,
}

/// A condition or subject, what is done with it, and what without.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) subject: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) line: usize,
    /// Variables that it sets.
    pub(super) variables: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// An operand with arguments.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) operands: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// Fields of it.
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Value),
    Pipeline(Box<Pipeline>),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Template, Problem> {
    let mut parser = Parser {
        pieces: lexer::pieces(text)?.into_iter(),
        template: Template::default(),
        depth: 0,
        loops: 0,
    };
    let (nodes, end) = parser.nodes()?;
    if let Some((line, end, _)) = end {
        return Err(Problem::new(line, format!("`{}` belongs to nothing", end.word())));
    }
    parser.template.nodes = nodes;
    Ok(parser.template)
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    template: Template,
    depth: usize,
    /// How many `range` are open.
    loops: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    End,
    Else,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Else => "else",
        }
    }
}

/// What ended a list of nodes: its line and, after `else`, the words that follow.
type Ended = Option<(usize, End, Words)>;

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Ended), Problem> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, words) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { line, words } => (line, words),
            };
            let mut words = Words::new(line, words);
            let keyword = match words.peek().map(|word| &word.kind) {
                Some(Kind::Name(name)) => name.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => {
                    words.next();
                    words.expect_end("end")?;
                    return Ok((nodes, Some((line, End::End, words))));
                }
                "else" => {
                    words.next();
                    return Ok((nodes, Some((line, End::Else, words))));
                }
                "if" | "with" | "range" => {
                    words.next();
                    nodes.push(self.branch(line, &keyword, words)?);
                }
                "break" | "continue" => {
                    words.next();
                    words.expect_end(&keyword)?;
                    if self.loops == 0 {
                        return Err(Problem::new(line, format!("`{keyword}` stands outside of `range`")));
                    }
                    nodes.push(if keyword == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "template" => {
                    words.next();
                    nodes.push(call(line, words)?);
                }
                "define" | "block" => {
                    words.next();
                    let call = call(line, words)?;
                    let Node::Call { name, data, .. } = &call else { continue };
                    if keyword == "define" && data.is_some() {
                        return Err(Problem::new(line, "`define` takes a name and nothing else"));
                    }
                    let loops = std::mem::take(&mut self.loops);
                    let body = self.body(line, &keyword)?;
                    self.loops = loops;
                    self.template.defined.insert(name.clone(), body);
                    if keyword == "block" {
                        nodes.push(call);
                    }
                }
                _ => {
                    let pipeline = words.pipeline(0)?;
                    words.expect_end("the action")?;
                    nodes.push(Node::Print(pipeline));
                }
            }
        }
        Ok((nodes, None))
    }

    /// The nodes up to `end`.
    fn body(&mut self, line: usize, keyword: &str) -> Result<Vec<Node>, Problem> {
        self.enter(line)?;
        let (nodes, end) = self.nodes()?;
        self.depth -= 1;
        match end {
            Some((_, End::End, _)) => Ok(nodes),
            Some((line, End::Else, _)) => Err(Problem::new(line, format!("`{keyword}` has no `else`"))),
            None => Err(Problem::new(line, format!("`{keyword}` has no `end`"))),
        }
    }

    fn branch(&mut self, line: usize, keyword: &str, mut words: Words) -> Result<Node, Problem> {
        self.enter(line)?;
        let subject = words.pipeline(0)?;
        words.expect_end(keyword)?;
        let is_loop = keyword == "range";
        if !is_loop && subject.variables.len() > 1 {
            return Err(Problem::new(line, format!("`{keyword}` can set one variable")));
        }
        self.loops += usize::from(is_loop);
        let (body, end) = self.nodes()?;
        self.loops -= usize::from(is_loop);
        let missing = || Problem::new(line, format!("`{keyword}` has no `end`"));
        let otherwise = match end.ok_or_else(missing)? {
            (_, End::End, _) => Vec::new(),
            (else_line, End::Else, mut rest) => match rest.next().map(|word| word.kind) {
                None => {
                    let (nodes, end) = self.nodes()?;
                    match end.ok_or_else(missing)? {
                        (_, End::End, _) => nodes,
                        (line, End::Else, _) => return Err(Problem::new(line, "there is an `else` already")),
                    }
                }
                // `else if` and `else with` go on without an `end` of their own.
                Some(Kind::Name(name)) if !is_loop && (name == "if" || name == keyword) => {
                    vec![self.branch(else_line, &name, rest)?]
                }
                Some(_) => return Err(Problem::new(else_line, "after `else` there may be `if`")),
            },
        };
        self.depth -= 1;
        let branch = Branch {
            subject,
            body,
            otherwise,
        };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn enter(&mut self, line: usize) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::new(line, "the actions nest too deep"));
        }
        Ok(())
    }
}

/// `"name" pipeline`
fn call(line: usize, mut words: Words) -> Result<Node, Problem> {
    let Some(Kind::Text(name)) = words.next().map(|word| word.kind) else {
        return Err(Problem::new(line, "a template's name must be a text in quotes"));
    };
    let data = match words.peek() {
        Some(_) => Some(words.pipeline(0)?),
        None => None,
    };
    words.expect_end("the action")?;
    Ok(Node::Call { line, name, data })
}

/// The words of one action.
struct Words {
    line: usize,
    words: Vec<Word>,
    /// The number of those that were taken.
    taken: usize,
}

impl Words {
    fn new(line: usize, words: Vec<Word>) -> Self {
        Self { line, words, taken: 0 }
    }

    fn peek(&self) -> Option<&Word> {
        self.words.get(self.taken)
    }

    fn next(&mut self) -> Option<Word> {
        let word = self.peek()?.clone();
        self.taken += 1;
        self.line = word.line;
        Some(word)
    }

    fn next_is(&self, kind: &Kind) -> bool {
        self.peek().is_some_and(|word| word.kind == *kind)
    }

    fn expect_end(&mut self, after: &str) -> Result<(), Problem> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(Problem::new(word.line, format!("there is too much after {after}"))),
        }
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, Problem> {
        let line = self.line;
        if depth > MAX_DEPTH {
            return Err(Problem::new(line, "the parentheses nest too deep"));
        }
        let (variables, declares) = self.variables()?;
        let mut commands = vec![self.command(depth)?];
        while self.next_is(&Kind::Pipe) {
            self.next();
            let command = self.command(depth)?;
            if !matches!(
                command.operands.first().map(|first| &first.base),
                Some(Base::Function(_))
            ) {
                return Err(Problem::new(command.line, "after `|` there must be a function"));
            }
            commands.push(command);
        }
        Ok(Pipeline {
            line,
            variables,
            declares,
            commands,
        })
    }

    /// `$x :=`, `$x =` or `$k, $v :=`
    fn variables(&mut self) -> Result<(Vec<String>, bool), Problem> {
        let mut ahead = self.words.iter().skip(self.taken).map(|word| &word.kind);
        let mut names = Vec::new();
        loop {
            let Some(Kind::Variable(name)) = ahead.next() else {
                return Ok((Vec::new(), false));
            };
            names.push(name.clone());
            match ahead.next() {
                Some(Kind::Comma) => {}
                Some(kind @ (Kind::Declare | Kind::Assign)) => {
                    if names.iter().any(String::is_empty) {
                        return Err(Problem::new(self.line, "`$` itself can't be set"));
                    }
                    if names.len() > 2 {
                        return Err(Problem::new(self.line, "at most two variables can be set at once"));
                    }
                    // A word for each name and one after each.
                    let declares = *kind == Kind::Declare;
                    self.taken += 2 * names.len();
                    return Ok((names, declares));
                }
                _ => return Ok((Vec::new(), false)),
            }
        }
    }

    fn command(&mut self, depth: usize) -> Result<Command, Problem> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand(depth)? {
            operands.push(operand);
        }
        match operands.first().map(|first| &first.base) {
            None => return Err(Problem::new(self.line, "a value is missing")),
            Some(Base::Literal(_)) if operands.len() > 1 => {
                return Err(Problem::new(self.line, "a literal takes no arguments"));
            }
            _ => {}
        }
        Ok(Command {
            line: self.line,
            operands,
        })
    }

    fn operand(&mut self, depth: usize) -> Result<Option<Operand>, Problem> {
        if self.next_is(&Kind::Pipe) || self.next_is(&Kind::Close) {
            return Ok(None);
        }
        let Some(word) = self.next() else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        let base = match word.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) => Base::Variable(name),
            Kind::Text(text) => Base::Literal(Value::Text(text)),
            Kind::Integer(value) => Base::Literal(Value::Integer(value)),
            Kind::Float(value) => Base::Literal(Value::Float(value)),
            Kind::Name(name) => match name.as_str() {
                "true" => Base::Literal(Value::Bool(true)),
                "false" => Base::Literal(Value::Bool(false)),
                "nil" => Base::Literal(Value::Nothing),
                _ => Base::Function(name),
            },
            Kind::Open => {
                let inside = self.pipeline(depth + 1)?;
                if self.next().map(|word| word.kind) != Some(Kind::Close) {
                    return Err(Problem::new(word.line, "`(` has no `)`"));
                }
                Base::Pipeline(Box::new(inside))
            }
            Kind::Declare | Kind::Assign | Kind::Comma | Kind::Pipe | Kind::Close => {
                return Err(Problem::new(word.line, "a value was expected"));
            }
        };
        while let Some(Word {
            kind: Kind::Field(name),
            spaced: false,
            ..
        }) = self.peek()
        {
            fields.push(name.clone());
            self.next();
        }
        if !fields.is_empty() && matches!(base, Base::Literal(_) | Base::Function(_)) {
            return Err(Problem::new(word.line, "this has no fields"));
        }
        Ok(Some(Operand { base, fields }))
    }
}
