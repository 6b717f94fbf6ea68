//! A running `sersync2` with a configuration of its own: source directory, remotes, options.
//! Starts the real binary; ends it, and shows its log, when a test fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::rsyncd::Rsyncd;
use super::{TestDir, wait_until};

/// A builder of a configuration. Everything that is not set has sersync2's stock value.
#[derive(Clone)]
pub struct Setup {
    /// `(address, name)` of each remote.
    pub remotes: Vec<(String, String)>,
    /// Further elements for `<localpath>`, e.g. a `<remote path>`.
    pub more_remotes: String,
    /// `<commonParams params>`.
    pub params: String,
    /// The daemon's port, or ssh's.
    pub port: u16,
    /// `<ssh start>`.
    pub ssh: bool,
    /// Further lines for `<rsync>`.
    pub rsync: String,
    /// Further lines for `<head>`, e.g. a `<filter>`.
    pub head: String,
    /// Further lines for `<sersync>`, e.g. a `<crontab>`.
    pub sersync: String,
    /// `<inotify>` switches that are off.
    pub off: Vec<&'static str>,
    /// `<inotify>` switches that are on beyond the stock ones.
    pub on: Vec<&'static str>,
    /// Arguments of the command line after `-o FILE`.
    pub args: Vec<String>,
    /// Environment of the program.
    pub env: Vec<(String, String)>,
}

impl Setup {
    /// One remote: the module `data` of `daemon`.
    pub fn to(daemon: &Rsyncd) -> Self {
        let remotes = vec![("127.0.0.1".into(), "data".into())];
        Self { remotes, port: daemon.port, ..Self::plain() }
    }

    /// The stock options, and no remote.
    pub fn plain() -> Self {
        Self {
            remotes: Vec::new(),
            more_remotes: String::new(),
            params: "-artuz".into(),
            port: 873,
            ssh: false,
            rsync: String::new(),
            head: String::new(),
            sersync: String::new(),
            off: Vec::new(),
            on: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The text of the configuration for the watch path `source`.
    pub fn xml(&self, source: &Path, fail_log: &Path) -> String {
        let remotes: String = self
            .remotes
            .iter()
            .map(|(ip, name)| format!("<remote ip=\"{ip}\" name=\"{name}\"/>"))
            .collect();
        let switch = |name: &str, on: bool| {
            let on = (on || self.on.contains(&name)) && !self.off.contains(&name);
            format!("<{name} start=\"{on}\"/>")
        };
        let switches: String = [
            ("delete", true),
            ("createFolder", true),
            ("createFile", false),
            ("closeWrite", true),
            ("moveFrom", true),
            ("moveTo", true),
            ("attrib", false),
            ("modify", false),
        ]
        .iter()
        .map(|(name, on)| switch(name, *on))
        .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<head version=\"2.5\">\n{}\n\
             <inotify>{switches}</inotify>\n<sersync>\n<localpath watch=\"{}\">{remotes}{}</localpath>\n\
             <rsync><commonParams params=\"{}\"/><userDefinedPort start=\"true\" port=\"{}\"/>\
             <ssh start=\"{}\"/>{}</rsync>\n<failLog path=\"{}\" timeToExecute=\"60\"/>\n{}\n</sersync>\n</head>\n",
            self.head,
            source.display(),
            self.more_remotes,
            self.params,
            self.port,
            self.ssh,
            self.rsync,
            fail_log.display(),
            self.sersync,
        )
    }
}

/// A running mirror.
pub struct Mirror {
    /// The watch path.
    pub source: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// The fail log.
    pub fail_log: PathBuf,
    /// Contains all of these, and the state directory `state`.
    pub dir: TestDir,
    setup: Setup,
    user: Option<u32>,
    has_state: bool,
    child: Option<Child>,
    _stdin: Option<ChildStdin>,
    output: Arc<Mutex<String>>,
}

impl Mirror {
    /// Writes the configuration, starts the program, and waits until all watches are set.
    pub fn start(setup: &Setup) -> Self {
        let mut mirror = Self::prepare(setup);
        mirror.launch();
        mirror.wait_ready();
        mirror
    }

    /// Writes the configuration and makes the source directory, and starts nothing.
    pub fn prepare(setup: &Setup) -> Self {
        let dir = TestDir::new();
        let source = dir.dir("source");
        let fail_log = dir.join("fail.sh");
        let config = dir.file("confxml.xml", setup.xml(&source, &fail_log));
        Self {
            source,
            config,
            fail_log,
            dir,
            setup: setup.clone(),
            user: None,
            has_state: true,
            child: None,
            _stdin: None,
            output: Arc::default(),
        }
    }

