//! Many remotes as the field has them: a machine for each, here a daemon for each, at addresses of their own.
//! What one of them allows or does says nothing about the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::Rig;
use super::tool::LIMIT;
use super::until;
use crate::support::{children_of, kill};

/// A daemon with the modules of a rig at an address of its own; ended when dropped.
pub struct Machine {
    address: IpAddr,
    child: Child,
}

impl Machine {
    /// One for each module of the rig, at the port of its daemon.
    pub fn start_all(rig: &Rig) -> io::Result<Vec<Self>> {
        let machines: Vec<_> =
            (0..rig.modules.len()).map(|n| Self::start(rig, n)).collect::<io::Result<_>>()?;
        for machine in &machines {
            let address = SocketAddr::new(machine.address, rig.port());
            let listens = || TcpStream::connect(address).is_ok();
            until(Instant::now(), LIMIT, Duration::from_millis(5), listens)
                .ok_or(io::ErrorKind::TimedOut)?;
        }
        Ok(machines)
    }

    fn start(rig: &Rig, number: usize) -> io::Result<Self> {
        let (high, low) = (1 + number / 250, 1 + number % 250);
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, high as u8, low as u8));
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach"]).arg(format!("--address={address}"));
        command.arg(format!("--port={}", rig.port()));
        command.arg(format!("--config={}", rig.daemon.config().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { address, child: command.spawn()? })
    }

    /// As the configuration names it.
    pub fn ip(&self) -> String {
        self.address.to_string()
    }

    /// From now on its connections stand, and nothing is said any more.
    pub fn freeze(&self) {
        // The daemon first: it makes no further processes then.
        for pid in [self.child.id()].into_iter().chain(children_of(self.child.id())) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                _ = kill_process(pid, Signal::STOP);
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        children_of(self.child.id()).into_iter().for_each(kill);
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
