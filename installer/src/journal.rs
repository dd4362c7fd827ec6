//! The journal: which run it is, and which of its steps were begun and done. One JSON document a line, each synced
//! before anything that follows from it, so that a run that was killed is taken up where it ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::inputs::Inputs;
use crate::lines::{self, Lines};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// A run, and what it was asked for.
    Run(Box<Inputs>),
    /// The plan was decided and written.
    Plan(Digest),
    /// A step was begun.
    Begin(String),
    /// A step was done.
    Done(String),
    /// All steps were done.
    Finished,
    /// The cluster's deletion was begun.
    Deleting,
}

/// How far a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing was begun.
    Fresh,
    /// A run is under way, or was interrupted.
    Running,
    /// The run has finished.
    Finished,
    /// A deletion is under way, or was interrupted.
    Deleting,
}

/// The open journal of a cluster.
#[derive(Debug)]
pub struct Journal {
    lines: Lines,
    inputs: Option<Box<Inputs>>,
    plan: Option<Digest>,
    done: BTreeSet<String>,
    stage: Stage,
}

impl Journal {
    /// Opens the journal at `path`, or a fresh one.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it holds what no sealrs writes; disk errors.
    pub fn open(path: &Path) -> Result<Self> {
        let (lines, read) = Lines::open::<Line>(path)?;
        Ok(Self::replay(lines, read))
    }

    /// Reads the journal at `path` without opening it for writing.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn read(path: &Path) -> Result<Self> {
        let read = lines::read::<Line>(path)?;
        Ok(Self::replay(Lines::unopened(PathBuf::from(path)), read))
    }

    fn replay(lines: Lines, read: Vec<Line>) -> Self {
        let mut journal = Self {
            lines,
            inputs: None,
            plan: None,
            done: BTreeSet::new(),
            stage: Stage::Fresh,
        };
        for line in read {
            journal.take_in(line);
        }
        journal
    }

    fn take_in(&mut self, line: Line) {
        match line {
            Line::Run(inputs) => {
                self.inputs = Some(inputs);
                self.stage = Stage::Running;
            }
            Line::Plan(digest) => self.plan = Some(digest),
            Line::Begin(_) => {}
            Line::Done(step) => {
                self.done.insert(step);
            }
            Line::Finished => self.stage = Stage::Finished,
            Line::Deleting => self.stage = Stage::Deleting,
        }
    }

    fn write(&mut self, line: Line) -> Result<()> {
        self.lines.append(&line)?;
        self.take_in(line);
        Ok(())
    }

    /// How far it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The digest of the plan, once it was decided.
    #[must_use]
    pub fn plan(&self) -> Option<Digest> {
        self.plan
    }

    /// Whether a step was done.
    #[must_use]
    pub fn is_done(&self, step: &str) -> bool {
        self.done.contains(step)
    }

    /// Begins a run, or takes up the same run again.
    ///
    /// # Errors
    /// As [`Journal::check`]; disk errors.
    pub fn start(&mut self, cluster: &str, inputs: Inputs) -> Result<()> {
        self.check(cluster, &inputs)?;
        match self.inputs {
            None => self.write(Line::Run(Box::new(inputs))),
            Some(_) => Ok(()),
        }
    }

    /// Whether a run can begin or be taken up again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the journal is of a run that was asked for something else, or of a deletion.
    pub fn check(&self, cluster: &str, inputs: &Inputs) -> Result<()> {
        if self.stage == Stage::Deleting {
            return Err(being_deleted(cluster));
        }
        let known = match &self.inputs {
            Some(known) if **known != *inputs => known,
            _ => return Ok(()),
        };
        let state = match self.stage {
            Stage::Finished => "is installed",
            _ => "is being installed",
        };
        let what = if known.image() == inputs.image() {
            let differences = inputs.differences(known).join("; ");
            format!("cluster `{cluster}` {state} with other options: {differences}")
        } else {
            format!("cluster `{cluster}` {state} from another image, {}", known.image())
        };
        Err(Error::new(ErrorKind::Conflict, what).hint(format!(
            "repeat the command it was begun with, or remove it first with \
             `sealrs delete --all --force --cluster {cluster}`, or choose another name with `--cluster`"
        )))
    }

    /// Notes the plan.
    ///
    /// # Errors
    /// Disk errors.
    pub fn planned(&mut self, plan: Digest) -> Result<()> {
        self.write(Line::Plan(plan))
    }

    /// Notes that a step begins.
    ///
    /// # Errors
    /// Disk errors.
    pub fn begin(&mut self, step: &str) -> Result<()> {
        self.write(Line::Begin(step.to_owned()))
    }

    /// Notes that a step is done.
    ///
    /// # Errors
    /// Disk errors.
    pub fn done(&mut self, step: &str) -> Result<()> {
        self.write(Line::Done(step.to_owned()))
    }

    /// Notes that all steps are done.
    ///
    /// # Errors
    /// Disk errors.
    pub fn finished(&mut self) -> Result<()> {
        self.write(Line::Finished)
    }

    /// Notes that the cluster is being deleted.
    ///
    /// # Errors
    /// Disk errors.
    pub fn deleting(&mut self) -> Result<()> {
        self.write(Line::Deleting)
    }
}

/// The error for a cluster whose deletion has not ended.
pub(crate) fn being_deleted(cluster: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the deletion of cluster `{cluster}` was begun and has not ended"),
    )
    .hint(format!(
        "finish it with `sealrs delete --all --force --cluster {cluster}`, then run again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use std::fs;

    #[test]
    fn is_taken_up_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let inputs = Inputs::new(Digest::of(b"image"), &Options::default());
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.stage(), Stage::Fresh);
        journal.start("c", inputs.clone()).unwrap();
        journal.begin("one").unwrap();
        journal.done("one").unwrap();
        journal.begin("two").unwrap();
        drop(journal);
        // A line that was cut off is not there.
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(br#"{"done":"tw"#);
        fs::write(&path, &torn).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.stage(), Stage::Running);
        assert!(journal.is_done("one") && !journal.is_done("two") && !journal.is_done("tw"));
        journal.start("c", inputs).unwrap();
        journal.done("two").unwrap();
        journal.finished().unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.is_done("two"));
        assert_eq!(journal.stage(), Stage::Finished);
    }

    #[test]
    fn another_run_or_a_deletion_is_a_conflict() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let image = Digest::of(b"image");
        let inputs = Inputs::new(image, &Options::default());
        let options = Options {
            registry_port: 5001,
            ..Options::default()
        };
        let mut journal = Journal::open(&path).unwrap();
        journal.start("c", inputs.clone()).unwrap();
        let other = journal.start("c", Inputs::new(image, &options)).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Conflict);
        assert_eq!(
            other.to_string(),
            "cluster `c` is being installed with other options: --registry-port was 5000 and is now 5001"
        );
        let other = journal
            .start("c", Inputs::new(Digest::of(b"new"), &options))
            .unwrap_err();
        assert!(other.to_string().contains("another image"));
        journal.deleting().unwrap();
        let deleting = Journal::open(&path).unwrap().start("c", inputs);
        assert_eq!(deleting.unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, "hello\n").unwrap();
        assert_eq!(Journal::open(&path).unwrap_err().kind(), ErrorKind::Integrity);
    }
}
