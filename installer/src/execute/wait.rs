//! Waits until something holds, reading the service's log meanwhile: a failure that is known ends the wait in seconds.

use std::thread;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::Event;

use super::Executor;
use crate::action::Probe;
use crate::command::last_lines;
use crate::probe;
use crate::runtime::Diagnosis;
use crate::service::{LogMark, Services, Status};

/// How often a service may be started again before that counts as a failure.
const RESTARTS: u64 = 3;
/// How long a log may say that all is lost before that is believed: some programs recover at their next start.
const DOUBT: Duration = Duration::from_secs(3);
/// How often somebody who watches is told that it goes on.
const TELL: Duration = Duration::from_secs(15);

pub(super) fn wait(
    executor: &Executor<'_>,
    probes: &[Probe],
    seconds: u64,
    service: Option<&str>,
    remedy: Option<&str>,
) -> Result<()> {
    let services = executor.services();
    let mut watch = match service {
        Some(name) => Some(Watch::begin(&services, name)?),
        None => None,
    };
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(seconds);
    let mut told = begun;
    for probe in probes {
        let mut pause = Duration::from_millis(20);
        loop {
            let Err(not_yet) = probe::check(probe, &services) else {
                break;
            };
            if let Some(watch) = watch.as_mut() {
                watch.look(executor)?;
            }
            if Instant::now() >= deadline {
                let error = Error::new(
                    ErrorKind::Step,
                    format!("waited {seconds} seconds in vain until {probe}"),
                );
                return Err(match watch {
                    Some(watch) => explain(error, not_yet, &watch, executor),
                    None => remedy.into_iter().fold(error.because(not_yet), Error::hint),
                });
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                let reason = not_yet.causes().pop().unwrap_or_else(|| not_yet.to_string());
                let text = format!("still waiting until {probe}: {}", last_lines(&reason, 1));
                executor.progress.event(Event::Message(&text));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
    service.map_or(Ok(()), |name| is_complete(executor, &services, name))
}

/// Fails when the service is ready but has said that it left something out.
fn is_complete(executor: &Executor<'_>, services: &Services, name: &str) -> Result<()> {
    let Some(left_out) = executor.runtime.left_out(&services.log_of_start(name)) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Step,
        format!("service {name} runs, but not with all that the image brings"),
    )
    .because(Error::new(ErrorKind::Step, left_out.cause))
    .hint(left_out.remedy))
}

fn explain(error: Error, not_yet: Error, watch: &Watch<'_>, executor: &Executor<'_>) -> Error {
    let log = watch.log();
    match executor.runtime.diagnose(&log) {
        Some(diagnosis) => error
            .because(Error::new(ErrorKind::Step, diagnosis.cause).because(not_yet))
            .hint(diagnosis.remedy),
        None => error.because(not_yet).hint(log_hint(watch.name, &log)),
    }
}

fn log_hint(name: &str, log: &str) -> String {
    format!("the log of service {name} ends with:\n{}", last_lines(log, 10))
}

/// A service that is watched while something is waited for.
pub(super) struct Watch<'w> {
    services: &'w Services,
    name: &'w str,
    mark: LogMark,
    before: Status,
    suspected: Option<Instant>,
    looked: Instant,
}

impl<'w> Watch<'w> {
    pub(super) fn begin(services: &'w Services, name: &'w str) -> Result<Self> {
        let before = services.status(name)?;
        Ok(Self {
            services,
            name,
            // Old failures in the log say nothing about this start; a service that fails says so again.
            mark: services.mark(name),
            before,
            suspected: None,
            looked: Instant::now(),
        })
    }

    fn log(&self) -> String {
        self.services.log_since(self.name, self.mark)
    }

    /// What the log means by now.
    pub(super) fn diagnose(&self, executor: &Executor<'_>) -> Option<Diagnosis> {
        executor.runtime.diagnose(&self.log())
    }

    /// Fails when the log has said for a while that all is lost. The service may end and start as it likes.
    pub(super) fn look_at_log(&mut self, executor: &Executor<'_>) -> Result<()> {
        if self.looked.elapsed() < Duration::from_millis(900) {
            return Ok(());
        }
        self.looked = Instant::now();
        match self.diagnose(executor) {
            Some(diagnosis) if diagnosis.hopeless && self.is_sure() => Err(self.failure(diagnosis)),
            _ => Ok(()),
        }
    }

    fn is_sure(&mut self) -> bool {
        self.suspected.get_or_insert_with(Instant::now).elapsed() >= DOUBT
    }

    /// Fails when the service has.
    fn look(&mut self, executor: &Executor<'_>) -> Result<()> {
        if self.looked.elapsed() < Duration::from_millis(900) {
            return Ok(());
        }
        self.looked = Instant::now();
        let status = self.services.status(self.name)?;
        let log = self.log();
        let diagnosis = executor.runtime.diagnose(&log);
        let ended = status.failed || status.restarts.saturating_sub(self.before.restarts) >= RESTARTS;
        match diagnosis {
            Some(diagnosis) if ended => Err(self.failure(diagnosis)),
            Some(diagnosis) if diagnosis.hopeless && self.is_sure() => Err(self.failure(diagnosis)),
            Some(diagnosis) if diagnosis.hopeless => Ok(()),
            _ if ended => Err(
                Error::new(ErrorKind::Step, format!("service {} does not stay up", self.name))
                    .hint(log_hint(self.name, &log)),
            ),
            _ => Ok(()),
        }
    }

    fn failure(&self, diagnosis: Diagnosis) -> Error {
        Error::new(ErrorKind::Step, format!("service {} failed", self.name))
            .because(Error::new(ErrorKind::Step, diagnosis.cause))
            .hint(diagnosis.remedy)
    }
}
