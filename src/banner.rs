//! The lines that sersync2 prints at start, which operators compare with their tutorials.
//! Pure: each function returns lines as bytes, because paths are bytes; the caller prints them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::config::HostConfig;
use crate::rsync::RunSpec;

/// The options of the command line.
#[derive(Debug, Clone, Copy)]
pub struct BannerOptions<'a> {
    /// `-r`.
    pub full_sync: bool,
    /// `-d`.
    pub background: bool,
    /// `-o FILE`; `None` when it was not given.
    pub config_file: Option<&'a Path>,
    /// `-n N`, or its default.
    pub workers: usize,
}

/// `set the system param`, and the kernel's limits that were raised: (file, new value).
pub fn system_limits(raised: &[(&str, u64)]) -> Vec<u8> {
    let mut text = "set the system param\n".to_owned();
    for (file, value) in raised {
        text += &format!("execute：echo {value} > {file}\n");
    }
    text.into_bytes()
}

/// `parse the command param`, one line for each option that was given, and the number of workers.
pub fn options(options: BannerOptions<'_>) -> Vec<u8> {
    let mut text = b"parse the command param\n".to_vec();
    if options.full_sync {
        text.extend_from_slice(
            b"option: -r      rsync all the local files to the remote servers before the sersync work\n",
        );
    }
    if options.background {
        text.extend_from_slice(b"option: -d      run as a daemon\n");
    }
    if let Some(file) = options.config_file {
        text.extend_from_slice("option: -o      config xml name：  ".as_bytes());
        text.extend_from_slice(file.as_os_str().as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(format!("daemon thread num: {}\n", options.workers).as_bytes());
    text
}

/// `parse xml config file`, printed before the file is read.
pub fn parsing() -> Vec<u8> {
    b"parse xml config file\n".to_vec()
}

/// The `<host>` of the file.
pub fn host(host: &HostConfig) -> Vec<u8> {
    format!("host ip : {}     host port: {}\n", host.ip, host.port).into_bytes()
}

/// What the parent of `-d` prints before it waits: sersync2's line, and where the log and the state are.
pub fn background(log_file: &Path, state_dir: Option<&Path>) -> Vec<u8> {
    let mut text = "daemon start，sersync run behind the console\nlog file: ".as_bytes().to_vec();
    text.extend_from_slice(log_file.as_os_str().as_bytes());
    if let Some(dir) = state_dir {
        text.extend_from_slice(b"\nstate directory: ");
        text.extend_from_slice(dir.as_os_str().as_bytes());
    }
    text.push(b'\n');
    text
}

/// Printed when the configuration is valid. `workers` is the number of `-n`; `helpers` counts the threads besides the primary
/// one, the retry thread and the workers.
pub fn threads(workers: usize, helpers: usize) -> Vec<u8> {
    let working = workers + 2;
    let all = working + helpers;
    format!(
        "config xml parse success\n\
         please set /etc/rsyncd.conf max connections=0 Manually\n\
         sersync working thread {working}  = 1(primary thread) + 1(fail retry thread) + {workers}(daemon sub threads)\n\
         Max threads numbers is: {all} = {working}(Thread pool nums) + {helpers}(Sub threads)\n\
         please according your cpu ，use -n param to adjust the cpu rate\n\
         ------------------------------------------\n"
    )
    .into_bytes()
}

/// `-r`: one command for each remote.
pub fn full_sync(runs: &[RunSpec]) -> Vec<u8> {
    let mut text =
        b"rsync the directory recursivly to the remote servers once\nworking please wait...\n"
            .to_vec();
    for run in runs {
        text.extend_from_slice(b"execute command: ");
        text.extend_from_slice(&run.shell_line());
        text.extend_from_slice(b" >/dev/null 2>&1\n");
    }
    text
}

/// `-r` with filter expressions that rsync's options cannot express.
pub fn full_sync_in_steps(expressions: &[String]) -> Vec<u8> {
    let mut text = full_sync(&[]);
    for expression in expressions {
        let line = format!(
            "no rsync command says the filter expression `{expression}`: \
             what it excludes is looked for on both sides\n"
        );
        text.extend_from_slice(line.as_bytes());
    }
    text
}

/// Printed when the watches are set: `run the sersync:` and one line for each watch root.
pub fn watching<'a>(roots: impl IntoIterator<Item = &'a Path>) -> Vec<u8> {
    let mut text = b"run the sersync:\n".to_vec();
    for root in roots {
        text.extend_from_slice(b"watch path is: ");
        text.extend_from_slice(root.as_os_str().as_bytes());
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PageAccess;
    use std::ffi::OsString;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(Into::into).collect()
    }

    /// The listing in docs/COMPAT.md. It differs in the number of this program's threads and the path of its log.
    #[test]
    fn the_lines_are_those_of_the_tutorials() {
        let argv = words(&["-az", "-R", "--delete", "./", "-e", "ssh", "172.16.10.5:/tmp/www"]);
        let given = BannerOptions {
            full_sync: true,
            background: true,
            config_file: Some(Path::new("FILE")),
            workers: 10,
        };
        let localhost = HostConfig { ip: "localhost".into(), port: 8008, page: PageAccess::Off };
        let limits = [
            ("/proc/sys/fs/inotify/max_user_watches", 50_000_000),
            ("/proc/sys/fs/inotify/max_queued_events", 327_679),
        ];
        let www = Path::new("/www");
        let all = [
            system_limits(&limits),
            options(given),
            parsing(),
            host(&localhost),
            background(Path::new("/l/sersync2.log"), Some(Path::new("/l"))),
            threads(10, 10),
            full_sync(&[RunSpec {
                args: argv,
                root: www.into(),
                local: None,
                owner: None,
                confinement: None,
            }]),
            watching([www]),
        ];
        let expected = "\
set the system param
execute：echo 50000000 > /proc/sys/fs/inotify/max_user_watches
execute：echo 327679 > /proc/sys/fs/inotify/max_queued_events
parse the command param
option: -r      rsync all the local files to the remote servers before the sersync work
option: -d      run as a daemon
option: -o      config xml name：  FILE
daemon thread num: 10
parse xml config file
host ip : localhost     host port: 8008
daemon start，sersync run behind the console
log file: /l/sersync2.log
state directory: /l
config xml parse success
please set /etc/rsyncd.conf max connections=0 Manually
sersync working thread 12  = 1(primary thread) + 1(fail retry thread) + 10(daemon sub threads)
Max threads numbers is: 22 = 12(Thread pool nums) + 10(Sub threads)
please according your cpu ，use -n param to adjust the cpu rate
------------------------------------------
rsync the directory recursivly to the remote servers once
working please wait...
execute command: cd /www && rsync -az -R --delete ./ -e ssh 172.16.10.5:/tmp/www >/dev/null 2>&1
run the sersync:
watch path is: /www
";
        assert_eq!(text(all.concat()), expected);
    }

    #[test]
    fn what_was_not_asked_for_or_not_done_is_not_printed() {
        let none =
            BannerOptions { full_sync: false, background: false, config_file: None, workers: 3 };
        assert_eq!(text(options(none)), "parse the command param\ndaemon thread num: 3\n");
        assert_eq!(text(system_limits(&[])), "set the system param\n");
        assert!(
            text(threads(3, 2)).contains("numbers is: 7 = 5(Thread pool nums) + 2(Sub threads)")
        );
    }
}
