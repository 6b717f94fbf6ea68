//! Where a remote is: a module of an rsync daemon, a directory behind ssh, or a directory of this machine.
//! Says how a place is named, written and told from others; knows no rsync option and reaches nothing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The default port of an rsync daemon.
pub const DAEMON_PORT: u16 = 873;

/// A place that holds a copy. Its [`Display`](fmt::Display) is the way operators write it, without user and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A module of an rsync daemon, or a directory below one.
    Daemon {
        /// Where the daemon listens.
        host: Host,
        /// `module` or `module/sub`.
        module: String,
    },
    /// A directory on a machine that is reached with ssh.
    Ssh {
        /// The machine.
        host: Host,
        /// Absolute, or relative to the user's home directory.
        path: String,
    },
    /// A directory of this machine, such as a mounted share.
    Local {
        /// Absolute, without a trailing slash.
        path: PathBuf,
    },
}

/// Another machine, and our user there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The user, in front of `@`.
    pub user: Option<String>,
    /// A name or an address; an IPv6 address with or without brackets.
    pub name: String,
    /// The port, when it is not the usual one of the protocol.
    pub port: Option<u16>,
}

/// The key of a place: equal for two destinations that are the same directory, whatever their options are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey(Vec<u8>);

impl DestinationKey {
    /// The keys of the directories above, from the nearest up, as far as they are on that machine and in that module.
    pub fn above(&self) -> impl Iterator<Item = DestinationKey> {
        let start = match self.0.iter().position(|&b| b == b':') {
            // `host::module/sub` has nothing above its module; `host:/path` and `host:path` do.
            Some(at) if !self.0.starts_with(b"/") => at + 1,
            _ => 0,
        };
        let slashes: Vec<usize> =
            (start..self.0.len()).filter(|&at| self.0[at] == b'/').rev().collect();
        slashes.into_iter().filter_map(move |at| {
            let end = if at == start { at + 1 } else { at };
            (end < self.0.len()).then(|| DestinationKey(self.0[..end].to_vec()))
        })
    }

    /// The key as bytes, for files.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Destination {
    /// The key of the directory. It depends neither on the access (a password, a shell) nor on the spelling (letter case of the
    /// host, doubled slashes).
    pub fn key(&self) -> DestinationKey {
        let mut key = Vec::new();
        match self {
            Self::Daemon { host, module } => {
                key.extend(host.name.to_ascii_lowercase().into_bytes());
                if let Some(port) = host.port.filter(|&port| port != DAEMON_PORT) {
                    key.extend(format!(":{port}").into_bytes());
                }
                key.extend_from_slice(b"::");
                key.extend(plain_path(module.as_bytes()));
            }
            Self::Ssh { host, path } => {
                // A relative path begins in the home directory, which depends on the user.
                if let Some(user) = host.user.as_ref().filter(|_| !path.starts_with('/')) {
                    key.extend(format!("{user}@").into_bytes());
                }
                key.extend(host.name.to_ascii_lowercase().into_bytes());
                if let Some(port) = host.port {
                    key.extend(format!(":{port}").into_bytes());
                }
                key.push(b':');
                key.extend(plain_path(path.as_bytes()));
            }
            Self::Local { path } => key.extend(plain_path(path.as_os_str().as_bytes())),
        }
        DestinationKey(key)
    }

    /// The machine; `None` for this one.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Daemon { host, .. } | Self::Ssh { host, .. } => Some(host),
            Self::Local { .. } => None,
        }
    }

    /// The user in front of `@`.
    pub fn user(&self) -> Option<&str> {
        self.host().and_then(|host| host.user.as_deref())
    }

    /// True when ssh carries the protocol.
    pub fn is_ssh(&self) -> bool {
        matches!(self, Self::Ssh { .. })
    }

    /// The module or the path, for sentences.
    pub fn name(&self) -> String {
        match self {
            Self::Daemon { module, .. } => module.clone(),
            Self::Ssh { path, .. } => path.clone(),
            Self::Local { path } => path.display().to_string(),
        }
    }

    /// The directory as rsync's error messages name it: `/sub` below a module, otherwise the path.
    pub fn directory(&self) -> &[u8] {
        let directory = match self {
            Self::Daemon { module, .. } => module.find('/').map_or("", |at| &module[at..]),
            Self::Ssh { path, .. } => path,
            Self::Local { path } => return path.as_os_str().as_bytes(),
        };
        directory.trim_end_matches('/').as_bytes()
    }

    /// The last word of an rsync command: `user@host::module/`, `user@host:path/` or `/path/`.
    pub fn word(&self) -> OsString {
        let mut word = OsString::new();
        if let Some(user) = self.user() {
            word.push(user);
            word.push("@");
        }
        let trimmed = match self {
            Self::Daemon { host, module } => {
                word.push(format!("{host}::"));
                OsStr::new(module.trim_end_matches('/'))
            }
            Self::Ssh { host, path } => {
                word.push(format!("{host}:"));
                let trimmed = path.trim_end_matches('/');
                // A path of slashes alone is the root directory; an empty one is the home directory.
                if trimmed.is_empty() && path.starts_with('/') {
                    word.push("/");
                }
                OsStr::new(trimmed)
            }
            Self::Local { path } => path.as_os_str(),
        };
        word.push(trimmed);
        if !trimmed.is_empty() && trimmed.as_bytes().last() != Some(&b'/') {
            word.push("/");
        }
        word
    }

    /// With user and port, as one word for people and programs: `rsync://bob@192.0.2.20:874/www`. It holds no secret.
    pub fn url(&self) -> String {
        let (scheme, host, path) = match self {
            Self::Daemon { host, module } => ("rsync", host, module),
            Self::Ssh { host, path } => ("ssh", host, path),
            Self::Local { path } => return path.display().to_string(),
        };
        let user = host.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let port = host.port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}://{user}{host}{port}/{}", path.trim_start_matches('/'))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { host, module } => write!(f, "{host}::{module}"),
            Self::Ssh { host, path } => write!(f, "{host}:{path}"),
            Self::Local { path } => write!(f, "{}", path.display()),
        }
    }
}

