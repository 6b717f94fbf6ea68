//! The socket file: creates it with private permissions, and connects to it even if its path is too long for an address.
//! Does not know the protocol.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::SOCKET;

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// How long an instance may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// A path that fits into a socket address; a long path is replaced by one through the open directory's descriptor.
struct ShortPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        if SocketAddrUnix::new(&path).is_ok() {
            return Ok(Self { path, _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(SOCKET);
        Ok(Self { path, _directory: Some(directory) })
    }

    fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(&self.path)?)
    }
}

/// Listens in a state directory. The caller holds its lock, so an existing socket was left by a killed program.
///
/// # Errors
/// When the socket cannot be created.
pub fn listen_in(directory: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let short = ShortPath::new(directory)?;
    bind(&socket, &short.address()?)?;
    fs::set_permissions(directory.join(SOCKET), Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Connects to the instance of a state directory. An instance that accepts no connection for some seconds hangs.
///
/// # Errors
/// When nothing listens (connection refused, or no such file), or the connection is not accepted (would block).
pub fn connect_to(directory: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    let short = ShortPath::new(directory)?;
    connect(&socket, &short.address()?)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_an_address_is_reached_too() {
        let dir = tempfile::tempdir().unwrap();
        for length in [1, 90, 200] {
            let state = dir.path().join("d".repeat(length));
            fs::create_dir(&state).unwrap();
            assert_eq!(connect_to(&state).unwrap_err().kind(), io::ErrorKind::NotFound);
            let listener = listen_in(&state).unwrap();
            let mode = fs::symlink_metadata(state.join(SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            connect_to(&state).unwrap();
            drop(listener);
            assert_eq!(connect_to(&state).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            listen_in(&state).unwrap();
        }
    }
}
