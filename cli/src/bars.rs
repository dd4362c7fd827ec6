//! Shows progress: bars on a terminal, plain lines elsewhere, JSON lines for programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use sealrs_image::progress::{Event, Progress};

/// Without a terminal, a long piece of work says every so often how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// JSON events of one piece come at most this often.
const JSON_EVERY: Duration = Duration::from_millis(500);

/// The one [`Progress`] of the command line.
#[derive(Debug)]
pub(crate) struct Bars {
    style: Style,
    tasks: Mutex<BTreeMap<u64, Shown>>,
}

#[derive(Debug)]
enum Style {
    Hidden,
    Drawn(MultiProgress),
    Lines,
    Json,
}

#[derive(Debug)]
struct Shown {
    what: String,
    within: Option<u64>,
    total: Option<u64>,
    done: u64,
    last: Instant,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn hidden() -> Self {
        Self::new(Style::Hidden)
    }

    pub(crate) fn drawn() -> Self {
        Self::new(Style::Drawn(MultiProgress::new()))
    }

    pub(crate) fn lines() -> Self {
        Self::new(Style::Lines)
    }

    pub(crate) fn json() -> Self {
        Self::new(Style::Json)
    }

    fn new(style: Style) -> Self {
        Self {
            style,
            tasks: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes the bars away before something else is printed.
    pub(crate) fn clear(&self) {
        if let Style::Drawn(bars) = &self.style {
            let _ = bars.clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.style {
            Style::Hidden => {}
            Style::Drawn(bars) => {
                let _ = bars.println(line);
            }
            Style::Lines | Style::Json => {
                let _ = writeln!(anstream::stderr().lock(), "{line}");
            }
        }
    }

    fn begin(&self, id: u64, within: Option<u64>, what: &str, total: Option<u64>) {
        let bar = match &self.style {
            Style::Drawn(bars) => Some(bars.add(new_bar(what, total))),
            _ => None,
        };
        match self.style {
            // A line for each part would hide those that matter.
            Style::Lines if within.is_none() => self.say(&match total {
                Some(total) => format!("{what} ({})", HumanBytes(total)),
                None => what.to_owned(),
            }),
            _ => {}
        }
        let now = Instant::now();
        let task = Shown {
            what: what.to_owned(),
            within,
            total,
            done: 0,
            last: now,
            started: now,
            bar,
        };
        if matches!(self.style, Style::Json) {
            self.json_event("begin", id, &task);
        }
        self.lock().insert(id, task);
    }

    fn advance(&self, id: u64, bytes: u64) {
        let mut tasks = self.lock();
        let Some(task) = tasks.get_mut(&id) else { return };
        task.done += bytes;
        if let Some(bar) = &task.bar {
            bar.set_position(task.done);
        }
        let every = match self.style {
            Style::Lines if task.within.is_some() => return,
            Style::Lines => LINE_EVERY,
            Style::Json => JSON_EVERY,
            Style::Hidden | Style::Drawn(_) => return,
        };
        if task.last.elapsed() < every {
            return;
        }
        task.last = Instant::now();
        if matches!(self.style, Style::Json) {
            self.json_event("progress", id, task);
        } else {
            self.say(&line(task));
        }
    }

    fn end(&self, id: u64) {
        let Some(task) = self.lock().remove(&id) else { return };
        if let Some(bar) = &task.bar {
            // The bar goes, a line that tells what was done stays.
            bar.finish_and_clear();
            if task.within.is_none() {
                self.say(&done(&task));
            }
        }
        if matches!(self.style, Style::Json) {
            self.json_event("end", id, &task);
        }
    }

    fn json_event(&self, event: &str, id: u64, task: &Shown) {
        let document = serde_json::json!({
            "event": event,
            "id": id,
            "within": task.within,
            "what": task.what,
            "bytes": task.done,
            "total": task.total,
        });
        self.say(&document.to_string());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Shown>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Begin {
                id,
                within,
                what,
                total,
            } => self.begin(id, within, what, total),
            Event::Advance { id, bytes } => self.advance(id, bytes),
            Event::End { id } => self.end(id),
            Event::Message(text) if matches!(self.style, Style::Json) => {
                self.say(&serde_json::json!({"event": "message", "message": text}).to_string());
            }
            Event::Warning(text) if matches!(self.style, Style::Json) => {
                self.say(&serde_json::json!({"event": "warning", "message": text}).to_string());
            }
            Event::Message(text) => self.say(text),
            Event::Warning(text) => self.say(&format!("warning: {text}")),
        }
    }
}

fn new_bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{msg:36!} {bar:24} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12} {eta:>4}",
        None => "{msg:36!} {spinner} {bytes:>10} {elapsed:>4}",
    };
    // The templates are fixed, so the default is never used.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn done(task: &Shown) -> String {
    let seconds = task.started.elapsed().as_secs_f64();
    match task.done {
        0 => task.what.clone(),
        done => format!("{} ({} in {seconds:.1} s)", task.what, HumanBytes(done)),
    }
}

fn line(task: &Shown) -> String {
    let seconds = task.started.elapsed().as_secs_f64().max(0.001);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    let rate = (task.done as f64 / seconds) as u64;
    match task.total {
        Some(total) => format!(
            "{}: {} of {}, {}/s",
            task.what,
            HumanBytes(task.done),
            HumanBytes(total),
            HumanBytes(rate)
        ),
        None => format!("{}: {}, {}/s", task.what, HumanBytes(task.done), HumanBytes(rate)),
    }
}
