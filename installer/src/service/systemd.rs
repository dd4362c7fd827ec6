//! Services as units of systemd. Starting never blocks: a unit that tells when it is ready may never do so.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealrs_image::error::Result;
use sealrs_image::file;

use super::{LogMark, Service, Status};
use crate::command::{self, Finished};
use crate::files;

/// systemctl answers at once unless systemd itself hangs; stopping may take a unit's stop time.
const LIMIT: Duration = Duration::from_secs(120);

/// Where the unit of a service lies.
pub(crate) fn unit_path(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/systemd/system/{name}.service"))
}

pub(super) fn start(service: &Service) -> Result<()> {
    let unit = install(service)?;
    systemctl(&["start", "--no-block", &unit])?.checked(|| format!("cannot start unit {unit}"))?;
    Ok(())
}

pub(super) fn restart(service: &Service) -> Result<()> {
    let unit = install(service)?;
    systemctl(&["restart", "--no-block", &unit])?.checked(|| format!("cannot start unit {unit} anew"))?;
    Ok(())
}

/// Writes and enables the unit, whose name it gives.
fn install(service: &Service) -> Result<String> {
    let path = unit_path(&service.name);
    let unit = render(service);
    if std::fs::read_to_string(&path).ok().as_deref() != Some(unit.as_str()) {
        files::write(&path, unit.as_bytes(), 0o644)?;
    }
    systemctl(&["daemon-reload"])?.checked(|| "systemd did not read its units".to_owned())?;
    let name = format!("{}.service", service.name);
    systemctl(&["enable", &name])?.checked(|| format!("cannot enable unit {name}"))?;
    Ok(name)
}

pub(super) fn remove(name: &str) -> Result<()> {
    let unit = format!("{name}.service");
    if unit_path(name).exists() || status(name)?.active {
        systemctl(&["disable", &unit])?;
        systemctl(&["stop", &unit])?.checked(|| format!("cannot stop unit {unit}"))?;
    }
    file::remove_partials(&unit_path(name))?;
    files::remove_file(&unit_path(name))?;
    systemctl(&["daemon-reload"])?.checked(|| "systemd did not read its units".to_owned())?;
    // Fails where the unit never failed: then there is nothing to forget.
    systemctl(&["reset-failed", &unit])?;
    Ok(())
}

pub(super) fn status(name: &str) -> Result<Status> {
    let unit = format!("{name}.service");
    let shown = systemctl(&["show", "--property=ActiveState,NRestarts", &unit])?;
    Ok(parse_status(&shown.stdout))
}

fn parse_status(shown: &str) -> Status {
    let value = |key: &str| {
        shown
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
    };
    Status {
        active: value("ActiveState") == "active",
        failed: value("ActiveState") == "failed",
        restarts: value("NRestarts").parse().unwrap_or(0),
    }
}

pub(super) fn mark() -> LogMark {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    LogMark(now.map_or(0, |since| since.as_secs()))
}

pub(super) fn log_since(name: &str, mark: LogMark) -> String {
    let unit = format!("{name}.service");
    // k0s writes hundreds of lines while it starts.
    journal(&["-n", "4000", "-u", &unit, &format!("--since=@{}", mark.0)])
}

/// Each start of a unit has an id of its own, which is with each line that it logs (systemd.journal-fields(7)).
pub(super) fn log_of_start(name: &str) -> String {
    let unit = format!("{name}.service");
    let shown = systemctl(&["show", "--property=InvocationID", "--value", &unit]);
    match shown.as_ref().map(|shown| shown.stdout.trim()) {
        Ok(id) if !id.is_empty() => journal(&["-n", "50000", &format!("_SYSTEMD_INVOCATION_ID={id}")]),
        _ => String::new(),
    }
}

fn journal(arguments: &[&str]) -> String {
    let command = ["journalctl", "--no-pager", "-o", "cat"];
    // Without a journal there is no log to show.
    command::run(&[&command, arguments].concat(), LIMIT).map_or_else(|_| String::new(), |done| done.stdout)
}

fn systemctl(arguments: &[&str]) -> Result<Finished> {
    command::run(&[&["systemctl"], arguments].concat(), LIMIT)
}

/// The unit file (systemd.unit(5), systemd.service(5)).
fn render(service: &Service) -> String {
    let mut unit = format!(
        "# Written by sealrs.\n\
         [Unit]\n\
         Description={}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type={}\n",
        service.description.replace('%', "%%"),
        if service.notifies { "notify" } else { "simple" },
    );
    for (name, value) in &service.env {
        unit.push_str(&format!("Environment={}\n", quote(&format!("{name}={value}"), false)));
    }
    for line in &service.unit_lines {
        unit.push_str(line);
        unit.push('\n');
    }
    let words: Vec<String> = service.argv.iter().map(|word| quote(word, true)).collect();
    unit.push_str(&format!(
        "Restart=always\n\
         RestartSec={}s\n\
         ExecStart={}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        service.restart_seconds,
        words.join(" "),
    ));
    unit
}

/// A word of a unit file: quoted if need be, `%` and (in commands) `$` doubled, as they have a meaning there.
fn quote(word: &str, command: bool) -> String {
    let mut text = word.replace('%', "%%");
    if command {
        text = text.replace('$', "$$");
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:=,@%$+[]".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn renders_a_unit() {
        let service = Service {
            name: "k3s".into(),
            description: "100% Kubernetes".into(),
            argv: ["/usr/local/bin/k3s", "server", "a b", "$HOME"]
                .map(str::to_owned)
                .to_vec(),
            env: BTreeMap::from([("A".to_owned(), "say \"hi\"".to_owned())]),
            notifies: true,
            restart_seconds: 5,
            unit_lines: vec!["KillMode=process".into(), "Delegate=yes".into()],
        };
        assert_eq!(
            render(&service),
            "# Written by sealrs.\n\
             [Unit]\n\
             Description=100%% Kubernetes\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=notify\n\
             Environment=\"A=say \\\"hi\\\"\"\n\
             KillMode=process\n\
             Delegate=yes\n\
             Restart=always\n\
             RestartSec=5s\n\
             ExecStart=/usr/local/bin/k3s server \"a b\" $$HOME\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n"
        );
    }

    #[test]
    fn reads_what_systemctl_shows() {
        let status = parse_status("ActiveState=activating\nNRestarts=3\n");
        assert_eq!((status.active, status.failed, status.restarts), (false, false, 3));
        assert!(parse_status("NRestarts=0\nActiveState=active\n").active);
        assert!(parse_status("ActiveState=failed\n").failed);
    }
}
