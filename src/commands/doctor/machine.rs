//! Checks what the mirror needs on this machine: rsync, the kernel's limits, the watch paths, space for its state.
//! Changes nothing.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use rustix::process::{Resource, getrlimit};

use super::Deadline;
use super::report::Finding;
use crate::config::{Config, Loaded, MirrorConfig, Remote, WatchBackend, preflight};
use crate::filter::Filter;
use crate::ground::counted::counted;
use crate::ground::directory::list;
use crate::ground::limits::Limit;
use crate::ground::octal::unescape;
use crate::path::RelPath;
use crate::rsync::run::{Limits, Session, StartError};
use crate::rsync::{Endpoint, RunSpec, confine, quoted};
use crate::state::{self, StateBases};
use crate::watch::mounts::MOUNT_TABLE;
use crate::watch::open::open_dir;
use crate::xml::report::Severity;

/// The oldest rsync with everything that the mirror uses: `--delete-missing-args` (3.1.0) and `--modify-window=-1` (3.1.3).
const RSYNC_MIN: [u32; 3] = [3, 1, 3];

/// The kernel's default; with less, bursts overflow the queue.
const QUEUE_MIN: u64 = 16_384;

/// File descriptors for the program itself, and for the sessions of one remote.
const FILES_BASE: u64 = 100;
const FILES_A_REMOTE: u64 = 20;

/// Free bytes below which a file system counts as full (an error), and as short of space (a warning).
const SPACE_FULL: u64 = 16 << 20;
const SPACE_SHORT: u64 = 256 << 20;

/// Network file systems: other machines may write to them, and the kernel reports only changes of this machine.
const NETWORK: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ocfs2",
    "gfs2",
    "virtiofs",
    "vboxsf",
];

/// The same with FUSE, named without `fuse.`. Others count as local (bindfs, mergerfs, ntfs-3g).
const FUSE_NETWORK: &[&str] = &[
    "afp",
    "blobfuse",
    "blobfuse2",
    "ceph",
    "ceph-fuse",
    "cephfs",
    "cosfs",
    "curlftpfs",
    "davfs",
    "gcsfuse",
    "geesefs",
    "glusterfs",
    "goofys",
    "juicefs",
    "lizardfs",
    "mfs",
    "mount-s3",
    "obsfs",
    "ossfs",
    "rclone",
    "s3backer",
    "s3fs",
    "seaweedfs",
    "smbnetfs",
    "sshfs",
    "vmhgfs-fuse",
];

/// Examines this machine.
pub fn examine(loaded: &Loaded, places: &StateBases, deadline: Deadline) -> Vec<Finding> {
    let config = &loaded.config;
    let mut found = vec![warnings_of(loaded)];
    found.extend(preflight_of(loaded));
    found.extend(rsync_version());
    found.push(confinement(config));
    found.push(queue());
    found.push(open_files(config));
    found.extend(config.mirrors.iter().map(|mirror| file_system(&mirror.watch)));
    found.push(watches(config, deadline));
    found.extend(state_place(&loaded.path, places));
    found
}

fn warnings_of(loaded: &Loaded) -> Finding {
    let file = loaded.path.display();
    match loaded.warnings.len() {
        0 => Finding::ok("configuration", format!("{file} is valid")),
        count => Finding::warning(
            "configuration",
            format!("{file} is valid, with {count} warning{}", if count == 1 { "" } else { "s" }),
            format!("sersync2 --check {file} names them"),
        ),
    }
}

/// What would prevent the mirror from starting here.
fn preflight_of(loaded: &Loaded) -> Vec<Finding> {
    let mut problems = preflight::preflight(&loaded.config, &loaded.spans);
    problems.append(preflight::preflight_reports(&loaded.spans));
    let problems = problems.into_sorted();
    let finding = |problem: crate::xml::report::Problem| {
        let advice = problem.help.unwrap_or_default();
        match problem.severity {
            Severity::Error => Finding::error("start", problem.message, advice),
            Severity::Warning => Finding::warning("start", problem.message, advice),
        }
    };
    problems.into_iter().map(finding).collect()
}