    /// From now on the program is started with these further options.
    pub fn set_args(&mut self, args: &[&str]) {
        self.setup.args = args.iter().map(|word| word.to_string()).collect();
    }

    /// From now on the program is started with this variable too.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.setup.env.push((name.into(), value.into()));
    }

    /// Starts the program, which cannot raise the limit, with the kernel's default (short) inotify queue.
    /// False, and a line that reports it, if that limit cannot be written.
    pub fn launch_with_a_short_queue(&mut self) -> bool {
        const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";
        const DEFAULT: &str = "16384";
        let read = || fs::read_to_string(LIMIT).unwrap().trim().to_string();
        let before = read();
        self.run_as_nobody();
        for _ in 0..10 {
            if let Err(error) = fs::write(LIMIT, DEFAULT) {
                super::skipped(format!("cannot lower {LIMIT}: {error}"));
                return false;
            }
            self.launch();
            self.wait_ready();
            let was_low = read() == DEFAULT;
            fs::write(LIMIT, &before).unwrap();
            if was_low {
                return true;
            }
            // The program of another test has raised the limit.
            self.kill();
        }
        panic!("{LIMIT} does not stay low");
    }

    /// From now on the program is started as an unprivileged user; only root can do that.
    pub fn run_as_nobody(&mut self) {
        const NOBODY: u32 = 65_534;
        for path in [self.dir.path(), &self.source] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
        }
        self.user = Some(NOBODY);
    }

    /// From now on the program, which must run as nobody, cannot have a state directory.
    pub fn run_without_state(&mut self) {
        self.has_state = false;
    }

    /// The configuration that it runs with.
    pub fn xml(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    /// The user whom the program is started as; `None`: ours.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// Starts the program; also after its end.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// Starts the program, this time with these additional options.
    pub fn launch_with(&mut self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
        command
            .arg("-o")
            .arg(&self.config)
            .args(&self.setup.args)
            .args(args)
            .envs(self.setup.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        match self.has_state {
            true => command.arg("--state-dir").arg(self.dir.join("state")),
            false => command.env_remove("HOME").env_remove("XDG_STATE_HOME"),
        };
        let mut child = command.spawn().unwrap();
        self.output.lock().unwrap().clear();
        self.collect(child.stdout.take().unwrap());
        self.collect(child.stderr.take().unwrap());
        self._stdin = child.stdin.take();
        self.child = Some(child);
    }

    /// Waits until all watches are set.
    pub fn wait_ready(&self) {
        self.wait_for_output("watch path is:");
    }

    /// Waits until the first walk is over. From then on a restart detects what changed while the program was down.
    pub fn wait_for_record(&self) {
        wait_until("the state of the tree is on record", || self.has_record());
    }

    /// True when the first walk of any start is over.
    pub fn has_record(&self) -> bool {
        let is_record = |name: &str| name.starts_with("record-") && name.ends_with(".snapshot");
        let files = self.state_files();
        files.iter().any(|path| is_record(&path.file_name().unwrap().to_string_lossy()))
    }

    /// The files of the state directory.
    pub fn state_files(&self) -> Vec<PathBuf> {
        let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        list(&self.dir.join("state")).flat_map(|dir| list(&dir).collect::<Vec<_>>()).collect()
    }

    /// How many bytes the files of the state directory have.
    pub fn state_bytes(&self) -> u64 {
        let sizes = self.state_files().into_iter().filter_map(|file| fs::metadata(file).ok());
        sizes.map(|meta| meta.len()).sum()
    }

    /// Confirms the deletions, as the alarm of a mass deletion asks.
    pub fn confirm_deletions(&self) {
        let files = self.state_files();
        let state = files[0].parent().unwrap();
        fs::write(state.join("confirm-deletions"), "").unwrap();
    }

    /// Waits until the program has printed or logged `text`.
    pub fn wait_for_output(&self, text: &str) {
        wait_until(&format!("the program says {text:?}"), || self.output().contains(text));
    }

    /// All that the program has printed and logged so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let mut status = None;
        wait_until("the program ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.child = None;
        status.unwrap()
    }

    /// Ends the program politely.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Ends the program politely, and starts it again without waiting for its end.
    pub fn restart(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut old = self.child.take().unwrap();
        self.launch();
        wait_until("the predecessor ends", || old.try_wait().unwrap().is_some());
    }

    /// Ends the program as a power cut would.
    pub fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.wait();
    }

    /// A path below the source.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.source.join(name)
    }

    /// Writes a file below the source, making its parents.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn collect(&self, stream: impl std::io::Read + Send + 'static) {
        let output = Arc::clone(&self.output);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                output.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- output of sersync2\n{}----", self.output());
        }
    }
}
