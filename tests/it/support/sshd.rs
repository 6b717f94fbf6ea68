//! A real sshd on a free loopback port with a throwaway key, and an `ssh` that uses it without touching the user's files.
//! Accepts the user who runs the tests and nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::rsyncd::greets;
use super::{TestDir, free_port, wait_until};

/// A running sshd.
pub struct Sshd {
    /// The TCP port on 127.0.0.1.
    pub port: u16,
    dir: TestDir,
    child: Option<Child>,
}

impl Sshd {
    /// Starts one with fresh keys.
    pub fn start() -> Self {
        let dir = TestDir::new();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(key))
                .status()
                .unwrap();
            assert!(made.success(), "ssh-keygen failed");
        }
        fs::copy(dir.join("user_key.pub"), dir.join("authorized_keys")).unwrap();
        let mut sshd = Self { port: 0, dir, child: None };
        sshd.launch();
        sshd.write_client_files();
        sshd
    }

    fn launch(&mut self) {
        // sshd requires its privilege separation directory. It is missing if the package's service never ran.
        let _ = fs::create_dir_all("/run/sshd");
        for _ in 0..20 {
            self.port = free_port();
            let d = self.dir.path().display();
            // The shell must not read start-up files of the user who runs the tests: they may be slow or print something.
            let config = self.dir.file(
                "sshd_config",
                format!(
                    "Port {}\nListenAddress 127.0.0.1\nHostKey {d}/host_key\nAuthorizedKeysFile {d}/authorized_keys\n\
                     PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nStrictModes no\n\
                     UsePAM no\nPidFile none\nMaxStartups 1000\nSetEnv HOME={d}\n",
                    self.port
                ),
            );
            let mut child = Command::new("/usr/sbin/sshd")
                .args(["-D", "-e", "-f"])
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(self.dir.join("sshd.log")).unwrap())
                .spawn()
                .unwrap();
            let mut ended = false;
            wait_until("sshd greets", || {
                ended = child.try_wait().unwrap().is_some();
                ended || greets(self.port, b"SSH-2.0")
            });
            self.child = Some(child);
            if !ended {
                return;
            }
        }
        panic!("no sshd could be started");
    }

    fn write_client_files(&self) {
        let host_key = fs::read_to_string(self.dir.join("host_key.pub")).unwrap();
        self.dir.file("known_hosts", format!("[127.0.0.1]:{} {host_key}", self.port));
        let d = self.dir.path().display();
        // Programs under test call plain `ssh`; put this directory first in their PATH.
        let script = self.dir.file(
            "bin/ssh",
            format!(
                "#!/bin/sh\nexec /usr/bin/ssh -F none -i {d}/user_key -o IdentitiesOnly=yes -o UserKnownHostsFile={d}/known_hosts \"$@\"\n"
            ),
        );
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The machine's own `ssh`, with words that make it know this server and its key; for `-e`.
    pub fn client(&self) -> String {
        let d = self.dir.path().display();
        format!(
            "/usr/bin/ssh -F none -i {d}/user_key -o IdentitiesOnly=yes -o UserKnownHostsFile={d}/known_hosts"
        )
    }

    /// A value for `PATH` whose `ssh` knows this server and its key.
    pub fn path_variable(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.bin().display())
    }

    /// The directory of that `ssh`.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// From now on the key runs only this command, as `rrsync` is used.
    pub fn force_command(&self, command: &str) {
        let key = fs::read_to_string(self.dir.join("user_key.pub")).unwrap();
        let line = format!("restrict,command=\"{command}\" {key}");
        fs::write(self.dir.join("authorized_keys"), line).unwrap();
    }

    /// Makes the server refuse the throwaway key from now on.
    pub fn refuse_key(&self) {
        fs::write(self.dir.join("authorized_keys"), "").unwrap();
    }

    /// Makes the client forget the server's host key.
    pub fn forget_host_key(&self) {
        fs::write(self.known_hosts(), "").unwrap();
    }

    fn known_hosts(&self) -> PathBuf {
        Path::join(self.dir.path(), "known_hosts")
    }

    /// Stops the server and the connections it serves.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            for pid in super::children_of(child.id()) {
                super::kill(pid);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}
