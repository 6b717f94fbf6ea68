//! Confines an rsync with Landlock: it reads only the watch root and its own files, and writes only a local copy.
//!
//! Somebody may replace a directory by a link after rsync's check. An rsync before 3.4 follows that link; a confined one cannot
//! read there. The kernel confines a thread and what the thread starts. So a separate thread starts each rsync and then ends. No
//! code of ours runs between fork and exec.

use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Once, OnceLock};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};

use super::Endpoint;
use super::operator_rules::OperatorRules;
use super::params::Filters;
use crate::destination::Destination;
use crate::ground::program::{find_program, is_elf};

/// The stack of the thread that starts an rsync.
const STACK_BYTES: usize = 256 << 10;

/// The environment variable that switches confinement off, whatever its value is.
const OFF: &str = "SERSYNC_UNCONFINED";

/// The rights that are withheld. Newer kernels know more rights, but rsync does not use them.
const RIGHTS: ABI = ABI::V3;

/// What an rsync reads besides the mirror: its libraries, and what the C library and OpenSSL look up.
/// Everybody may read these files, so a link to them reveals nothing. `/etc` as a whole is not listed: it holds secrets.
const READ: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    "/etc/popt",
    "/etc/popt.d",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/run/systemd/resolve",
    "/proc/sys/crypto/fips_enabled",
    "/sys/devices/system/cpu",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// What an rsync writes besides a local copy.
const WRITTEN: &[&str] = &["/dev/null"];

/// The files of users and groups. If one is replaced, a confined rsync cannot read the new file.
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Name services that need only [`READ`] and sockets. Others have files of their own.
const SERVICES: &[&str] =
    &["files", "compat", "systemd", "dns", "myhostname", "resolve", "mymachines"];

/// What the runs of one remote may read besides what every rsync may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The operator's filter rules: rsync reads the files that they name.
    rules: Vec<(String, OsString)>,
    /// Files that the options name.
    files: Vec<PathBuf>,
}

impl Endpoint {
    /// What the runs of this remote may read.
    ///
    /// # Errors
    /// Why the runs cannot be confined; a clause.
    pub fn confinement(&self) -> Result<Confinement, String> {
        if self.destination.is_ssh() {
            return Err("over ssh runs are confined only through the connection that sersync keeps open (docs/RELIABILITY.md)".into());
        }
        if self.remote_shell().is_some() || std::env::var_os("RSYNC_CONNECT_PROG").is_some() {
            return Err("another program connects, which may read and start anything".into());
        }
        self.own_confinement()
    }

    /// The same, regardless of the program that connects.
    pub(super) fn own_confinement(&self) -> Result<Confinement, String> {
        let is_local = matches!(self.destination, Destination::Local { .. });
        let leads = self.params.sender_leads_out.as_ref();
        let leads = leads.or(self.params.receiver_leads_out.as_ref().filter(|_| is_local));
        if let Some(option) = leads {
            return Err(format!("{option} in <commonParams> leads out of the watch path"));
        }
        if self.params.filters == Filters::PerDirectory {
            return Err("filter files may stand above the watch path".into());
        }
        Ok(Confinement {
            rules: self.params.rules.clone(),
            files: self.options.password_file.iter().cloned().collect(),
        })
    }
}

impl Confinement {
    /// Adds a file that is read.
    pub(super) fn reads(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    /// Starts `command` confined: `root` is read, `copy` is written.
    ///
    /// # Errors
    /// The outer error is a clause: why it cannot be confined. The inner error: it cannot be started.
    pub fn start(
        &self,
        command: &mut Command,
        root: BorrowedFd<'_>,
        copy: Option<BorrowedFd<'_>>,
    ) -> Result<std::io::Result<Child>, String> {
        let mut reads = self.files.clone();
        // Only the names of the files are needed here.
        _ = OperatorRules::parse(&self.rules, |file| {
            let path = root_path(root).join(file);
            let content = fs::read(&path).ok();
            reads.push(path);
            content
        });
        on_a_thread(|| {
            enter(&reads, Some(root), copy)?;
            Ok(command.spawn())
        })
    }
}

/// The directory behind the descriptor, in this process.
fn root_path(root: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", root.as_raw_fd()).into()
}

/// Runs `work` on a thread of its own, so that only this thread loses rights.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let failed = |error| format!("no thread can be made: {error}");
    std::thread::scope(|scope| {
        let named = std::thread::Builder::new().name("confine".into()).stack_size(STACK_BYTES);
        let thread = named.spawn_scoped(scope, work).map_err(failed)?;
        thread.join().unwrap_or_else(|_| Err("an internal error".into()))
    })
}

