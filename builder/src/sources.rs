//! The sources of COPY, ADD and APP with their patterns resolved.

use sealrs_image::error::Result;

use crate::add_tar::{self, Format};
use crate::context::{Context, Match};
use crate::kubefile::{Diagnostic, RemoteFile, Source, SourceKind};

/// A source that is there.
pub(crate) enum Found<'k> {
    /// In the build context, and what ADD does with it.
    Local(Match, Format),
    Remote(&'k RemoteFile),
    /// A heredoc's name and content.
    Inline(&'k str, &'k str),
}

/// Finds `sources` in the context; what can't be found goes to `problems`, each at its place.
pub(crate) fn find<'k>(
    context: &Context,
    sources: &'k [Source],
    unpack: bool,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Found<'k>> {
    let mut found = Vec::new();
    for source in sources {
        match &source.kind {
            SourceKind::Local(glob) => {
                let with_format = |file: Match| {
                    let format = if unpack && !file.is_folder {
                        add_tar::format(&file.path)?
                    } else {
                        Format::Other
                    };
                    Ok(Found::Local(file, format))
                };
                let matches = context.matches(glob);
                match matches.and_then(|matches| matches.into_iter().map(with_format).collect::<Result<Vec<_>>>()) {
                    Ok(matches) => found.extend(matches),
                    Err(error) => problems.push(Diagnostic::failure(source.span, &error)),
                }
            }
            SourceKind::Remote(file) => found.push(Found::Remote(file)),
            SourceKind::Inline(file) => found.push(Found::Inline(&file.name, &file.content)),
        }
    }
    found
}
