//! `kill -9` at every point at which a run or a deletion makes something durable: the same command again ends in the
//! same state, and a deletion leaves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use sealrs_image::spec::Descriptor;
use serde_json::json;
use support::{Place, free_port, processes_of, snapshot, succeeds, text};

const INIT: &str = "set -eu\necho made > \"$OUT/made\"\necho cluster > \"$KUBECONFIG\"\n";
const RESET: &str = "rm -f \"$OUT/made\"\n";

/// System calls after which something is durable or visible.
const CALLS: [&str; 4] = ["fdatasync", "fsync", "rename", "renameat"];

fn has_strace() -> bool {
    let has = Command::new("strace").arg("-V").output().is_ok();
    if !has {
        println!("skipped: strace is not installed");
    }
    has
}

/// Runs the program so that it is killed at its `when`th such call; says whether it came to that.
fn killed(place: &Place, arguments: &[String], call: &str, when: usize) -> bool {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=KILL:when={when}");
    let strace = ["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let output = place.command(&strace).args(arguments).output().unwrap();
    assert!(
        output.status.success() || text(&output).contains("signal: 9"),
        "{call} {when}: {}",
        text(&output)
    );
    !output.status.success()
}

struct Case {
    place: Place,
    image: Descriptor,
    port: u16,
    variable: String,
}

impl Case {
    fn new(port: u16) -> Self {
        let place = Place::new();
        let files = [
            ("registry/keep", "x"),
            ("scripts/runtime/init.sh", INIT),
            ("scripts/runtime/reset.sh", RESET),
        ]
        .map(|(path, content)| (path, content.as_bytes()));
        let extension = json!({"launch": {"cmds": ["echo app > \"$OUT/app\"; rm \"$OUT/app\""]}});
        let image = place.image("script", &files, &extension);
        let out = place.path("out");
        fs::create_dir(&out).unwrap();
        let variable = format!("OUT={}", out.display());
        Self {
            place,
            image,
            port,
            variable,
        }
    }

    fn arguments(&self) -> Vec<String> {
        self.place.arguments(&self.image, self.port, &[&self.variable])
    }

    fn run(&self) {
        succeeds(&self.place.run(&self.image, self.port, &[&self.variable]));
    }

    /// What is there in the end, but for the names that differ from place to place.
    fn state(&self) -> BTreeMap<String, String> {
        let mut state = snapshot(&self.place.data());
        state.extend(snapshot(&self.place.path("out")));
        for name in ["plan.json", "environment.json", "options.json"] {
            state.insert(name.to_owned(), String::new());
        }
        state
    }

    /// Nothing is left but, where a deletion was killed between its last two calls, an empty root.
    fn assert_gone(&self, why: &str) {
        let root = self.place.root();
        if root.exists() {
            assert_eq!(snapshot(&root), BTreeMap::new(), "{why}");
        }
        assert_eq!(snapshot(&self.place.path("out")), BTreeMap::new(), "{why}");
        assert_eq!(processes_of(&root), Vec::<String>::new(), "{why}");
    }
}

#[test]
fn a_killed_run_ends_as_if_nothing_had_been() {
    if !has_strace() {
        return;
    }
    let port = free_port();
    let whole = Case::new(port);
    whole.run();
    let expected = whole.state();
    succeeds(&whole.place.delete());
    whole.assert_gone("whole");
    for call in CALLS {
        let mut points = 0;
        for when in 1.. {
            let case = Case::new(port);
            if !killed(&case.place, &case.arguments(), call, when) {
                break;
            }
            points += 1;
            // A deletion works after any half of a run, and the run that follows it as well.
            if when % 2 == 0 {
                succeeds(&case.place.delete());
                case.assert_gone(&format!("deleted after {call} {when}"));
            }
            case.run();
            assert_eq!(case.state(), expected, "{call} {when}");
            succeeds(&case.place.delete());
            case.assert_gone(&format!("{call} {when}"));
        }
        println!("{call}: killed at {points} points");
        assert!(points >= 2, "{call}: {points}");
    }
}

#[test]
fn a_killed_deletion_is_finished_by_the_next() {
    if !has_strace() {
        return;
    }
    let port = free_port();
    let root = |case: &Case| {
        [
            "delete".to_owned(),
            case.place.root().display().to_string(),
            "c".to_owned(),
        ]
    };
    for call in ["fdatasync", "unlink", "rmdir"] {
        let mut points = 0;
        for when in 1.. {
            let case = Case::new(port);
            case.run();
            if !killed(&case.place, &root(&case), call, when) {
                case.assert_gone("whole deletion");
                break;
            }
            points += 1;
            if case.place.data().join("host-manifest").exists() {
                let run = case.place.run(&case.image, case.port, &[&case.variable]);
                assert_eq!(run.status.code(), Some(8), "{call} {when}: {}", text(&run));
            }
            succeeds(&case.place.delete());
            case.assert_gone(&format!("{call} {when}"));
        }
        println!("{call}: killed at {points} points");
        assert!(points >= 2, "{call}: {points}");
    }
}
