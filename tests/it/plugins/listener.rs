//! A TCP listener that records what each connection sends, and answers as a test requires.
//! Knows just enough HTTP to find the end of a request.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::PATIENCE;

/// What a listener does with a connection.
#[derive(Clone)]
pub enum Manner {
    /// Reads to the end and sends nothing.
    Listen,
    /// Sends this at once, then reads to the end.
    Greet(&'static [u8]),
    /// Reads one HTTP request and sends this answer.
    Answer(&'static [u8]),
    /// Reads one request and never answers.
    Silent,
    /// Reads one request, then sends single bytes slowly, for ever.
    Drip,
}

/// How often an idle listener checks whether the test is over.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Listener {
    pub address: SocketAddr,
    heard: Arc<(Mutex<Vec<Vec<u8>>>, Condvar)>,
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(manner: Manner) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), manner)
    }

    pub fn start_at(address: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let record = Arc::clone(&heard);
        let (ended, end) = channel();
        let thread =
            Builder::new().spawn(move || serve(&listener, &manner, &record, &end)).unwrap();
        Self { address, heard, ended: Some(ended), thread: Some(thread) }
    }

    /// Waits for `count` connections, and returns what they sent.
    pub fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        let (heard, news) = &*self.heard;
        let (heard, result) =
            news.wait_timeout_while(heard.lock().unwrap(), PATIENCE, |h| h.len() < count).unwrap();
        assert!(!result.timed_out(), "{count} expected, {heard:?} came");
        heard.clone()
    }

    /// A port on which nothing listens any more.
    pub fn dead_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.ended.take());
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: &TcpListener,
    manner: &Manner,
    record: &(Mutex<Vec<Vec<u8>>>, Condvar),
    end: &Receiver<()>,
) {
    for stream in listener.incoming() {
        if end.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if let Manner::Greet(words) = manner {
            let _ = stream.write_all(words);
        }
        let heard = match manner {
            Manner::Listen | Manner::Greet(_) => read_all(&mut stream),
            Manner::Answer(_) | Manner::Silent | Manner::Drip => read_request(&mut stream),
        };
        record.0.lock().unwrap().push(heard);
        record.1.notify_all();
        match manner {
            Manner::Answer(words) => drop(stream.write_all(words)),
            Manner::Silent => wait_for_hangup(&mut stream, end),
            Manner::Drip => {
                while stream.write_all(b"x").is_ok()
                    && end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout)
                {}
            }
            Manner::Listen | Manner::Greet(_) => {}
        }
    }
}

/// Waits until the client hangs up or the test ends.
fn wait_for_hangup(stream: &mut TcpStream, end: &Receiver<()>) {
    stream.set_read_timeout(Some(PAUSE)).unwrap();
    let mut byte = [0];
    while end.try_recv() != Err(TryRecvError::Disconnected) {
        match stream.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    heard
}

fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        heard.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&heard).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |digits| digits.trim().parse().unwrap());
    let mut body = vec![0; length];
    let _ = stream.read_exact(&mut body);
    heard.extend(body);
    heard
}
