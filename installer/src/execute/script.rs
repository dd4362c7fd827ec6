//! Runs a script of the image to its end. What it prints goes to a log file and, line by line, to who watches. If a
//! killed run left the same script running, that one is ended first: two at once would be worse than one again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::{Event, Progress};

use super::Executor;
use super::wait::Watch;
use crate::action::Program;
use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::{command, process};

/// How long a script that was left behind may take to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(executor: &Executor<'_>, step: &str, program: &Program) -> Result<()> {
    let environment = executor.program_environment(&program.env);
    run_program(
        executor.files,
        step,
        &program.argv,
        &program.folder,
        &environment,
        executor.progress,
    )
}

/// Runs a program that waits for a service, and ends it when the service's log says that it waits in vain.
pub(super) fn run_watched(executor: &Executor<'_>, step: &str, program: &Program, service: &str) -> Result<()> {
    let services = executor.services();
    let mut watch = Watch::begin(&services, service)?;
    let environment = executor.program_environment(&program.env);
    let done = run_while(
        executor.files,
        step,
        (&program.argv, &program.folder),
        &environment,
        executor.progress,
        || watch.look_at_log(executor),
    );
    let said = fs::read_to_string(executor.files.log().join(format!("{step}.log"))).unwrap_or_default();
    match done {
        Ok(()) => match executor.runtime.left_out(&said) {
            Some(left_out) => Err(Error::new(ErrorKind::Step, left_out.cause).hint(left_out.remedy)),
            None => Ok(()),
        },
        // What it says itself counts more than what the service says at the same time.
        Err(error) => match executor.runtime.diagnose(&said).or_else(|| watch.diagnose(executor)) {
            Some(diagnosis) if error.remedy() != Some(diagnosis.remedy.as_str()) => {
                Err(Error::new(error.kind(), diagnosis.cause)
                    .because(error)
                    .hint(diagnosis.remedy))
            }
            _ => Err(error),
        },
    }
}

/// Runs a program in a folder, with its output in the log of `step`.
///
/// # Errors
/// [`ErrorKind::Step`] with the end of its output when it fails.
pub(crate) fn run_program(
    files: &ClusterFiles,
    step: &str,
    argv: &[String],
    folder: &Path,
    environment: &Environment,
    progress: &dyn Progress,
) -> Result<()> {
    run_while(files, step, (argv, folder), environment, progress, || Ok(()))
}

/// The same for as long as nothing is found wrong.
fn run_while(
    files: &ClusterFiles,
    step: &str,
    (argv, folder): (&[String], &Path),
    environment: &Environment,
    progress: &dyn Progress,
    mut look: impl FnMut() -> Result<()>,
) -> Result<()> {
    let marker = marker(files, step)?;
    process::end(&process::readers_of(&marker), PATIENCE);
    let log = files.log().join(format!("{step}.log"));
    make_folder(&files.log())?;
    let place = || format!("cannot write the log {}", log.display());
    let output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&log)
        .or_io(place)?;
    let errors = output.try_clone().or_io(place)?;
    let mut prepared = command::prepare(argv, environment, &super::program_folders(files))?;
    let name = prepared.get_program().to_string_lossy().into_owned();
    prepared
        .current_dir(folder)
        .stdin(Stdio::from(
            File::open(&marker).or_io(|| format!("cannot open {}", marker.display()))?,
        ))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors));
    let mut child = prepared.spawn().map_err(|error| command::cannot_start(&name, error))?;
    let mut tail = Tail::of(&log)?;
    let status = loop {
        let ended = child.try_wait().or_io(|| format!("cannot wait for `{name}`"))?;
        tail.tell(progress)?;
        match ended {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(30)),
        }
        if let Err(wrong) = look() {
            process::end(&process::readers_of(&marker), PATIENCE);
            let _ = child.wait();
            return Err(wrong);
        }
    };
    tail.finish(progress)?;
    if status.success() {
        return crate::files::remove_file(&marker);
    }
    let text = fs::read(&log).unwrap_or_default();
    let said = command::last_lines(&String::from_utf8_lossy(&text), 20);
    let failure = Error::new(ErrorKind::Step, format!("`{}` failed: {status}", argv.join(" ")))
        .hint(format!("its output is in {}", log.display()));
    Err(if said.is_empty() {
        failure
    } else {
        failure.because(Error::new(ErrorKind::Step, said))
    })
}

/// The file that a step's script has as standard input: empty, and the mark by which it is found.
fn marker(files: &ClusterFiles, step: &str) -> Result<PathBuf> {
    make_folder(&files.running())?;
    let path = files.running().join(step);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .or_io(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).or_io(|| format!("cannot make the folder {}", path.display()))
}

/// Follows a growing log.
struct Tail {
    file: File,
    position: u64,
    line: Vec<u8>,
}

impl Tail {
    fn of(log: &Path) -> Result<Self> {
        Ok(Self {
            file: File::open(log).or_io(|| format!("cannot read the log {}", log.display()))?,
            position: 0,
            line: Vec::new(),
        })
    }

    /// Tells all that is there when the program has ended. What it left running may go on to write.
    fn finish(&mut self, progress: &dyn Progress) -> Result<()> {
        let length = self.file.metadata().or_io(|| "cannot read a log")?.len();
        while self.position < length {
            let before = self.position;
            self.tell(progress)?;
            // It was cut meanwhile.
            if self.position == before {
                break;
            }
        }
        if !self.line.is_empty() {
            self.tell_line(progress);
        }
        Ok(())
    }

    fn tell_line(&mut self, progress: &dyn Progress) {
        let line = String::from_utf8_lossy(&self.line);
        progress.event(Event::Message(&format!("  {}", line.trim_end())));
        self.line.clear();
    }

    /// Tells the lines that were added.
    fn tell(&mut self, progress: &dyn Progress) -> Result<()> {
        /// A line that never ends is told in pieces.
        const LONGEST: usize = 4096;
        let place = || "cannot read a log";
        let mut added = Vec::new();
        self.file.seek(SeekFrom::Start(self.position)).or_io(place)?;
        let read = (&self.file).take(1 << 20).read_to_end(&mut added).or_io(place)?;
        self.position += read as u64;
        for byte in added {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() >= LONGEST {
                self.tell_line(progress);
            }
        }
        Ok(())
    }
}