fn rsync_version() -> Option<Finding> {
    let spec = RunSpec {
        args: vec!["--version".into()],
        root: "/".into(),
        local: None,
        owner: None,
        confinement: None,
    };
    let session = match Session::start(&spec, None) {
        Ok(session) => session,
        // Preflight reports this already.
        Err(StartError::NoRsync) => return None,
        Err(error) => return Some(Finding::error("rsync", error.to_string(), "")),
    };
    let limits = Limits { stall: std::time::Duration::from_secs(10), output_max: 64 << 10 };
    let output = session.feed(b"", limits).output.unwrap_or_default();
    Some(judge_version(&String::from_utf8_lossy(&output)))
}

/// Parses `rsync  version 3.5.0  protocol version 32`.
fn judge_version(said: &str) -> Finding {
    let version = said.split_once("version ").and_then(|(_, rest)| rest.split_whitespace().next());
    let Some((version, numbers)) = version.and_then(|it| Some((it, numbers_of(it)?))) else {
        let text = "it prints no version: is it another program?";
        return Finding::unknown("rsync", text, "run: rsync --version");
    };
    if numbers >= RSYNC_MIN {
        return Finding::ok("rsync", format!("{version} here"));
    }
    let text = format!("{version} here: deletions and quick rewrites cost more with this version");
    Finding::warning("rsync", text, "install rsync 3.1.3 or newer")
}

/// The numbers of `3.5.0`, `v3.2.7` or `3.1.0pre1`.
fn numbers_of(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.trim_start_matches('v').split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    });
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

/// Whether the kernel can confine rsync here, and which remotes run without that.
fn confinement(config: &Config) -> Finding {
    if let Err(reason) = confine::try_out() {
        return Finding::unknown(
            "confinement",
            format!("rsync cannot be confined to the watch path on this machine: {reason}"),
            "docs/RELIABILITY.md says what that means; with rsync 3.4 or newer nothing has to be done",
        );
    }
    let text = "rsync can read nothing but the watch path and its own files (Landlock)".to_owned();
    let unconfined = |mirror: &MirrorConfig, remote: &Remote| {
        let endpoint = Endpoint::new(&mirror.watch, &remote.destination, &remote.options);
        endpoint.confinement().err().map(|reason| (remote.destination.to_string(), reason))
    };
    let remotes = config.mirrors.iter().flat_map(|m| m.remotes.iter().map(move |r| (m, r)));
    let unconfined: Vec<_> = remotes.filter_map(|(m, r)| unconfined(m, r)).collect();
    Finding::ok(
        "confinement",
        match unconfined.as_slice() {
            [] => text,
            [(name, reason)] => format!("{text}, except for {name}: {reason}"),
            [(name, reason), more @ ..] => {
                let more = counted(more.len() as u64, "more remote", "more remotes");
                format!("{text}, except for {name} ({reason}) and {more}")
            }
        },
    )
}

fn queue() -> Finding {
    match Limit::MaxQueuedEvents.read() {
        Ok(value) if value >= QUEUE_MIN => {
            Finding::ok("event queue", format!("fs.inotify.max_queued_events is {value}"))
        }
        Ok(value) => Finding::warning(
            "event queue",
            format!(
                "fs.inotify.max_queued_events is {value}: a burst overflows it, and everything is compared then"
            ),
            "sysctl -w fs.inotify.max_queued_events=327679",
        ),
        Err(error) => Finding::unknown("event queue", error.to_string(), ""),
    }
}

fn open_files(config: &Config) -> Finding {
    let remotes: usize = config.mirrors.iter().map(|mirror| mirror.remotes.len()).sum();
    let needed = FILES_BASE + FILES_A_REMOTE * remotes as u64;
    let limit = getrlimit(Resource::Nofile).maximum;
    let shown = limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string());
    if limit.is_none_or(|limit| limit >= needed) {
        return Finding::ok(
            "open files",
            format!("the limit is {shown}, some {needed} are needed"),
        );
    }
    Finding::warning(
        "open files",
        format!(
            "the limit is {shown}, and with {remotes} remotes some {needed} are needed: remotes would wait"
        ),
        format!("set LimitNOFILE={} in the service, or ulimit -n", needed.next_power_of_two()),
    )
}

