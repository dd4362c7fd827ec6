//! The documents `kind: Config` and `kind: Plugin`.

use serde::Deserialize;
use serde_saphyr::Spanned;

/// What is written into the rootfs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConfigSpec {
    /// The file in the rootfs, or in the app's folder.
    pub path: Spanned<String>,
    /// What is written.
    pub data: Spanned<String>,
    /// How it is written.
    #[serde(default)]
    pub strategy: Strategy,
    /// What is done to the data first: names with `|` between them.
    #[serde(default)]
    pub process: Option<Spanned<String>>,
    /// The app whose folder is meant.
    #[serde(default)]
    pub app_name: Option<String>,
}

/// How data gets into a file that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Instead of it.
    #[default]
    Overwrite,
    /// Into each YAML document of it.
    Merge,
}

/// A hook.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginSpec {
    /// `SHELL`.
    #[serde(rename = "type")]
    pub language: Spanned<String>,
    /// Phases with `|` between them.
    pub action: Spanned<String>,
    /// Roles with `|` between them.
    #[serde(default)]
    pub scope: Option<Spanned<String>>,
    /// The script.
    pub data: String,
}
