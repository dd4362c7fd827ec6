//! `sealrs lint`

use std::fs::File;
use std::io::Read;

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;
use sealrs_installer::clusterfile::{Clusterfile, MOST_BYTES, schema};

use crate::printer::Printer;

/// Tell all that is wrong in Clusterfiles, and all that may be, and do nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs lint Clusterfile
  sealrs gen clusterfile k3s.tar -m 10.0.0.1 | sealrs lint -
  sealrs lint --schema >clusterfile.schema.json")]
pub(crate) struct Lint {
    /// Clusterfiles, or `-` for one that comes through a pipe.
    #[arg(value_name = "FILE|-", required_unless_present_any = ["more", "schema"])]
    files: Vec<String>,

    /// The same as FILE. May be given several times.
    #[arg(short = 'f', long = "Clusterfile", alias = "clusterfile", value_name = "FILE|-")]
    more: Vec<String>,

    /// Print the JSON schema of Clusterfiles, for editors and other programs.
    #[arg(long, conflicts_with_all = ["files", "more"])]
    schema: bool,
}

impl Lint {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        if self.schema {
            return match serde_json::to_string_pretty(&schema()) {
                Ok(schema) => printer.text(&(schema + "\n")),
                Err(error) => Err(Error::new(ErrorKind::Internal, "cannot write the schema").because(error)),
            };
        }
        let files = [self.more, self.files].concat();
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let mut wrong = Vec::new();
        for file in &files {
            let before = errors.len();
            match text(file) {
                Ok(text) => {
                    let lint = Clusterfile::lint(called(file), &text);
                    errors.extend(lint.errors);
                    warnings.extend(lint.warnings);
                }
                Err(error) => errors.push(error.in_file(called(file))),
            }
            if errors.len() > before {
                wrong.push(called(file));
            }
        }
        let document = serde_json::json!({ "files": files, "errors": errors.len(), "warnings": warnings });
        printer.result(&document, |_| told(&files, &warnings, errors.is_empty()))?;
        match errors.len() {
            0 => Ok(()),
            count => {
                let what = format!("{} in {}", counted(count, "error"), wrong.join(", "));
                Err(Error::together(what, errors))
            }
        }
    }
}

/// What errors call the file.
pub(super) fn called(file: &str) -> &str {
    match file {
        "-" => "stdin",
        file => file,
    }
}

pub(super) fn text(file: &str) -> Result<String> {
    let place = || format!("cannot read {}", called(file));
    let source: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin().lock()),
        file => Box::new(File::open(file).or_read(place)?),
    };
    let mut bytes = Vec::new();
    // One more shows that it is too long.
    source
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .or_read(place)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1;
        Error::new(ErrorKind::Input, format!("it is not in UTF-8, from line {line} on"))
            .hint("save it in UTF-8; a ClusterImage is looked at with `sealrs inspect`")
    })
}

fn told(files: &[String], warnings: &[Finding], right: bool) -> String {
    let mut texts: Vec<String> = warnings.iter().map(|warning| warning.text("warning: ")).collect();
    if right {
        let files: Vec<&str> = files.iter().map(|file| called(file)).collect();
        let more = match warnings.len() {
            0 => String::new(),
            count => format!(", {}", counted(count, "warning")),
        };
        texts.push(format!("{}: no errors{more}", files.join(", ")));
    }
    texts.join("\n\n")
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
