//! The status page at `<host hostip port>`: page, JSON, metrics and health of one instance; read-only.
//! One thread serves all clients; a slow client never delays a change.

mod client;
pub mod hosts;
pub mod http;
mod listen;
pub mod routes;
mod server;
#[cfg(test)]
pub mod words;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};

use crate::config::{HostConfig, PageAccess};
use crate::ground::lock::lock;
use crate::ground::thread::JoinedThread;
use crate::snapshot::{Snapshot, SnapshotReader};
use routes::Site;
use server::PageServer;

/// The maximum number of clients at a time; one more gets 503.
pub const CLIENTS_MAX: usize = 128;
/// The maximum number of clients that follow `/events`.
pub const STREAMS_MAX: usize = 32;

/// What the page shows besides snapshots.
pub struct PageSetup {
    /// The configuration in force as JSON, without secrets.
    pub config: Box<dyn Fn() -> String + Send>,
    /// The last warnings of the log, oldest first.
    pub log: Box<dyn Fn() -> Vec<String> + Send>,
}

/// The running page; dropping it ends its thread.
pub struct Page {
    shared: Arc<Shared>,
    _thread: JoinedThread,
    address: std::net::SocketAddr,
}

/// What the thread, the main loop and the handle share.
struct Shared {
    wake: OwnedFd,
    stop: AtomicBool,
    /// The latest snapshot, until the thread takes it.
    latest: Mutex<Option<Arc<Snapshot>>>,
}

impl Shared {
    /// Wakes the thread.
    fn wake_up(&self) {
        // Fails only when the counter is full; then the thread is about to wake anyway.
        _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn put(&self, snapshot: &Arc<Snapshot>) {
        *lock(&self.latest) = Some(Arc::clone(snapshot));
        self.wake_up();
    }

    fn take(&self) -> Option<Arc<Snapshot>> {
        lock(&self.latest).take()
    }
}

impl Page {
    /// Opens the port and starts the thread. If that fails, there is one line in the log and no page.
    pub fn start(host: &HostConfig, reader: SnapshotReader, setup: PageSetup) -> Option<Self> {
        if host.page == PageAccess::Off {
            return None;
        }
        let listener = match listen::open(host) {
            Ok(listener) => listener,
            Err(refused) => {
                log::log!(refused.level, "{}", refused.text);
                return None;
            }
        };
        match Self::serve(host, listener, reader, setup) {
            Ok(page) => {
                log::info!("the status page is at http://{}/", page.address);
                Some(page)
            }
            Err(error) => {
                log::warn!("the status page is off: {error}");
                None
            }
        }
    }

    fn serve(
        host: &HostConfig,
        listener: std::net::TcpListener,
        reader: SnapshotReader,
        setup: PageSetup,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { wake, stop, latest: Mutex::new(None) });
        let site = Site::new(setup.config, setup.log);
        let hosts = listen::hosts(host);
        let server = PageServer::new(listener, Arc::clone(&shared), reader, site, hosts);
        let thread = JoinedThread::start("page", move || server.run())?;
        Ok(Self { shared, _thread: thread, address })
    }

    /// The address at which it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake_up();
    }
}
