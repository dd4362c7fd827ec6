//! The document `kind: Application`.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::config::Strategy;

/// Which apps are launched, and how.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ApplicationSpec {
    /// Commands instead of apps.
    pub cmds: Vec<String>,
    /// The apps.
    pub launch_apps: Vec<String>,
    /// What is special about apps.
    pub configs: Vec<AppConfig>,
}

/// What is special about an app.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppConfig {
    /// The app.
    pub name: Spanned<String>,
    /// `NAME=VALUE` for its commands and templates.
    #[serde(default)]
    pub env: Vec<Spanned<String>>,
    /// What is written into its folder.
    #[serde(default)]
    pub files: Vec<AppFile>,
    /// How it is launched.
    #[serde(default)]
    pub launch: Commands,
    /// How it is removed.
    #[serde(default)]
    pub delete: Commands,
}

/// What is written into an app's folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppFile {
    /// The file.
    pub path: Spanned<String>,
    /// How it is written.
    #[serde(default)]
    pub strategy: Strategy,
    /// What is written.
    pub data: String,
}

/// Commands, one after the other.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// The commands.
    pub cmds: Vec<String>,
}