impl Host {
    /// The name or address without brackets, for a resolver.
    pub fn address(&self) -> &str {
        self.name.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Host {
    /// An IPv6 address stands in brackets, or its colons would end the host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') && !self.name.starts_with('[') {
            write!(f, "[{}]", self.name)
        } else {
            f.write_str(&self.name)
        }
    }
}

/// The path without doubled, trailing or `.` parts, so that equal directories are equal bytes.
fn plain_path(path: &[u8]) -> Vec<u8> {
    let plain: PathBuf = Path::new(OsStr::from_bytes(path)).components().collect();
    plain.into_os_string().into_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host { name: name.into(), ..Host::default() }
    }

    fn daemon(host: Host, module: &str) -> Destination {
        Destination::Daemon { host, module: module.into() }
    }

    fn ssh(host: Host, path: &str) -> Destination {
        Destination::Ssh { host, path: path.into() }
    }

    fn user(name: &str, host: Host) -> Host {
        Host { user: Some(name.into()), ..host }
    }

    #[test]
    fn what_lies_above_a_destination_ends_at_its_module_or_its_machine() {
        let above = |destination: Destination| {
            let keys = destination.key().above().collect::<Vec<_>>();
            keys.iter().map(|key| String::from_utf8_lossy(&key.0).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(above(daemon(host("h"), "m/a//b/")), ["h::m/a", "h::m"]);
        assert_eq!(above(daemon(host("h"), "m")), [""; 0]);
        assert_eq!(above(ssh(host("h"), "/a/b")), ["h:/a", "h:/"]);
        assert_eq!(above(ssh(host("h"), "/")), [""; 0]);
        assert_eq!(above(Destination::Local { path: "/a/b".into() }), ["/a", "/"]);
    }

    #[test]
    fn a_destination_is_written_in_one_way() {
        let local = Destination::Local { path: "/backup/www".into() };
        for (destination, shown, word) in [
            (daemon(user("bob", host("h")), "m"), "h::m", "bob@h::m/"),
            (daemon(host("fe80::1"), "m/sub/"), "[fe80::1]::m/sub/", "[fe80::1]::m/sub/"),
            (ssh(host("h"), "/"), "h:/", "h:/"),
            (ssh(user("u", host("h")), "www"), "h:www", "u@h:www/"),
            (local, "/backup/www", "/backup/www/"),
        ] {
            assert_eq!(destination.to_string(), shown);
            assert_eq!(destination.word(), word);
        }
    }

    #[test]
    fn the_same_place_has_the_same_key_whatever_its_options_are() {
        let at_port = |port| Host { port: Some(port), ..host("h") };
        let same = [
            (daemon(host("h"), "m/sub"), daemon(user("bob", host("H")), "m//sub/")),
            (daemon(host("h"), "m"), daemon(at_port(873), "m")),
            (ssh(user("a", host("h")), "/www"), ssh(user("b", host("h")), "/www/")),
        ];
        for (one, other) in same {
            assert_eq!(one.key(), other.key(), "{one:?} {other:?}");
        }
        let different = [
            (daemon(host("h"), "m"), daemon(at_port(8730), "m")),
            (daemon(host("h"), "m"), daemon(host("i"), "m")),
            (daemon(host("h"), "m"), ssh(host("h"), "m")),
            (ssh(user("a", host("h")), "www"), ssh(user("b", host("h")), "www")),
            (ssh(host("h"), "/m"), Destination::Local { path: "/m".into() }),
        ];
        for (one, other) in different {
            assert_ne!(one.key(), other.key(), "{one:?} {other:?}");
        }
    }

    #[test]
    fn messages_name_the_directory_below_a_module() {
        assert_eq!(daemon(host("h"), "m").directory(), b"");
        assert_eq!(daemon(host("h"), "m/sub/").directory(), b"/sub");
        assert_eq!(ssh(host("h"), "/tmp/www/").directory(), b"/tmp/www");
    }
}
