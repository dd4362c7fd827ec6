//! The journal: which run it is, and which of its steps were begun and done. One JSON document a line, each synced
//! before anything that follows from it, so that a run that was killed is taken up where it ended.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::inputs::Inputs;
use crate::lines::{self, Lines};
use crate::member::Role;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// A run, and what it was asked for.
    Run(Box<Inputs>),
    /// Hosts come or go.
    Change(Change),
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

/// Which hosts come and which go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Those that come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(IpAddr, Role)>,
    /// Those that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<IpAddr>,
}

/// In words.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = self
            .add
            .iter()
            .map(|(address, role)| format!("{role} {address} is added"));
        let removed = self.remove.iter().map(|address| format!("{address} is removed"));
        let all: Vec<String> = added.chain(removed).collect();
        f.write_str(&all.join(", "))
    }
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
    base: Option<Digest>,
    change: Option<Change>,
    generation: u32,
    begun: BTreeSet<String>,
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
            base: None,
            change: None,
            generation: 1,
            begun: BTreeSet::new(),
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
            Line::Change(change) => {
                // One that was given up before it had a plan has changed nothing.
                self.base = self.plan.take().or(self.base.take());
                self.change = Some(change);
                self.generation += 1;
                self.stage = Stage::Running;
            }
            Line::Plan(digest) => self.plan = Some(digest),
            Line::Begin(step) => {
                self.begun.insert(step);
            }
            Line::Done(step) => {
                self.done.insert(step);
            }
            Line::Finished => {
                self.stage = Stage::Finished;
                self.base = None;
                self.change = None;
            }
            Line::Deleting => self.stage = Stage::Deleting,
        }
    }

    fn write(&mut self, line: Line) -> Result<()> {
        self.lines.append(&line)?;
        self.take_in(line);
        Ok(())
    }

    /// What the run was asked for.
    #[must_use]
    pub fn inputs(&self) -> Option<&Inputs> {
        self.inputs.as_deref()
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

    /// Whether a step was begun.
    #[must_use]
    pub fn is_begun(&self, step: &str) -> bool {
        self.begun.contains(step)
    }

    /// The digest of the plan before the change that is under way.
    #[must_use]
    pub fn base(&self) -> Option<Digest> {
        self.base
    }

    /// The change of hosts that is under way.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// Counts what was done with the cluster: 1 is its installation, more are changes.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many steps were done.
    #[must_use]
    pub fn count_done(&self) -> usize {
        self.done.len()
    }

    /// Begins a change of the cluster's hosts, or takes up the same one again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the cluster is not installed, or something else is under way; disk errors.
    pub fn start_change(&mut self, cluster: &str, change: Change) -> Result<()> {
        let conflict = |what: String, hint: String| Err(Error::new(ErrorKind::Conflict, what).hint(hint));
        match (self.stage, &self.change) {
            (Stage::Fresh, _) => conflict(
                format!("there is no cluster `{cluster}`"),
                "install it first with `sealrs run`, or name it with `--cluster`".to_owned(),
            ),
            (Stage::Deleting, _) => Err(being_deleted(cluster)),
            (Stage::Running, None) => conflict(
                format!("the installation of cluster `{cluster}` has not ended"),
                "finish it first: run the command again that it was begun with".to_owned(),
            ),
            (Stage::Running, Some(other)) if *other == change => Ok(()),
            // Nothing was done yet: it may be given up for another one.
            (Stage::Running, Some(other)) if self.plan.is_some() => conflict(
                format!("another change of cluster `{cluster}` has not ended: {other}"),
                "finish it first: run the command again that it was begun with".to_owned(),
            ),
            (Stage::Running, Some(_)) | (Stage::Finished, _) => self.write(Line::Change(change)),
        }
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
        if let (Stage::Running, Some(change)) = (self.stage, &self.change) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("a change of cluster `{cluster}` has not ended: {change}"),
            )
            .hint("finish it first: run the command again that it was begun with"));
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

    /// Whether there is an installation to be taken up again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is none.
    pub fn check_open(&self, cluster: &str) -> Result<()> {
        let what = match self.stage {
            Stage::Running => return Ok(()),
            Stage::Finished => format!("nothing of cluster `{cluster}` was interrupted: it is installed"),
            Stage::Fresh => format!("nothing was begun of cluster `{cluster}`"),
            Stage::Deleting => return Err(being_deleted(cluster)),
        };
        Err(Error::new(ErrorKind::Conflict, what)
            .hint("leave `--resume` out, or name another cluster with `--cluster`"))
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
    fn changes_come_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let inputs = Inputs::new(Digest::of(b"image"), &Options::default());
        let host = |text: &str| -> IpAddr { text.parse().unwrap() };
        let add = Change {
            add: vec![(host("10.0.0.4"), Role::Node)],
            remove: Vec::new(),
        };
        let remove = Change {
            add: Vec::new(),
            remove: vec![host("10.0.0.4")],
        };
        let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
        let mut journal = Journal::open(&path).unwrap();
        let refused =
            |journal: &mut Journal, change: &Change| journal.start_change("c", change.clone()).unwrap_err().to_string();
        assert!(refused(&mut journal, &add).contains("there is no cluster"));
        journal.start("c", inputs.clone()).unwrap();
        journal.planned(first).unwrap();
        assert!(refused(&mut journal, &add).contains("has not ended"));
        journal.finished().unwrap();
        // One that got no plan can be given up for another one.
        journal.start_change("c", remove.clone()).unwrap();
        journal.start_change("c", add.clone()).unwrap();
        assert!(
            journal
                .check("c", &inputs)
                .unwrap_err()
                .to_string()
                .contains("node 10.0.0.4 is added")
        );
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(
            (journal.plan(), journal.base(), journal.generation()),
            (None, Some(first), 3)
        );
        journal.planned(second).unwrap();
        assert!(refused(&mut journal, &remove).contains("node 10.0.0.4 is added"));
        journal.start_change("c", add).unwrap();
        assert_eq!(journal.generation(), 3, "it is the same one");
        journal.finished().unwrap();
        assert_eq!(
            (journal.plan(), journal.base(), journal.change()),
            (Some(second), None, None)
        );
        journal.check("c", &inputs).unwrap();
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, "hello\n").unwrap();
        assert_eq!(Journal::open(&path).unwrap_err().kind(), ErrorKind::Integrity);
    }
}