/// Confines this thread and what it starts; this cannot be undone.
fn enter(
    reads: &[PathBuf],
    root: Option<BorrowedFd<'_>>,
    copy: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let failed = |error: landlock::RulesetError| format!("Landlock does not work: {error}");
    let mut ruleset = Ruleset::default();
    if copy.is_some() {
        // Fail if the kernel does not know this right: without it rsync could not rename between directories.
        ruleset = ruleset
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer)
            .map_err(|_| "renaming in a local copy needs Linux 5.19".to_owned())?
            .set_compatibility(CompatLevel::BestEffort);
    }
    let read = AccessFs::from_read(RIGHTS);
    let all = AccessFs::from_all(RIGHTS);
    let mut ruleset = ruleset.handle_access(all).and_then(Ruleset::create).map_err(failed)?;
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".popt"));
    let own = READ.iter().map(PathBuf::from).chain(home).chain(own_places());
    let rules = path_beneath_rules(own, read)
        .chain(path_beneath_rules(reads, read))
        .chain(path_beneath_rules(WRITTEN, all));
    ruleset = ruleset.add_rules(rules).map_err(failed)?;
    if let Some(root) = root {
        ruleset = ruleset.add_rule(PathBeneath::new(root, read)).map_err(failed)?;
    }
    if let Some(copy) = copy {
        ruleset = ruleset.add_rule(PathBeneath::new(copy, all)).map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// The program and its libraries in unusual places, and what the environment makes the loader read.
fn own_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(program) = find_program("rsync").and_then(|it| fs::canonicalize(it).ok()) {
        let bin = program.parent();
        let above = bin.and_then(Path::parent).filter(|above| above.parent().is_some());
        // `/opt/rsync/bin/rsync` may have its libraries in `/opt/rsync/lib`.
        places.extend(above.map(|above| above.join("lib")));
        places.push(program);
    }
    for variable in ["LD_LIBRARY_PATH", "LD_PRELOAD"] {
        let value = std::env::var_os(variable).unwrap_or_default();
        places.extend(std::env::split_paths(&value).filter(|path| path.is_absolute()));
    }
    places
}

/// True when this machine's rsync works confined. Logs once why it does not.
pub fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| match try_out() {
        Ok(()) => true,
        Err(reason) => {
            log::info!(
                "rsync is not confined to the watch path: {reason}; an rsync before 3.4 may follow a link that somebody puts in the place of a directory"
            );
            false
        }
    })
}

/// Warns, once, that an rsync was started unconfined although others are confined.
pub fn warn_once_of_unconfined_start(reason: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "rsync is not always confined to the watch path: {reason}; this is logged only once"
        );
    });
}

/// Checks that this machine's rsync can be confined and still starts.
///
/// # Errors
/// Why not; a clause.
pub fn try_out() -> Result<(), String> {
    if std::env::var_os(OFF).is_some() {
        return Err(format!("{OFF} is set"));
    }
    let program = find_program("rsync").ok_or("there is no rsync")?;
    if !is_elf(&program) {
        return Err(format!(
            "{} is a script, which may read and start anything",
            program.display()
        ));
    }
    let switch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if let Some(service) = strange_service(&switch) {
        return Err(format!("/etc/nsswitch.conf names {service}, whose files are not known"));
    }
    on_a_thread(|| {
        enter(&[], None, None)?;
        let ended = version_command().output().map_err(|error| error.to_string())?;
        let said = ended.stdout.starts_with(b"rsync") && ended.status.success();
        let why =
            || format!("it does not start: {}", String::from_utf8_lossy(&ended.stderr).trim());
        said.then_some(()).ok_or_else(why)
    })
}

