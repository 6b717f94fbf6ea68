//! One client: its socket, its input, its output, and its deadline.
//! Does not know the routes; `server.rs` provides the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hosts::Hosts;
use super::http::{self, HttpError, HttpRequest, Method, REQUEST_MAX, TIMEOUT};
use super::routes::Content;

/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a client may stop reading its answer.
const WRITE_TIME: Duration = Duration::from_secs(20);
/// How long a client may take to hang up after its answer.
const FAREWELL_TIME: Duration = Duration::from_secs(2);
/// The maximum size of one write, so that one client does not delay the others.
const WRITTEN_AT_ONCE: usize = 256 << 10;

/// One client.
pub struct Client {
    stream: TcpStream,
    state: State,
    input: Vec<u8>,
    /// The parts to send, and how much of the first part has been sent.
    output: Vec<Arc<[u8]>>,
    sent: usize,
    deadline: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It is sending its request.
    Asks,
    /// The main loop has been asked for a snapshot.
    Waits(HttpRequest),
    /// It is reading its answer.
    Reads,
    /// It gets an event after each change.
    Streams,
    /// It has its answer. Wait until it hangs up: if we closed the connection with unread input, the kernel
    /// would discard the part of the answer that it has not read yet.
    Farewell,
    Gone,
}

/// What `poll` waits for on a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Input, or the client hangs up.
    Read,
    /// Room for output.
    Write,
    /// Either.
    ReadAndWrite,
}

impl Client {
    /// A new client; `None` if its socket cannot be used.
    pub fn new(stream: TcpStream, now: Instant) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        // Small answers must not wait for an acknowledgement. If this fails, they only arrive later.
        _ = stream.set_nodelay(true);
        Some(Self {
            stream,
            state: State::Asks,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            deadline: Some(now + REQUEST_TIME),
        })
    }

    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    pub fn is_streaming(&self) -> bool {
        self.state == State::Streams
    }

    /// The client's request, while it waits for a snapshot.
    pub fn waiting_for(&self) -> Option<HttpRequest> {
        match &self.state {
            State::Waits(asked) => Some(asked.clone()),
            _ => None,
        }
    }

    pub fn wants(&self) -> Wants {
        match self.state {
            State::Reads => Wants::Write,
            State::Streams if !self.output.is_empty() => Wants::ReadAndWrite,
            _ => Wants::Read,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Continues after `poll` has reported the socket; returns the request when it is complete.
    ///
    /// # Errors
    /// When its request is refused.
    pub fn progress(
        &mut self,
        now: Instant,
        hosts: &Hosts,
    ) -> Result<Option<HttpRequest>, HttpError> {
        match self.state {
            State::Asks => {
                let before = self.input.len();
                self.read();
                match self.input.len() > before {
                    true => return http::parse(&self.input, hosts),
                    false => return Ok(None),
                }
            }
            State::Waits(_) | State::Farewell => self.discard(),
            State::Reads => self.write(now),
            State::Streams => {
                self.discard();
                self.write(now);
            }
            State::Gone => {}
        }
        Ok(None)
    }

    /// Sends an answer; the connection ends after it.
    pub fn answer(&mut self, head: Vec<u8>, content: &Content, method: Method) {
        self.output = vec![head.into()];
        if method == Method::Get && !content.body.is_empty() {
            self.output.push(Arc::clone(&content.body));
        }
        self.sent = 0;
        self.state = State::Reads;
        // The first written byte sets it again.
        self.deadline = self.deadline.map(|at| at + WRITE_TIME);
    }

    /// Makes the client wait for a snapshot.
    pub fn wait_for_snapshot(&mut self, asked: HttpRequest) {
        self.state = State::Waits(asked);
    }

    /// Sends events to the client from now on.
    pub fn start_stream(&mut self, now: Instant, head: Vec<u8>, method: Method) {
        self.output = vec![head.into(), Arc::from(&b"retry: 3000\n\n"[..])];
        self.sent = 0;
        self.deadline = Some(now + WRITE_TIME);
        self.state = State::Streams;
        if method == Method::Head {
            self.output.truncate(1);
            self.state = State::Reads;
        }
    }

    /// Sends an event, unless the client has not read the previous one yet.
    pub fn send_event(&mut self, now: Instant, event: &Arc<[u8]>) {
        let is_first = self.output.len() == 2 && self.sent == 0;
        if self.output.is_empty() || is_first {
            self.output.push(Arc::clone(event));
            self.deadline = Some(now + WRITE_TIME);
        }
    }

    /// Ends a connection that is past its deadline. A client without a complete request gets an answer that says so.
    pub fn heed_time(&mut self, now: Instant) -> Option<HttpError> {
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        if self.state == State::Asks && !self.input.is_empty() {
            let text = format!("the request was not complete within {} s", REQUEST_TIME.as_secs());
            self.deadline = Some(now);
            return Some(HttpError::new(TIMEOUT, text));
        }
        self.state = State::Gone;
        None
    }

    fn read(&mut self) {
        let mut part = [0; 4096];
        while self.input.len() < REQUEST_MAX {
            match self.stream.read(&mut part) {
                Ok(0) => return self.state = State::Gone,
                Ok(n) => self.input.extend_from_slice(&part[..n]),
                Err(error) => return self.note(&error),
            }
        }
    }

    /// Reads and discards input, a bounded piece at a time, until the client hangs up.
    fn discard(&mut self) {
        match self.stream.read(&mut [0; 16 << 10]) {
            Ok(0) => self.state = State::Gone,
            Ok(_) => {}
            Err(error) => self.note(&error),
        }
    }

    fn write(&mut self, now: Instant) {
        let mut budget = WRITTEN_AT_ONCE;
        while let Some(part) = self.output.first() {
            let rest = &part[self.sent..];
            if rest.is_empty() {
                self.output.remove(0);
                self.sent = 0;
                continue;
            }
            if budget == 0 {
                return;
            }
            match self.stream.write(&rest[..rest.len().min(budget)]) {
                Ok(n) => {
                    self.sent += n;
                    budget -= n;
                    self.deadline = Some(now + WRITE_TIME);
                }
                Err(error) => return self.note(&error),
            }
        }
        match self.state {
            State::Streams => self.deadline = None,
            State::Reads => {
                self.deadline = Some(now + FAREWELL_TIME);
                self.state = State::Farewell;
                if self.stream.shutdown(Shutdown::Write).is_err() {
                    self.state = State::Gone;
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            self.state = State::Gone;
        }
    }
}
