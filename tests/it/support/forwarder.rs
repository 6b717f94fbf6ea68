//! A TCP forwarder between a mirror and its remote that simulates one network fault at a time.
//! It does not change the data.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The state of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Everything is forwarded.
    Sound,
    /// The machine answers, but nothing listens. Existing connections are reset.
    Refusing,
    /// Packets are lost: new connections get no answer, and existing ones become silent.
    BlackHole,
    /// Connections are accepted and then stay silent; existing ones become silent too.
    Silent,
}

/// After this many bytes, a connection has sent its handshake and its file list.
const UNDER_WAY: usize = 32 << 10;

/// A forwarder that listens on an address of its own.
pub struct Forwarder {
    address: SocketAddr,
    to: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<TcpListener>,
    /// A listener that accepts nothing, and the connections that fill its queue.
    hole: Option<(TcpListener, Vec<TcpStream>)>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    network: Network,
    /// Bytes per second towards the remote; `None`: no limit.
    rate: Option<usize>,
    open: Vec<TcpStream>,
    /// How many connections there were so far.
    connections: u64,
    /// Data of connections with a lower number is held back after their first [`UNDER_WAY`] bytes.
    held_before: u64,
    /// Bytes that are held back.
    held: usize,
    /// Incremented for each listener, so that the thread of an old one ends.
    epoch: u64,
}

impl Forwarder {
    /// Listens on 127.0.0.`host`:`port`, and forwards to 127.0.0.1:`to`.
    pub fn start(host: u8, port: u16, to: u16) -> Self {
        let state = State {
            network: Network::Sound,
            rate: None,
            open: Vec::new(),
            connections: 0,
            held_before: 0,
            held: 0,
            epoch: 0,
        };
        let mut forwarder = Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), port),
            to: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), to),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
            listener: None,
            hole: None,
        };
        forwarder.listen();
        forwarder
    }

    /// The address as a configuration writes it.
    pub fn ip(&self) -> String {
        self.address.ip().to_string()
    }

    /// Changes the state of the network.
    pub fn set(&mut self, network: Network) {
        let before = std::mem::replace(&mut self.shared.state.lock().unwrap().network, network);
        if matches!(network, Network::Refusing | Network::BlackHole) {
            self.stop_listening();
        }
        if network == Network::Refusing || before == Network::Silent {
            self.reset_connections();
        }
        if network == Network::BlackHole {
            self.fill_queue();
        } else if network != Network::Refusing && self.listener.is_none() {
            self.listen();
        }
        self.shared.changed.notify_all();
    }

    /// Limits the bytes per second towards the remote; `None`: no limit.
    pub fn set_rate(&self, rate: Option<usize>) {
        self.shared.state.lock().unwrap().rate = rate;
    }

    /// Holds back all data towards the remote after the beginning of each connection, until it is released.
    pub fn hold_back(&self) {
        self.shared.state.lock().unwrap().held_before = u64::MAX;
    }

    /// Holds back only the data of existing connections; new ones are not affected.
    pub fn hold_back_only_these(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.held_before = state.connections;
    }

    /// Delivers what was held back, even if the sender has gone.
    pub fn release(&self) {
        self.shared.state.lock().unwrap().held_before = 0;
        self.shared.changed.notify_all();
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.shared.state.lock().unwrap().held
    }

    /// Resets all existing connections.
    pub fn reset_connections(&self) {
        for stream in std::mem::take(&mut self.shared.state.lock().unwrap().open) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    fn listen(&mut self) {
        self.hole = None;
        let listener = bind(self.address);
        let shared = Arc::clone(&self.shared);
        let epoch = {
            let mut state = shared.state.lock().unwrap();
            state.epoch += 1;
            state.epoch
        };
        let (to, own) = (self.to, listener.try_clone().unwrap());
        self.listener = Some(listener);
        std::thread::spawn(move || {
            while let Ok((client, _)) = own.accept() {
                if shared.state.lock().unwrap().epoch != epoch {
                    return;
                }
                serve(client, to, &shared);
            }
        });
    }

    fn stop_listening(&mut self) {
        if self.listener.take().is_some() {
            self.shared.state.lock().unwrap().epoch += 1;
            // Wakes the thread, which then closes the port.
            let _ = TcpStream::connect(self.address);
        }
    }

    /// Makes a listener whose queue is full: the kernel drops all further connection attempts.
    fn fill_queue(&mut self) {
        let listener = bind(self.address);
        rustix::net::listen(&listener, 0).unwrap();
        let short = Duration::from_millis(50);
        let mut fillers = Vec::new();
        while let Ok(filler) = TcpStream::connect_timeout(&self.address, short) {
            fillers.push(filler);
            assert!(fillers.len() < 10, "the queue does not fill");
        }
        self.hole = Some((listener, fillers));
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop_listening();
        self.reset_connections();
    }
}

/// Binds the port, which a thread that is about to end may still hold.
fn bind(address: SocketAddr) -> TcpListener {
    let mut bound = None;
    super::wait_until(&format!("{address} is free"), || {
        bound = TcpListener::bind(address).ok();
        bound.is_some()
    });
    bound.unwrap()
}

/// Starts two threads that copy, one for each direction.
fn serve(client: TcpStream, to: SocketAddr, shared: &Arc<Shared>) {
    let (silent, number) = {
        let mut state = shared.state.lock().unwrap();
        state.connections += 1;
        state.open.retain(|stream| stream.peer_addr().is_ok());
        state.open.push(client.try_clone().unwrap());
        (state.network == Network::Silent, state.connections - 1)
    };
    if silent {
        return;
    }
    let Ok(remote) = TcpStream::connect(to) else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    shared.state.lock().unwrap().open.push(remote.try_clone().unwrap());
    for stream in [&client, &remote] {
        stream.set_nodelay(true).unwrap();
    }
    let ends = (client.try_clone().unwrap(), remote.try_clone().unwrap());
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::spawn(move || copy(client, remote, &up, Some(number)));
    std::thread::spawn(move || copy(ends.1, ends.0, &down, None));
}

/// Copies one direction; towards the remote with the `number` of the connection.
fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared, number: Option<u64>) {
    let upwards = number.is_some();
    let (mut sent, mut held) = (0, Vec::new());
    let mut buffer = vec![0; 16 << 10];
    let is_held = |state: &State| number.is_some_and(|number| number < state.held_before);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut state = shared.state.lock().unwrap();
        while matches!(state.network, Network::Silent | Network::BlackHole) {
            state = shared.changed.wait(state).unwrap();
        }
        let under_way = !held.is_empty() || sent + read > UNDER_WAY;
        if under_way && is_held(&state) {
            state.held += read;
            held.extend_from_slice(&buffer[..read]);
            continue;
        }
        let rate = state.rate.filter(|_| upwards);
        drop(state);
        sent += read;
        if to.write_all(&held).is_err() || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        held.clear();
        if let Some(rate) = rate {
            std::thread::sleep(Duration::from_secs_f64(read as f64 / rate as f64));
        }
    }
    let mut state = shared.state.lock().unwrap();
    while !held.is_empty() && is_held(&state) {
        state = shared.changed.wait(state).unwrap();
    }
    drop(state);
    let _ = to.write_all(&held);
    let _ = to.shutdown(Shutdown::Write);
}
