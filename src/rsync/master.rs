//! The ssh connection that is kept between runs (ssh's `ControlMaster`), so that a run needs no handshake.
//! Supplies the options for ssh and closes the connection. ssh itself opens it, and closes it after long disuse.

use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::destination::Destination;

/// ssh closes a connection that was unused for so many seconds.
const PERSIST_S: u32 = 7_200;

/// The longest path of a socket. The kernel allows 107 bytes, and ssh appends 17 while it makes the socket.
const PATH_MAX: usize = 90;

/// How long an idle ssh may take to confirm that it ends.
const PATIENCE: Duration = Duration::from_millis(200);

/// Options with which an operator configures connection sharing.
const OWN_WORDS: [&str; 2] = ["controlmaster", "controlpath"];

/// Says hello and asks the ssh that listens to end (OpenSSH, PROTOCOL.mux: MUX_MSG_HELLO, MUX_C_TERMINATE).
const TERMINATE: [u8; 24] = [
    0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 4, // hello, version 4
    0, 0, 0, 8, 0x10, 0, 0, 5, 0, 0, 0, 0, // terminate, request 0
];

/// The shared connection of one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    socket: PathBuf,
}

impl Master {
    /// A connection whose socket is beside the instance's state and private to its owner. `None` if that is impossible,
    /// or if the operator's `shell` or ssh's configuration already sets up connection sharing.
    pub fn of(destination: &Destination, shell: Option<&str>, state: &Path) -> Option<Self> {
        let says_it = |text: &str| {
            let text = text.to_ascii_lowercase();
            OWN_WORDS.iter().any(|word| text.contains(word))
        };
        let own = shell.unwrap_or_default();
        let shares = own.split_whitespace().any(|word| word.starts_with("-S") || word == "-M");
        if shares || says_it(own) || configurations().iter().any(|text| says_it(text)) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (state, destination.url(), own).hash(&mut hasher);
        // Beside the instance's own directory: that name may be too long for a socket's path.
        let directory = state.parent()?.join("ssh");
        let socket = directory.join(format!("{:016x}", hasher.finish()));
        let bytes = socket.as_os_str().as_bytes();
        // rsync splits the command at blanks and reads quotes, and ssh reads %.
        let is_plain = bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(b));
        if bytes.len() > PATH_MAX || !is_plain {
            return None;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
        Some(Self { socket })
    }

    /// One with this socket.
    #[cfg(test)]
    pub fn at(socket: &str) -> Self {
        Self { socket: socket.into() }
    }

    /// Options for ssh. If an option is given twice, ssh takes the first. An idle connection wakes both sides once a minute.
    pub fn words(&self) -> String {
        format!(
            "-o ControlMaster=auto -o ControlPath={} -o ControlPersist={PERSIST_S} -o ServerAliveInterval=60",
            self.socket.display()
        )
    }

    /// False when the connection is certainly closed. Does not disturb the ssh that listens.
    pub fn may_be_open(&self) -> bool {
        self.socket.exists()
    }

    /// True when the connection is open.
    pub fn is_open(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok()
    }

    /// The remote shell for a run that uses the open connection and never makes one: it reads no configuration and no key.
    pub fn client_words(&self, program: &str) -> String {
        format!(
            "{program} -F none -o BatchMode=yes -o LogLevel=ERROR -o ControlMaster=no -o ControlPath={} -o ProxyCommand=false",
            self.socket.display()
        )
    }

    /// Closes the connection, if there is one: it may be dead, and its users would wait.
    pub fn end(&self) {
        if let Ok(mut stream) = UnixStream::connect(&self.socket) {
            let limits = stream.set_read_timeout(Some(PATIENCE)).is_ok()
                && stream.set_write_timeout(Some(PATIENCE)).is_ok();
            if limits && stream.write_all(&TERMINATE).is_ok() {
                // ssh answers before it ends. Wait only briefly: this ssh may be unable to answer.
                let mut answer = Vec::new();
                _ = stream.take(1_024).read_to_end(&mut answer);
            }
        }
        _ = std::fs::remove_file(&self.socket);
    }
}

/// ssh's configuration files that exist.
fn configurations() -> Vec<String> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh/config"));
    let included = std::fs::read_dir("/etc/ssh/ssh_config.d").into_iter().flatten().flatten();
    let files = home.into_iter().chain([PathBuf::from("/etc/ssh/ssh_config")]);
    let texts = files.chain(included.map(|entry| entry.path()));
    let texts = texts.filter_map(|file| std::fs::read_to_string(file).ok());
    let is_said = |line: &&str| !line.trim_start().starts_with('#');
    texts.map(|text| text.lines().filter(is_said).collect::<Vec<_>>().join("\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Host;

    fn destination() -> Destination {
        let host = Host { name: "h".into(), ..Host::default() };
        Destination::Ssh { host, path: "/srv".into() }
    }

    #[test]
    fn who_says_how_connections_are_shared_is_left_alone() {
        let state = Path::new("/nowhere/state/instance");
        for own in ["ssh -S /tmp/x", "ssh -o ControlMaster=no", "ssh -o controlpath=none", "ssh -M"]
        {
            assert_eq!(Master::of(&destination(), Some(own), state), None, "{own}");
        }
        let long = PathBuf::from("/s".repeat(60)).join("instance");
        assert_eq!(Master::of(&destination(), None, &long), None);
        assert_eq!(Master::of(&destination(), None, Path::new("/with blank/instance")), None);
    }
}
