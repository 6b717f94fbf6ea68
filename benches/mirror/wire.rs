//! A forwarder between a mirror and the daemon: counts the bytes, and delays them by half a round trip each way.
//! Knows nothing about the data.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A forwarder on a free port of 127.0.0.1; ended when dropped.
pub struct Wire {
    /// The port that it listens on.
    pub port: u16,
    bytes: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Wire {
    /// Forwards to `target`; each byte arrives half of `round_trip` after it was sent.
    pub fn start(target: u16, round_trip: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let wire = Self { port, bytes: Arc::default(), ended: Arc::default() };
        let (bytes, ended) = (Arc::clone(&wire.bytes), Arc::clone(&wire.ended));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // The daemon's queue is short. A connection that has to retry after a second must not block the others.
                let bytes = Arc::clone(&bytes);
                std::thread::spawn(move || {
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                        carry(&client, &server, round_trip / 2, &bytes);
                        carry(&server, &client, round_trip / 2, &bytes);
                    }
                });
            }
        });
        Ok(wire)
    }

    /// Bytes that have passed so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for clients.
        _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Forwards one direction: a thread reads and notes the time, and another one writes after the delay.
fn carry(from: &TcpStream, to: &TcpStream, delay: Duration, bytes: &Arc<AtomicU64>) {
    let (Ok(mut from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    // Only this forwarder causes the delay, not its sockets.
    _ = to.set_nodelay(true);
    let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || deliver(&receiver, to));
    let bytes = Arc::clone(bytes);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            bytes.fetch_add(count as u64, Ordering::Relaxed);
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        // An empty message is the end of the stream, which is delayed too.
        _ = sender.send((Instant::now() + delay, Vec::new()));
    });
}

fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, piece) in pieces {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() {
            break;
        }
        if to.write_all(&piece).is_err() {
            _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}
