//! A real rsync daemon on a free loopback port, run in the foreground and stopped when dropped.
//! Does not touch the machine's own daemon or its configuration.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{TestDir, free_port, wait_until};

/// How a test daemon differs from the default one.
#[derive(Clone)]
pub struct Options {
    /// The daemon's program; the environment variable `SERSYNC_OLD_RSYNC` may name an old one for tests that want it.
    pub program: PathBuf,
    /// Lines for the global section, e.g. `socket options = TCP_NODELAY`.
    pub global: String,
    /// Lines for the module `data`, e.g. `max connections = 1`.
    pub module: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { program: "rsync".into(), global: String::new(), module: String::new() }
    }
}

/// A running daemon with one writable module `data`, and `auth` (the same directory; user `bob`, password `secret`).
pub struct Rsyncd {
    /// The TCP port on 127.0.0.1.
    pub port: u16,
    /// The directory of the module.
    pub data: PathBuf,
    dir: TestDir,
    child: Option<Child>,
    program: PathBuf,
}

impl Rsyncd {
    /// Starts the installed rsync as a daemon.
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// Starts a daemon with these options.
    pub fn start_with(options: &Options) -> Self {
        let dir = TestDir::new();
        let data = dir.dir("data");
        let secrets = dir.file("secrets", "bob:secret\n");
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
        let mut daemon = Self { port: 0, data, dir, child: None, program: options.program.clone() };
        daemon.write_config(options);
        daemon.launch(None);
        daemon
    }

    /// Starts a daemon with the configuration of a sample; its module is `data`. Its log and its lock are in a directory of their own.
    pub fn start_from(sample: &str, data: &Path) -> Self {
        let (dir, data) = (TestDir::new(), data.to_path_buf());
        let mut daemon = Self { port: 0, data, dir, child: None, program: "rsync".into() };
        assert!(sample.contains("/var/log/rsyncd.log"), "{sample}");
        let log = daemon.log_file().display().to_string();
        let text = sample.replace("/var/log/rsyncd.log", &log);
        let lock = daemon.dir.join("rsyncd.lock").display().to_string();
        fs::write(daemon.config(), format!("lock file = {lock}\n{text}")).unwrap();
        daemon.launch(None);
        daemon
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("rsyncd.conf")
    }

    fn write_config(&self, options: &Options) {
        // Chroot needs root. Without chroot the daemon munges links, so ordinary users switch that off.
        let chroot = if rustix::process::geteuid().is_root() {
            "use chroot = yes\nuid = 0\ngid = 0\n"
        } else {
            "use chroot = no\nmunge symlinks = no\n"
        };
        let text = format!(
            "{chroot}{global}\nlog file = {log}\nlock file = {lock}\n\n[data]\npath = {data}\nread only = no\n{module}\n\n\
             [auth]\npath = {data}\nread only = no\nauth users = bob\nsecrets file = {secrets}\n",
            global = options.global,
            module = options.module,
            log = self.log_file().display(),
            // With the default lock file, the connections of all daemons of the machine would be counted together.
            lock = self.dir.join("rsyncd.lock").display(),
            data = self.data.display(),
            secrets = self.dir.join("secrets").display(),
        );
        fs::write(self.config(), text).unwrap();
    }

    fn launch(&mut self, port: Option<u16>) {
        for _ in 0..20 {
            self.port = port.unwrap_or_else(free_port);
            let mut child = Command::new(&self.program)
                .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
                .arg(format!("--port={}", self.port))
                .arg(format!("--config={}", self.config().display()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // A daemon of another test may have taken the port and greet too. Only this daemon's log shows whether it was this one.
            let before = self.connections();
            let mut ended = false;
            wait_until("the rsync daemon greets", || {
                ended = child.try_wait().unwrap().is_some();
                ended || greets(self.port, b"@RSYNCD:") && self.connections() > before
            });
            self.child = Some(child);
            if !ended {
                return;
            }
        }
        panic!("no rsync daemon could be started");
    }

    /// Changes the configuration; it applies to new connections.
    pub fn reconfigure(&self, options: &Options) {
        self.write_config(options);
    }

    /// Stops the daemon and the connections it serves, as if the machine were gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            for pid in super::children_of(child.id()) {
                super::kill(pid);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port with the same configuration.
    pub fn start_again(&mut self) {
        self.stop();
        self.launch(Some(self.port));
    }

    /// The daemon's log.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("rsyncd.log")
    }

    /// How many clients the daemon has been connected to so far.
    fn connections(&self) -> usize {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        log.matches("connect from").count()
    }

    /// Changes the password of `bob` for module `auth`.
    pub fn set_password(&self, password: &str) {
        fs::write(self.dir.join("secrets"), format!("bob:{password}\n")).unwrap();
    }

    /// A password file for the module `auth` with the right mode.
    pub fn password_file(&self, password: &str) -> PathBuf {
        let path = self.dir.file(format!("password-of-{}-letters", password.len()), password);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The path of `name` on the remote.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data.join(name)
    }
}

impl Drop for Rsyncd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// True when the server at `port` greets with `hello`.
pub fn greets(port: u16, hello: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(super::LIMIT));
    let mut greeting = vec![0; hello.len()];
    stream.read_exact(&mut greeting).is_ok() && greeting == hello
}
