//! The images of a chart: what helm makes of it with each set of the user's values, or what its values say.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use tempfile::TempDir;

use crate::discovery::helm::Rendering;
use crate::discovery::node::Node;
use crate::discovery::scan::Scan;
use crate::discovery::{Discovered, Discovery, file, stage, values};

/// What names the template of an object in helm's output.
const SOURCE: &str = "# Source: ";

/// A chart, a folder or an archive.
pub(super) struct Chart {
    path: PathBuf,
    /// As the user knows it.
    shown: String,
    staged: TempDir,
    /// The files of values for it. Each set is one rendering.
    sets: Vec<Vec<PathBuf>>,
}

impl Chart {
    pub(super) fn open(path: &Path, shown: &str) -> Result<Self> {
        let staged = stage::stage(path)?;
        let mut chart = Self {
            path: path.to_owned(),
            shown: shown.to_owned(),
            staged,
            sets: Vec::new(),
        };
        chart.sets = chart.sets()?;
        Ok(chart)
    }

    /// The files beside the chart that hold values for it, and nothing else.
    pub(super) fn values_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.sets.iter().flatten()
    }

    pub(super) fn read(&self, discovery: &Discovery, discovered: &mut Discovered) {
        if let Err(error) = self.images(discovery, discovered) {
            discovered.wrong.push(error.in_file(&self.shown));
        }
    }

    fn images(&self, discovery: &Discovery, discovered: &mut Discovered) -> Result<()> {
        let description = self.description()?;
        // A library holds parts of other charts' templates.
        if description.text_of("type") == Some("library") {
            return Ok(());
        }
        self.refuse_templates_of_files()?;
        for set in &self.sets {
            let own = set.iter().map(|path| (path.clone(), self.beside(path)));
            let given = discovery.values.iter();
            let given = given.map(|path| (path.clone(), path.display().to_string()));
            let files: Vec<(PathBuf, String)> = own.chain(given).collect();
            let by_values = values::read(&self.folder(), &self.shown, &files)?;
            let files: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
            let Some(helm) = discovery.helm() else {
                discovered.notes.push(format!(
                    "{}: there is no helm to render it, so its values were read: images that only its templates \
                     name may be missing",
                    self.shown
                ));
                if let Some(wrong) = by_values.nothing(&self.shown) {
                    discovered.wrong.push(wrong);
                }
                for (scan, file) in by_values.scans {
                    discovered.add(scan, &file, Some(&self.shown), None);
                }
                continue;
            };
            let rendering = Rendering {
                helm: &helm,
                chart: &self.folder(),
                values: &files,
                kube_version: discovery.kube_version.as_deref(),
                api_versions: &discovery.api_versions,
                home: self.staged.path(),
            };
            for (template, text) in objects(&rendering.run()?) {
                let shown = format!("{}/{template}", self.shown);
                discovered.add(Scan::of(text, &shown), &shown, Some(&self.shown), Some(&by_values));
            }
        }
        Ok(())
    }

    /// A file beside the chart, as the user knows it.
    fn beside(&self, path: &Path) -> String {
        let folder = Path::new(&self.shown).parent().unwrap_or(Path::new(""));
        folder.join(path.file_name().unwrap_or_default()).display().to_string()
    }

    fn folder(&self) -> PathBuf {
        self.staged.path().join("chart")
    }

    fn description(&self) -> Result<Node> {
        let text = file::read(&self.folder().join("Chart.yaml"), "Chart.yaml")?;
        Node::read(&text)
            .ok()
            .and_then(|documents| documents.into_iter().next())
            .ok_or_else(|| Error::new(ErrorKind::Input, "its Chart.yaml can't be understood"))
    }

    /// The sets of values: of `NAME.values.yaml` alone, and with each `NAME.SET.values.yaml` over it. `NAME` is the
    /// chart's, or that of its folder or archive.
    fn sets(&self) -> Result<Vec<Vec<PathBuf>>> {
        let Some(folder) = self.path.parent() else {
            return Ok(vec![Vec::new()]);
        };
        let own = self.path.file_name().unwrap_or_default().to_string_lossy();
        let own = own.trim_end_matches(".tgz").trim_end_matches(".tar.gz");
        let name = self.description()?.text_of("name").unwrap_or(own).to_owned();
        let (mut common, mut special) = (Vec::new(), Vec::new());
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        for entry in fs::read_dir(folder).or_read(|| format!("cannot read {}", folder.display()))? {
            let entry = entry.or_read(|| format!("cannot read {}", folder.display()))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(stem) = [".values.yaml", ".values.yml"]
                .iter()
                .find_map(|end| file.strip_suffix(end))
            else {
                continue;
            };
            let is_ours = |name: &str| stem == name;
            let is_set = |name: &str| {
                stem.strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix('.'))
                    .is_some_and(|set| !set.is_empty() && !set.contains('.'))
            };
            if is_ours(own) || is_ours(&name) {
                common.push(absolute(&entry.path())?);
            } else if is_set(own) || is_set(&name) {
                special.push(absolute(&entry.path())?);
            }
        }
        common.sort();
        special.sort();
        let mut sets = vec![common.clone()];
        sets.extend(special.into_iter().map(|file| [common.clone(), vec![file]].concat()));
        Ok(sets)
    }

    /// What `run` fills in is not there yet, so what it gives can't be known.
    fn refuse_templates_of_files(&self) -> Result<()> {
        for name in ["values.yaml.tmpl", "Chart.yaml.tmpl"] {
            if self.folder().join(name).is_file() {
                let what = format!("its `{name}` is filled in when the cluster is made: its images are not known");
                return Err(
                    Error::new(ErrorKind::Input, what).hint("name the images that it will have in an image list")
                );
            }
        }
        Ok(())
    }
}

/// A path that helm takes for no address.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .or_read(|| format!("cannot read the values {}", path.display()))
}

/// The objects in helm's output, each with the file in the chart that it is from.
fn objects(output: &str) -> Vec<(&str, &str)> {
    let mut objects = Vec::new();
    let mut rest = output;
    while let Some((_, after)) = rest.split_once(SOURCE) {
        let (template, text) = after.split_once('\n').unwrap_or((after, ""));
        let end = text.find(&format!("\n---\n{SOURCE}")).unwrap_or(text.len());
        let (object, others) = text.split_at(end);
        // The first folder is the chart's name.
        let template = template.split_once('/').map_or(template, |(_, path)| path);
        objects.push((template.trim(), object));
        rest = others;
    }
    if objects.is_empty() && !output.trim().is_empty() {
        objects.push(("templates", output));
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_know_their_templates() {
        let output =
            "---\n# Source: app/templates/a.yaml\na: 1\n---\n# Source: app/charts/sub/templates/b.yaml\nb: 1\n";
        assert_eq!(
            objects(output),
            [("templates/a.yaml", "a: 1"), ("charts/sub/templates/b.yaml", "b: 1\n")]
        );
        assert_eq!(objects("a: 1\n"), [("templates", "a: 1\n")]);
        assert_eq!(objects(""), []);
    }
}
