//! Many remotes as in production, where each is a machine. Here each is a daemon with an address of its own.
//! So what one of them allows or does is independent of the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::Rig;
use super::tool::LIMIT;
use super::until;
use crate::support::{children_of, kill};

/// A daemon with the modules of a rig, at its own address; ended when dropped.
pub struct Machine {
    address: IpAddr,
    child: Child,
}

impl Machine {
    /// Starts one for each module of the rig, at the port of its daemon.
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

    /// The address for the configuration.
    pub fn ip(&self) -> String {
        self.address.to_string()
    }

    /// From now on its connections stay open but silent.
    pub fn freeze(&self) {
        // Stop the daemon first, so that it starts no further processes.
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