fn file_system(watch: &Path) -> Finding {
    let shown = watch.display();
    let Some(kind) = file_system_type(watch) else {
        return Finding::unknown("file system", format!("{shown}: /proc does not show it"), "");
    };
    if is_network(&kind) {
        return Finding::warning(
            "file system",
            format!(
                "{shown} is on a network file system ({kind}): changes that other machines make there are not seen"
            ),
            "run sersync2 on the machine that writes the files, or switch on <crontab>, which compares everything at intervals",
        );
    }
    Finding::ok("file system", format!("{shown} is on {kind}"))
}

fn is_network(kind: &str) -> bool {
    let fuse = kind.strip_prefix("fuse.");
    NETWORK.contains(&kind) || fuse.is_some_and(|kind| FUSE_NETWORK.contains(&kind))
}

/// The type of the file system that covers `path`.
fn file_system_type(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    type_in(&std::fs::read(MOUNT_TABLE).ok()?, &path)
}

/// Parses lines such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`. The longest mount point
/// above the path counts, and of several equal ones the last.
fn type_in(table: &[u8], path: &Path) -> Option<String> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ');
        let point = unescape(fields.nth(4)?, b"\\");
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let covers = path.starts_with(OsStr::from_bytes(&point));
        covers.then(|| (point.len(), String::from_utf8_lossy(kind).into_owned()))
    };
    let mounts = table.split(|&byte| byte == b'\n').filter_map(mount);
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// How many directories must be watched, and whether the kernel allows that many.
fn watches(config: &Config, deadline: Deadline) -> Finding {
    let Ok(filter) = Filter::new(&config.filter) else {
        return Finding::unknown("watches", "the filter cannot be used", "");
    };
    let mut count = 0;
    let mut is_complete = true;
    for mirror in &config.mirrors {
        is_complete &= count_directories(&mirror.watch, &filter, deadline, &mut count);
    }
    let shown = if is_complete { count.to_string() } else { format!("more than {count}") };
    let directories = format!("{shown} director{} to watch", if count == 1 { "y" } else { "ies" });
    if config.backend == WatchBackend::Fanotify {
        return Finding::ok(
            "watches",
            format!("{directories}; fanotify needs one mark for each file system"),
        );
    }
    match Limit::MaxUserWatches.read() {
        Ok(limit) if count < limit - limit / 10 => {
            Finding::ok("watches", format!("{directories}, fs.inotify.max_user_watches is {limit}"))
        }
        Ok(limit) if is_writable(Path::new(Limit::MaxUserWatches.file())) => Finding::ok(
            "watches",
            format!(
                "{directories}; fs.inotify.max_user_watches is {limit}, and sersync2 raises it at its start"
            ),
        ),
        Ok(limit) => Finding::error(
            "watches",
            format!(
                "{directories}, but fs.inotify.max_user_watches is {limit}: some would not be watched"
            ),
            format!("sysctl -w fs.inotify.max_user_watches={}", (count * 2).next_power_of_two()),
        ),
        Err(error) => Finding::unknown("watches", format!("{directories}; {error}"), ""),
    }
}

/// False when the deadline ended the count early.
fn count_directories(root: &Path, filter: &Filter, deadline: Deadline, count: &mut u64) -> bool {
    let mut todo = VecDeque::from([RelPath::root()]);
    while let Some(dir) = todo.pop_front() {
        *count += 1;
        let Ok(opened) = open_dir(root, &dir) else { continue };
        // Ignore a directory that cannot be listed.
        _ = list(&opened, |name, is_dir| {
            let child =
                dir.join(name).filter(|child| is_dir && !filter.excludes_entry(child, true));
            todo.extend(child);
        });
        if count.is_multiple_of(1024) && deadline.has_passed() {
            *count += todo.len() as u64;
            return todo.is_empty();
        }
    }
    true
}

