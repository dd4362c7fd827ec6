//! What a user writes into the rootfs, before its templates are filled in (sealer's `kind: Config`).

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{files, yaml};

/// The largest file that data is merged into, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Something that is written into a file of the rootfs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Configuration {
    /// The file, below the rootfs.
    pub path: String,
    /// What is written.
    pub data: String,
    /// Whether its fields come over those of the file, instead of the whole.
    pub merge: bool,
    /// What is done to the data first, in this order.
    pub process: Vec<Process>,
}

/// The data may hold secrets.
impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Configuration({})", self.path)
    }
}

/// What is done to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Process {
    /// What follows is done to the value of each field.
    Value,
    /// YAML becomes JSON.
    ToJson,
    /// Text becomes base64.
    ToBase64,
    /// The fields become the data of a Secret.
    ToSecret,
}

impl Configuration {
    /// What the file holds then, if it holds this `before`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when data or file are not what the configuration takes them for.
    pub(crate) fn apply(&self, before: Option<&str>) -> Result<String> {
        self.text(before)
            .context(|| format!("cannot write what is configured into {} of the rootfs", self.path))
    }

    fn text(&self, before: Option<&str>) -> Result<String> {
        let data = self.processed()?;
        if self.process.contains(&Process::ToSecret) {
            return self.secret(fields(data)?, before);
        }
        match (before, self.merge) {
            (Some(before), true) => merged(before, &fields(data)?),
            _ => Ok(match data {
                Data::Text(text) => text,
                Data::Fields(fields) => yaml::document(&Value::Object(fields)),
            }),
        }
    }

    fn processed(&self) -> Result<Data> {
        let each = self.process.contains(&Process::Value);
        if !each {
            let text = self.process.iter().try_fold(self.data.clone(), |text, process| {
                Ok::<_, Error>(match process {
                    Process::ToJson => read(&text)?.to_string(),
                    Process::ToBase64 => STANDARD.encode(&text),
                    Process::Value | Process::ToSecret => text,
                })
            })?;
            return Ok(Data::Text(text));
        }
        let mut all = fields(Data::Text(self.data.clone()))?;
        for value in all.values_mut() {
            for process in &self.process {
                *value = match (process, &value) {
                    (Process::ToJson, value) => Value::String(value.to_string()),
                    (Process::ToBase64, Value::String(text)) => Value::String(STANDARD.encode(text)),
                    (Process::ToBase64, value) => Value::String(STANDARD.encode(value.to_string())),
                    (Process::Value | Process::ToSecret, value) => (*value).clone(),
                };
            }
        }
        Ok(Data::Fields(all))
    }

    /// The fields as the data of the Secret that is there.
    fn secret(&self, data: Map<String, Value>, before: Option<&str>) -> Result<String> {
        let hint =
            "`toSecret` needs a file with a Secret: add one to the image, or write it with a Config before this one";
        let before = before.ok_or_else(|| Error::new(ErrorKind::Input, "the file is not there").hint(hint))?;
        let mut documents = documents(before)?;
        let is_secret = |document: &&mut Value| document.get("kind").and_then(Value::as_str) == Some("Secret");
        let Some(Value::Object(secret)) = documents.iter_mut().find(is_secret) else {
            return Err(Error::new(ErrorKind::Input, "there is no Secret in the file").hint(hint));
        };
        match secret.get_mut("data") {
            Some(Value::Object(old)) if self.merge => old.extend(data),
            _ => drop(secret.insert("data".to_owned(), Value::Object(data))),
        }
        Ok(written(&documents))
    }
}

enum Data {
    Text(String),
    Fields(Map<String, Value>),
}

/// Writes all of it into an unpacked rootfs.
///
/// # Errors
/// As [`Configuration::apply`]; disk errors.
pub(crate) fn write_all(rootfs: &Path, configurations: &[Configuration]) -> Result<()> {
    for configuration in configurations {
        let path = inside(rootfs, &configuration.path)?;
        let mode = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.len() > MOST_BYTES => {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("`{}` of the image is too large to be configured", configuration.path),
                ));
            }
            Ok(metadata) => std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777,
            Err(_) => 0o644,
        };
        let before = match fs::read_to_string(&path) {
            Err(error) if files::is_absent(&error) => None,
            text => Some(text.or_io(|| format!("cannot read {}", path.display()))?),
        };
        let text = configuration.apply(before.as_deref())?;
        fs::create_dir_all(sealrs_image::file::folder_of(&path))
            .or_io(|| format!("cannot make the folder of {}", path.display()))?;
        files::write(&path, text.as_bytes(), mode)?;
    }
    Ok(())
}

