//! Flags of the commands that choose among an image's platforms.

use clap::Args;
use sealrs_image::platform::Platform;
use sealrs_image::wanted::Wanted;

/// Which platforms of an image are taken.
#[derive(Debug, Args)]
pub(crate) struct Platforms {
    /// Platform to take. May be given several times; of an image that has several, this host's if it is not given.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Take all platforms that the image has.
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
}

impl From<Platforms> for Wanted {
    fn from(flags: Platforms) -> Self {
        match (flags.all_platforms, flags.platforms.is_empty()) {
            (true, _) => Self::All,
            (false, true) => Self::Fitting(vec![Platform::host()]),
            (false, false) => Self::Platforms(flags.platforms),
        }
    }
}