#[expect(clippy::disallowed_methods, reason = "it tries the program that run.rs starts")]
fn version_command() -> Command {
    let mut command = Command::new("rsync");
    command.arg("--version").stdin(Stdio::null());
    command
}

/// The first name service for users, groups or hosts that is not in [`SERVICES`].
fn strange_service(switch: &str) -> Option<&str> {
    let lines = switch.lines().map(|line| line.split('#').next().unwrap_or_default());
    let wanted = lines.filter_map(|line| {
        let (database, services) = line.split_once(':')?;
        matches!(database.trim(), "passwd" | "group" | "hosts").then_some(services)
    });
    let is_known = |word: &&str| SERVICES.contains(word) || word.starts_with("mdns");
    wanted
        .flat_map(|services| services.split('[').flat_map(|part| part.rsplit(']').next()))
        .flat_map(str::split_whitespace)
        .find(|word| !is_known(word))
}

/// The identity of the files that hold the accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts([Option<(u64, u64)>; 2]);

impl Accounts {
    /// The files as they are now.
    pub fn now() -> Self {
        Self(ACCOUNTS.map(|file| fs::metadata(file).ok().map(|found| (found.dev(), found.ino()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsync::RsyncOptions;

    fn confinement(destination: Destination, params: &[&str]) -> Result<Confinement, String> {
        let params = params.iter().map(|word| (*word).to_owned()).collect();
        let options = RsyncOptions { params, ..RsyncOptions::default() };
        Endpoint::new(Path::new("/data/www"), &destination, &options).confinement()
    }

    fn daemon() -> Destination {
        Destination::Daemon { host: Default::default(), module: "m".into() }
    }

    #[test]
    fn what_leads_out_of_the_watch_path_is_not_confined() {
        assert!(confinement(daemon(), &["-artuz", "--exclude-from=/rules"]).is_ok());
        for words in [
            ["-rL"].as_slice(),
            &["-r", "--copy-unsafe-links"],
            &["-r", "--log-file=/var/log/r"],
            &["-r", "--an-unknown-option"],
            &["-r", "-F"],
            &["-r", "-e", "ssh"],
        ] {
            assert!(confinement(daemon(), words).is_err(), "{words:?}");
        }
        let ssh = Destination::Ssh { host: Default::default(), path: "/copy".into() };
        assert!(confinement(ssh, &["-r"]).is_err());
        let local = Destination::Local { path: "/copy".into() };
        assert!(confinement(local.clone(), &["-r", "--partial-dir=.parts"]).is_ok());
        assert!(confinement(local, &["-r", "--temp-dir=/tmp"]).is_err());
        assert!(confinement(daemon(), &["-r", "--temp-dir=/tmp"]).is_ok(), "it is over there");
    }

    #[test]
    fn name_services_with_files_of_their_own_are_found() {
        let stock = "passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\n# hosts: sss\n\
                     hosts: files mdns4_minimal [NOTFOUND=return] dns myhostname\nshadow: files sss\n";
        assert_eq!(strange_service(stock), None);
        assert_eq!(strange_service(""), None);
        assert_eq!(strange_service("passwd:\tfiles sss # ldap\n"), Some("sss"));
    }

    #[test]
    fn a_confined_thread_reads_only_what_it_may() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), name).unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("out"), dir.path().join("in/link")).unwrap();
        let root = fs::File::open(dir.path().join("in")).unwrap();
        use std::os::fd::AsFd;
        let read = |name: &str| fs::read(dir.path().join(name)).is_ok();
        let found = on_a_thread(|| {
            enter(&[], Some(root.as_fd()), None)?;
            let written = fs::write(dir.path().join("in/new"), "").is_ok();
            Ok((read("in/file"), read("out/file"), read("in/link/file"), written))
        });
        match found {
            Ok(found) => assert_eq!(found, (true, false, false, false)),
            Err(reason) => assert!(reason.contains("no Landlock"), "{reason}"),
        }
        assert!(read("in/link/file"), "the other threads are free");
    }
}
