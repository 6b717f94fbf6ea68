//! What a valid configuration needs on this machine: its directories, its password file, rsync and ssh.
//! Looks only; repairs nothing and never reads a password.

mod reports;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::Config;
use super::spans::Spans;
pub use reports::preflight_reports;

use crate::destination::Destination;
use crate::ground::octal::unescape;
use crate::ground::program::find_program;
use crate::xml::report::{Problem, Problems};
use crate::xml::text::Span;

/// Mode bits with which rsync refuses a password file: readable or writable by others.
const OTHERS_BITS: u32 = 0o006;

/// Everything that would make the start fail, with its position in the file.
pub fn preflight(config: &Config, spans: &Spans) -> Problems {
    let mut problems = Problems::default();
    for (mirror, span) in config.mirrors.iter().zip(&spans.watches) {
        if let Err((sentence, help)) = look_at_watch(&mirror.watch) {
            problems.push(Problem::error(span.clone(), sentence).help(help));
        }
    }
    let locals = config.mirrors.iter().flat_map(|mirror| {
        mirror.remotes.iter().filter_map(|remote| match &remote.destination {
            Destination::Local { path } => Some((path, &mirror.watch)),
            _ => None,
        })
    });
    for ((path, watch), span) in locals.zip(&spans.locals) {
        if let Err((sentence, help)) = look_at_local(path, watch).and_then(|()| may_write(path)) {
            problems.push(Problem::error(span.clone(), sentence).help(help));
        }
    }
    look_at_password(config, spans, &mut problems);
    look_at_programs(config, spans, &mut problems);
    look_at_fail_log(config, spans, &mut problems);
    problems
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

/// Checks a local target directory: it must exist, and be mounted if /etc/fstab lists its mount point.
///
/// # Errors
/// What is wrong, and what to do.
pub fn look_at_local(path: &Path, watch: &Path) -> Result<(), (String, &'static str)> {
    let shown = path.display();
    if let Some(mount_point) = unmounted(path) {
        let sentence = format!(
            "the remote {shown} is not mounted: /etc/fstab names the mount point {}",
            mount_point.display()
        );
        return Err((sentence, "mount it"));
    }
    let meta = std::fs::metadata(path).map_err(|error| {
        let sentence = format!("the directory of the remote {shown} cannot be used: {error}");
        (sentence, "mount it or create it; sersync makes no directory for a remote on this machine")
    })?;
    if !meta.is_dir() {
        return Err((format!("the remote {shown} is no directory"), "name a directory"));
    }
    // The paths themselves do not show where symbolic links lead.
    if let (Ok(real), Ok(watch)) = (path.canonicalize(), watch.canonicalize())
        && (real.starts_with(&watch) || watch.starts_with(&real))
    {
        let sentence = format!("the remote {shown} and its watch path lie within each other");
        return Err((sentence, "name a directory outside of what is watched"));
    }
    Ok(())
}

/// Checks that a local target directory can be written.
///
/// # Errors
/// What is wrong, and what to do.
pub fn may_write(path: &Path) -> Result<(), (String, &'static str)> {
    accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| {
        let (shown, error) = (path.display(), std::io::Error::from(error).kind());
        (format!("the remote {shown} cannot be written: {error}"), "make it writable for this user")
    })
}

/// The mount point in /etc/fstab that `path` needs and where nothing is mounted now.
fn unmounted(path: &Path) -> Option<PathBuf> {
    unmounted_of(|point| path.starts_with(point))
}

/// A mount point in /etc/fstab that `path` needs, or that lies below it, and where nothing is mounted now.
pub fn unmounted_around(path: &Path) -> Option<PathBuf> {
    unmounted_of(|point| path.starts_with(point) || point.starts_with(path))
}

fn unmounted_of(is_meant: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let table = std::fs::read_to_string("/etc/fstab").unwrap_or_default();
    unmounted_in(&table, is_meant, |dir| std::fs::metadata(dir).ok().map(|meta| meta.dev()))
}

fn unmounted_in(
    table: &str,
    is_meant: impl Fn(&Path) -> bool,
    device: impl Fn(&Path) -> Option<u64>,
) -> Option<PathBuf> {
    let lines = table.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    // Skip bind mounts: comparing devices cannot show whether one is mounted, if it is of the same file system.
    let is_own = |line: &&str| !line.split_whitespace().nth(3).is_some_and(|o| o.contains("bind"));
    let points = lines.filter(is_own).filter_map(|line| line.split_whitespace().nth(1));
    let mut needed: Vec<PathBuf> = points
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point.as_bytes(), b"\\"))))
        .filter(|point| point.parent().is_some() && is_meant(point))
        .collect();
    needed.sort();
    needed.into_iter().find(|point| {
        let outside = point.parent().and_then(&device);
        device(point).is_none() || device(point) == outside
    })
}

fn look_at_password(config: &Config, spans: &Spans, problems: &mut Problems) {
    let mut remotes = config.mirrors.iter().flat_map(|mirror| &mirror.remotes);
    let file = remotes.find_map(|remote| remote.options.password_file.as_ref());
    let (Some(file), Some(span)) = (file, &spans.password_file) else {
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
    // Opening the file also applies access rules that the mode bits do not show.
    std::fs::File::open(file).map(drop).map_err(|error| {
        let sentence = format!("the password file {shown} cannot be read: {error}");
        (sentence, "make it readable for this user".to_owned())
    })
}

fn look_at_programs(config: &Config, spans: &Spans, problems: &mut Problems) {
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
    need("rsync", spans.params.clone());
    let mut remotes = config.mirrors.iter().flat_map(|mirror| &mirror.remotes);
    if remotes.any(|remote| remote.destination.is_ssh()) {
        need("ssh", spans.ssh.clone().unwrap_or(spans.params.clone()));
    }
}

fn look_at_fail_log(config: &Config, spans: &Spans, problems: &mut Problems) {
    let path = &config.fail_log.path;
    let shown = path.display();
    if path.is_dir() {
        let sentence = format!("the fail log {shown} is a directory");
        let problem = Problem::error(spans.fail_log.clone(), sentence);
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
        let problem = Problem::warning(spans.fail_log.clone(), sentence);
        problems.push(
            problem.help("name another place, or make that directory writable for this user"),
        );
    }
    if config.mirrors.iter().any(|mirror| path.starts_with(&mirror.watch)) {
        let sentence = format!("the fail log {shown} lies in the watch path and is mirrored");
        let problem = Problem::warning(spans.fail_log.clone(), sentence);
        problems.push(problem.help("move it to a place outside"));
    }
}

/// The directory, or its nearest existing ancestor: the missing ones will be created.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.symlink_metadata().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_fstab_names_and_that_is_not_mounted_is_found() {
        let table = "UUID=1 / ext4 defaults 0 1\n# /srv/old\nnas:/x  /mnt/my\\040nas\\134x nfs noauto 0 0\n";
        let find = |path: &str, mounted: bool| {
            let device = |dir: &Path| Some(u64::from(mounted && dir.starts_with("/mnt/my nas\\x")));
            unmounted_in(table, |point| Path::new(path).starts_with(point), device)
        };
        assert_eq!(find("/mnt/my nas\\x/www", false), Some("/mnt/my nas\\x".into()));
        assert_eq!(find("/mnt/my nas\\x/www", true), None);
        assert_eq!(find("/mnt/other", false), None);
    }
}