/// Where the state will be, and state directories that are no longer used.
fn state_place(config: &Path, places: &StateBases) -> Vec<Finding> {
    let (Ok(base), Ok(directory)) = (places.base(), state::directory_of(config, places)) else {
        let text = "no place: without state, what is pending is forgotten at exit";
        return vec![Finding::warning("state", text, "name one with --state-dir DIR")];
    };
    let mut found = vec![match existing(&directory) {
        Some(existing) if is_writable(&existing) => space_in("state", &existing),
        Some(existing) => Finding::warning(
            "state",
            format!(
                "{} cannot be written: what is pending would be forgotten at exit",
                existing.display()
            ),
            "start as a user who may, or name another place with --state-dir DIR",
        ),
        None => Finding::unknown("state", format!("{} is nowhere", directory.display()), ""),
    }];
    let gone = state::abandoned(&base).into_iter().map(|(directory, config)| {
        Finding::warning(
            "old state",
            format!("{} belongs to {}, which is gone", directory.display(), config.display()),
            format!("rm -r {}", String::from_utf8_lossy(&quoted(directory.as_os_str()))),
        )
    });
    found.extend(gone);
    found
}

/// The free space of the file system that holds `path`.
pub fn space_in(check: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    let free = match statvfs(path) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Finding::unknown(check, format!("{shown}: {error}"), ""),
    };
    let text = format!("{} MiB are free in {shown}", free >> 20);
    match free {
        0..SPACE_FULL => Finding::error(check, text, "free some space there"),
        SPACE_FULL..SPACE_SHORT => Finding::warning(check, text, "free some space there"),
        _ => Finding::ok(check, text),
    }
}

/// The path, or its nearest ancestor that exists.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.is_dir()).map(Path::to_path_buf)
}

fn is_writable(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::report::FindingLevel;
    use super::*;

    #[test]
    fn an_old_rsync_and_a_program_that_is_none_are_told() {
        let verdict = |said: &str| judge_version(said).verdict;
        assert_eq!(verdict("rsync  version 3.5.0  protocol version 32\n"), FindingLevel::Ok);
        assert_eq!(verdict("rsync  version v3.2.7  protocol version 31\n"), FindingLevel::Ok);
        for old in ["3.0.9", "3.1.2", "3.1", "3.1.3pre1-dev"] {
            let said = format!("rsync  version {old}  protocol version 30\n");
            let expected =
                if old == "3.1.3pre1-dev" { FindingLevel::Ok } else { FindingLevel::Warning };
            assert_eq!(verdict(&said), expected, "{old}");
        }
        assert_eq!(verdict("openrsync: protocol version 29\n"), FindingLevel::Unknown);
        assert_eq!(verdict(""), FindingLevel::Unknown);
    }

    #[test]
    fn the_deepest_mount_says_the_type() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
                     2 1 0:9 / /data rw shared:1 - nfs4 host:/x rw\n\
                     3 1 0:9 / /data/my\\040disk\\134 rw - xfs /dev/b rw\n";
        let of = |path| type_in(table, Path::new(path)).unwrap();
        assert_eq!(of("/database"), "ext4");
        assert_eq!(of("/data/www"), "nfs4");
        assert_eq!(of("/data/my disk\\/www"), "xfs");
    }

    #[test]
    fn a_file_system_is_called_network_only_when_other_machines_write_there() {
        for kind in [
            "nfs4",
            "cifs",
            "virtiofs",
            "fuse.sshfs",
            "fuse.juicefs",
            "fuse.s3fs",
            "fuse.ceph-fuse",
        ] {
            assert!(is_network(kind), "{kind}");
        }
        for kind in
            ["ext4", "fuse", "fuseblk", "fuse.bindfs", "fuse.mergerfs", "fuse.encfs", "sshfs"]
        {
            assert!(!is_network(kind), "{kind}");
        }
    }

    #[test]
    fn only_directories_that_are_mirrored_are_counted() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["a/b", "a/c", "skip/d/e"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        std::fs::write(root.path().join("a/file"), "").unwrap();
        let rules = crate::config::FilterRules {
            excludes: vec!["^skip/.*".into(), "^skip".into()],
            ..Default::default()
        };
        let filter = Filter::new(&rules).unwrap();
        let mut count = 0;
        let deadline = Deadline::after(std::time::Duration::from_secs(60));
        assert!(count_directories(root.path(), &filter, deadline, &mut count));
        assert_eq!(count, 4);
    }
}
