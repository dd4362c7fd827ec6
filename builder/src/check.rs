//! What can be known to be wrong before anything is fetched or packed: sources that are not in the build context, and
//! apps that nobody defines.

use std::collections::BTreeSet;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::Result;
use sealrs_image::platform::Platform;

use crate::base::Finding;
use crate::context::Context;
use crate::kubefile::{Action, BaseImage, Kubefile};
use crate::sources::{Found, find};

/// Checks a whole Kubefile, which was read for `platform`; gives the sources of each step.
///
/// # Errors
/// Everything that is wrong, together with what was wrong when the file was read.
pub(crate) fn check<'k>(
    kubefile: &'k Kubefile,
    platform: &Platform,
    context: &Context,
    finding: &Finding<'_>,
) -> Result<Vec<Vec<Found<'k>>>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for step in kubefile.steps() {
        sources.push(match &step.action {
            Action::Copy(copy) => find(context, &copy.sources, copy.unpack, &mut problems),
            Action::App(app) => find(context, &app.sources, false, &mut problems),
            _ => Vec::new(),
        });
    }
    // Of a file without mistakes the base is had next, and its apps are checked then. Else nothing is fetched any more.
    if kubefile.is_wrong() || !problems.is_empty() {
        for step in kubefile.steps() {
            let Action::From(from) = &step.action else { continue };
            match peek(from, platform, finding) {
                Ok(Some(inherited)) => problems.extend(kubefile.check_apps(&inherited)),
                Ok(None) => {}
                Err(error) => problems.push(step.failure(error)),
            }
        }
    }
    kubefile.check(problems)?;
    Ok(sources)
}

/// The names of the apps of a base that is at hand.
fn peek(from: &BaseImage, target: &Platform, finding: &Finding<'_>) -> Result<Option<BTreeSet<String>>> {
    match from {
        BaseImage::Scratch => Ok(Some(BTreeSet::new())),
        BaseImage::Image { name, platform } => {
            let base = finding.peek(name, platform.as_ref().unwrap_or(target))?;
            Ok(base.as_ref().map(app_names))
        }
    }
}

/// The names of an image's apps.
pub(crate) fn app_names(image: &ClusterImage) -> BTreeSet<String> {
    let apps = &image.extension.applications;
    apps.iter().map(|app| app.name.clone()).collect()
}
