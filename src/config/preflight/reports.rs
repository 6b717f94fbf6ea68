//! What alerts, heartbeat, status file, event log and lists of remotes need on this machine: directories, programs, secrets.
//! The mirror starts without them, so these are warnings.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::spans::{ReportNeed, Spans};
use crate::config::values::name_of;
use crate::ground::program::{SENDMAILS, find_program};
use crate::secret::Secret;
use crate::xml::report::{Problem, Problems};

/// Everything that is missing, with its position in the file.
pub fn preflight_reports(spans: &Spans) -> Problems {
    let mut problems = Problems::default();
    for (field, need) in &spans.needs {
        let Err((found, help)) = look_at(need) else { continue };
        let sentence = format!("{}: {found}", name_of(field));
        problems.push(Problem::warning(field.span.clone(), sentence).help(help));
    }
    problems
}

fn look_at(need: &ReportNeed) -> Result<(), (String, String)> {
    match need {
        ReportNeed::File(path) => look_at_file(path),
        ReportNeed::Program(name) => look_at_program(name),
        ReportNeed::Sendmail => match SENDMAILS.iter().any(|name| find_program(name).is_some()) {
            true => Ok(()),
            false => {
                let found = "there is no sendmail on this machine, so no mail can be sent";
                Err((
                    found.to_owned(),
                    "install a mail program such as msmtp-mta or postfix".to_owned(),
                ))
            }
        },
        // What is in the file itself cannot be missing.
        ReportNeed::Secret(Secret::Written(_)) => Ok(()),
        ReportNeed::Secret(secret) => secret.read().map(drop).map_err(|reason| {
            let help = match secret {
                Secret::Environment(_) => {
                    "set it where sersync2 is started, such as Environment= of the service"
                }
                _ => "write it on the first line of that file, readable for this user",
            };
            (reason, help.to_owned())
        }),
    }
}

fn look_at_file(path: &Path) -> Result<(), (String, String)> {
    let shown = path.display();
    let dir = path.parent().unwrap_or(Path::new("/"));
    if path.is_dir() {
        return Err((format!("{shown} is a directory"), "name a file".to_owned()));
    }
    if !dir.is_dir() {
        let found = format!("the directory {} does not exist", dir.display());
        return Err((found, format!("run: mkdir -p {}", dir.display())));
    }
    accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| {
        let error = std::io::Error::from(error).kind();
        let found = format!("{} cannot be written: {error}", dir.display());
        (found, "make it writable for this user, or name another place".to_owned())
    })
}

fn look_at_program(name: &str) -> Result<(), (String, String)> {
    if find_program(name).is_some() {
        return Ok(());
    }
    let (found, help) = match Path::new(name).is_file() {
        true => (format!("{name} is not executable"), format!("run: chmod +x {name}")),
        false => {
            (format!("there is no program {name}"), "install it, or correct the path".to_owned())
        }
    };
    Err((found, help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reports_need_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("notify");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let found = |need| look_at(&need).err().map(|(found, _)| found).unwrap_or_default();
        let named = script.display().to_string();
        assert_eq!(found(ReportNeed::Program(named.clone())), format!("{named} is not executable"));
        assert_eq!(found(ReportNeed::Program("/no/such".into())), "there is no program /no/such");
        assert_eq!(found(ReportNeed::Program("sh".into())), "");
        assert_eq!(found(ReportNeed::File(dir.path().join("status.json"))), "");
        assert!(found(ReportNeed::File(dir.path().into())).ends_with("is a directory"));
        let missing = dir.path().join("no/status.json");
        assert!(found(ReportNeed::File(missing)).ends_with("no does not exist"));
        assert!(
            found(ReportNeed::Secret(Secret::parse("env:SERSYNC_NOT_SET"))).contains("is not set")
        );
        assert_eq!(found(ReportNeed::Secret(Secret::parse("https://h/x"))), "");
    }
}