/// The path of a file below the rootfs; no link of the image leads out of it.
fn inside(rootfs: &Path, path: &str) -> Result<std::path::PathBuf> {
    let mut at = rootfs.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        at.push(part);
        if part == ".." || at.is_symlink() {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{path}` leads through a link, or out of the rootfs"),
            )
            .hint("name the file itself, below the rootfs"));
        }
    }
    Ok(at)
}

fn read(text: &str) -> Result<Value> {
    serde_saphyr::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Input, "the data is no YAML").because(Error::new(ErrorKind::Input, error.to_string()))
    })
}

fn fields(data: Data) -> Result<Map<String, Value>> {
    let text = match data {
        Data::Fields(fields) => return Ok(fields),
        Data::Text(text) => text,
    };
    match read(&text)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::new(ErrorKind::Input, "the data has no fields").hint("write `field: value`")),
    }
}

fn documents(text: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(text).map_err(|error| {
        Error::new(ErrorKind::Input, "what the file holds is no YAML")
            .because(Error::new(ErrorKind::Input, error.to_string()))
    })
}

fn written(documents: &[Value]) -> String {
    let texts: Vec<String> = documents.iter().map(yaml::document).collect();
    texts.join("---\n")
}

/// The documents of a text with fields over those that each has.
fn merged(text: &str, data: &Map<String, Value>) -> Result<String> {
    let mut documents = documents(text)?;
    documents.retain(|document| !document.is_null());
    if documents.is_empty() {
        documents.push(Value::Object(Map::new()));
    }
    for document in &mut documents {
        let Value::Object(fields) = document else {
            return Err(Error::new(
                ErrorKind::Input,
                "a document of the file has no fields to merge into",
            ));
        };
        overlay(fields, data);
    }
    Ok(written(&documents))
}

/// Puts fields over others, at any depth; lists are replaced.
pub(crate) fn overlay(fields: &mut Map<String, Value>, data: &Map<String, Value>) {
    for (key, value) in data {
        match (fields.get_mut(key), value) {
            (Some(Value::Object(fields)), Value::Object(data)) => overlay(fields, data),
            _ => drop(fields.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(data: &str, merge: bool, process: &[Process]) -> Configuration {
        Configuration {
            path: "etc/x.yaml".to_owned(),
            data: data.to_owned(),
            merge,
            process: process.to_vec(),
        }
    }

    fn value(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn overwrites_and_merges_into_every_document() {
        let overwrite = configuration("a: 1\n", false, &[]);
        assert_eq!(overwrite.apply(Some("b: 2")).unwrap(), "a: 1\n");
        let merge = configuration("spec: {a: 1, list: [x]}", true, &[]);
        let text = merge
            .apply(Some("kind: A\nspec: {b: 2, list: [y, z]}\n---\nkind: B\n---\n"))
            .unwrap();
        let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(
            all,
            [
                value("{kind: A, spec: {a: 1, b: 2, list: [x]}}"),
                value("{kind: B, spec: {a: 1, list: [x]}}"),
            ]
        );
        assert_eq!(merge.apply(None).unwrap(), "spec: {a: 1, list: [x]}");
        for bad in ["[1]", "a: {{ .X }}\n"] {
            assert_eq!(merge.apply(Some(bad)).unwrap_err().kind(), ErrorKind::Input, "{bad}");
        }
    }

    #[test]
    fn processes_values_into_a_secret() {
        let secret = configuration(
            "config: {replicas: 3}\nname: x",
            false,
            &[Process::Value, Process::ToJson, Process::ToBase64, Process::ToSecret],
        );
        let text = secret.apply(Some("kind: Secret\ndata: {old: eA==}\n")).unwrap();
        assert_eq!(
            value(&text),
            value("{kind: Secret, data: {config: eyJyZXBsaWNhcyI6M30=, name: Ingi}}")
        );
        let plain = configuration("name: x", true, &[Process::Value, Process::ToBase64, Process::ToSecret]);
        let text = plain.apply(Some("kind: Secret\ndata: {old: eA==}\n")).unwrap();
        assert_eq!(value(&text), value("{kind: Secret, data: {name: eA==, old: eA==}}"));
        for before in [None, Some("kind: ConfigMap")] {
            let error = secret.apply(before).unwrap_err();
            assert!(
                error.remedy().unwrap().contains("needs a file with a Secret"),
                "{error:?}"
            );
        }
        let whole = configuration("a: [1]", false, &[Process::ToJson]);
        assert_eq!(whole.apply(None).unwrap(), r#"{"a":[1]}"#);
    }

    #[test]
    fn nothing_is_written_outside_of_the_rootfs() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        std::os::unix::fs::symlink("..", rootfs.join("up")).unwrap();
        for path in ["../x", "up/x", "a/../../x"] {
            let configuration = Configuration {
                path: path.to_owned(),
                ..configuration("a: 1", false, &[])
            };
            assert!(write_all(&rootfs, &[configuration]).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_all(&rootfs, &[configuration("a: 1", false, &[])]).unwrap();
        assert_eq!(fs::read_to_string(rootfs.join("etc/x.yaml")).unwrap(), "a: 1");
    }
}
