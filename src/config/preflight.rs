//! What a valid configuration needs on this machine: its directories, its password file, rsync and ssh.
//! Looks only; repairs nothing and never reads a password.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::Config;
use super::places::Places;
use super::report::{Problem, Problems};
use super::text::Span;

/// Mode bits with which rsync refuses a password file: readable or writable by others.
const OTHERS_BITS: u32 = 0o006;

/// Everything that would make the start fail, with its place in the file.
pub fn preflight(config: &Config, places: &Places) -> Problems {
    let mut problems = Problems::default();
    for (mirror, span) in config.mirrors.iter().zip(&places.watches) {
        if let Err((sentence, help)) = look_at_watch(&mirror.watch) {
            problems.push(Problem::error(span.clone(), sentence).help(help));
        }
    }
    look_at_password(config, places, &mut problems);
    look_at_programs(config, places, &mut problems);
    look_at_fail_log(config, places, &mut problems);
    problems
}

/// The executable `name` in the directories of `PATH`, or in the usual ones when there is no `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let candidates = std::env::split_paths(&path).map(|dir| dir.join(name));
    let is_executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    };
    candidates.into_iter().find(is_executable)
}

fn look_at_watch(watch: &Path) -> Result<(), (String, &'static str)> {
    let shown = watch.display();
    let meta = std::fs::metadata(watch).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "create it, or correct the path",
            _ => "make it accessible for this user",
        };
        (format!("the watch path {shown} cannot be used: {error}"), help)
    })?;
    if !meta.is_dir() {
        return Err((
            format!("the watch path {shown} is no directory"),
            "name the directory that holds the file",
        ));
    }
    match std::fs::read_dir(watch) {
        Ok(_) => Ok(()),
        Err(error) => Err((
            format!("the watch path {shown} cannot be read: {error}"),
            "make it readable for this user",
        )),
    }
}

fn look_at_password(config: &Config, places: &Places, problems: &mut Problems) {
    let mut remotes = config.mirrors.iter().flat_map(|mirror| &mirror.remotes);
    let file = remotes.find_map(|remote| remote.options.password_file.as_ref());
    let (Some(file), Some(span)) = (file, &places.password_file) else {
        return;
    };
    let shown = file.display();
    if let Err((sentence, help)) = look_at_password_file(file) {
        problems.push(Problem::error(span.clone(), sentence).help(help));
    }
    if config.mirrors.iter().any(|mirror| file.starts_with(&mirror.watch)) {
        let sentence = format!("the password file {shown} lies in the watch path and is mirrored");
        let problem = Problem::warning(span.clone(), sentence);
        problems.push(problem.help("move it to a place outside"));
    }
}

fn look_at_password_file(file: &Path) -> Result<(), (String, String)> {
    let shown = file.display();
    let meta = std::fs::metadata(file).map_err(|error| {
        let sentence = format!("the password file {shown} cannot be used: {error}");
        (sentence, "create it with the password as its only line, mode 600".to_owned())
    })?;
    if !meta.is_file() {
        let sentence = format!("the password file {shown} is no regular file");
        return Err((sentence, "name a file with the password as its only line".to_owned()));
    }
    if meta.mode() & OTHERS_BITS != 0 {
        let mode = meta.mode() & 0o7777;
        let sentence = format!(
            "the password file {shown} has the mode {mode:o}; rsync refuses one that others can read"
        );
        return Err((sentence, format!("run: chmod 600 {shown}")));
    }
    if rustix::process::geteuid().is_root() && meta.uid() != 0 {
        let sentence = format!(
            "the password file {shown} belongs to the user {}; rsync run by root refuses it",
            meta.uid()
        );
        return Err((sentence, format!("run: chown root {shown}")));
    }
    if meta.len() == 0 {
        let sentence = format!("the password file {shown} is empty");
        return Err((sentence, "write the password into it, as its only line".to_owned()));
    }
    // Opening says what the mode bits cannot, such as access rules of other kinds.
    std::fs::File::open(file).map(drop).map_err(|error| {
        let sentence = format!("the password file {shown} cannot be read: {error}");
        (sentence, "make it readable for this user".to_owned())
    })
}

fn look_at_programs(config: &Config, places: &Places, problems: &mut Problems) {
    if config.mirrors.iter().all(|mirror| mirror.remotes.is_empty()) {
        return;
    }
    let mut need = |name: &str, span: Span| {
        if find_program(name).is_none() {
            let sentence = format!("the program {name} is not installed, or not in PATH");
            let help = format!(
                "install the package {}",
                if name == "ssh" { "openssh-client" } else { name }
            );
            problems.push(Problem::error(span, sentence).help(help));
        }
    };
    need("rsync", places.params.clone());
    if let Some(span) = &places.ssh {
        need("ssh", span.clone());
    }
}

fn look_at_fail_log(config: &Config, places: &Places, problems: &mut Problems) {
    let path = &config.fail_log.path;
    let shown = path.display();
    if path.is_dir() {
        let sentence = format!("the fail log {shown} is a directory");
        let problem = Problem::error(places.fail_log.clone(), sentence);
        problems.push(problem.help("name a file"));
    }
    if let Some(dir) = path.parent().and_then(existing)
        && let Err(error) = accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
    {
        let error = std::io::Error::from(error).kind();
        let sentence = format!(
            "the fail log {shown} cannot be written, for {} refuses it: {error}",
            dir.display()
        );
        let problem = Problem::warning(places.fail_log.clone(), sentence);
        problems.push(
            problem.help("name another place, or make that directory writable for this user"),
        );
    }
    if config.mirrors.iter().any(|mirror| path.starts_with(&mirror.watch)) {
        let sentence = format!("the fail log {shown} lies in the watch path and is mirrored");
        let problem = Problem::warning(places.fail_log.clone(), sentence);
        problems.push(problem.help("move it to a place outside"));
    }
}

/// The directory, or the nearest above it that is there: those in between are made.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.symlink_metadata().is_ok())
}
