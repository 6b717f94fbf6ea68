//! The thread of the page: polls all clients, reads requests, writes answers, asks for snapshots.
//! Never waits for a single client. Asks the main loop at most four times a second, for any number of clients.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::{Client, Wants};
use super::hosts::Hosts;
use super::http::{HttpError, HttpRequest, OK, UNAVAILABLE, head};
use super::routes::{Content, EVENTS, Rendered, Route, Site};
use super::{CLIENTS_MAX, STREAMS_MAX, Shared};
use crate::ground::time::wall_ms;
use crate::snapshot::reader::NoSnapshot;
use crate::snapshot::{Snapshot, SnapshotReader};

/// All requests within this time get the same snapshot.
const FRESH: Duration = Duration::from_millis(250);
/// How long the main loop may take for a snapshot.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two events of a stream.
const STREAM_PAUSE: Duration = Duration::from_secs(1);
/// If nothing changes, followers still get a snapshot this often, because the shown ages grow.
const STREAM_SILENCE: Duration = Duration::from_secs(20);
/// How long no client is accepted when file descriptors run out, because the mirror needs them more.
const DESCRIPTORS_PAUSE: Duration = Duration::from_secs(1);
/// The maximum number of connections that are accepted before other clients are served again.
const ACCEPTED_AT_ONCE: usize = 64;
/// The nice value of the thread, so that the mirror comes first when the processor is busy.
const NICENESS: i32 = 10;

/// What the thread owns.
pub struct PageServer {
    listener: TcpListener,
    shared: Arc<Shared>,
    reader: SnapshotReader,
    site: Site,
    hosts: Hosts,
    clients: Vec<Client>,
    /// The last snapshot, and when it arrived.
    last: Option<(Instant, Rendered)>,
    /// The deadline for the main loop's answer; `None` when no snapshot is requested.
    asked: Option<Instant>,
    /// True while the main loop sends a snapshot after each change.
    following: Option<Arc<AtomicBool>>,
    /// When followers get a snapshot even without a change.
    silence: Instant,
    /// No client is accepted before this.
    closed_until: Option<Instant>,
}

impl PageServer {
    pub fn new(
        listener: TcpListener,
        shared: Arc<Shared>,
        reader: SnapshotReader,
        site: Site,
        hosts: Hosts,
    ) -> Self {
        Self {
            listener,
            shared,
            reader,
            site,
            hosts,
            clients: Vec::new(),
            last: None,
            asked: None,
            following: None,
            silence: now(),
            closed_until: None,
        }
    }

    /// Serves until the handle is dropped.
    pub fn run(mut self) {
        // Applies to this thread only. If it fails, the page still works.
        _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    log::error!("the status page ends: cannot wait for its clients: {error}");
                    return;
                }
            };
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let now = now();
            self.take_snapshot(now);
            self.serve_clients(now, &ready.clients);
            if ready.listener {
                self.accept(now);
            }
            self.heed_time(now);
            self.clients.retain(|client| !client.is_gone());
            self.follow_or_not(now);
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(self.clients.len() + 2);
        let of_listener = match self.closed_until {
            Some(_) => PollFlags::empty(),
            None => PollFlags::IN,
        };
        fds.push(PollFd::new(&self.shared.wake, PollFlags::IN));
        fds.push(PollFd::new(&self.listener, of_listener));
        for client in &self.clients {
            let flags = match client.wants() {
                Wants::Read => PollFlags::IN,
                Wants::Write => PollFlags::OUT,
                Wants::ReadAndWrite => PollFlags::IN | PollFlags::OUT,
            };
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), flags));
        }
        let timeout = self.next_deadline().map(|at| timespec(at.saturating_duration_since(now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let clients = fds[2..].iter().map(is_ready).collect();
        Ok(Ready { listener: is_ready(&fds[1]), clients })
    }

    /// When the thread must wake; `None`: only when a client needs it.
    fn next_deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(Client::deadline);
        let silence = self.clients.iter().any(Client::is_streaming).then_some(self.silence);
        clients.chain(silence).chain(self.asked).chain(self.closed_until).min()
    }

    fn take_snapshot(&mut self, now: Instant) {
        let mut number = [0; 8];
        // The result does not matter: a spurious wake-up finds no snapshot.
        _ = rustix::io::read(&self.shared.wake, &mut number);
        let Some(snapshot) = self.shared.take() else { return };
        self.asked = None;
        self.last = Some((now, Rendered::new(snapshot)));
        self.answer_waiting();
        self.stream(now);
    }

    /// Answers the clients that wait for a snapshot.
    fn answer_waiting(&mut self) {
        let Some((_, rendered)) = &self.last else { return };
        let wall = wall_ms();
        for client in &mut self.clients {
            if let Some(asked) = client.waiting_for()
                && let Some(content) =
                    Route::of(&asked).ok().and_then(|r| rendered.content(r, wall))
            {
                client.answer(head_of(&content, &self.site), &content, asked.method);
            }
        }
    }

    /// Sends the snapshot to followers; a follower that has not read the last event gets the next one.
    fn stream(&mut self, now: Instant) {
        let Some((_, rendered)) = &self.last else { return };
        for client in self.clients.iter_mut().filter(|client| client.is_streaming()) {
            client.send_event(now, &rendered.event());
        }
        self.silence = now + STREAM_SILENCE;
    }

    fn serve_clients(&mut self, now: Instant, ready: &[bool]) {
        for index in 0..self.clients.len() {
            if ready.get(index).copied().unwrap_or(false) {
                self.serve(now, index);
            }
        }
    }

    fn serve(&mut self, now: Instant, index: usize) {
        let client = &mut self.clients[index];
        match client.progress(now, &self.hosts) {
            Ok(None) => {}
            Ok(Some(asked)) => self.open(now, index, asked),
            Err(refusal) => refuse(client, &refusal, &self.site),
        }
    }

    /// Answers a request, at once or when there is a snapshot.
    fn open(&mut self, now: Instant, index: usize, asked: HttpRequest) {
        let route = match Route::of(&asked) {
            Ok(route) => route,
            Err(refusal) => return refuse(&mut self.clients[index], &refusal, &self.site),
        };
        if let Some(content) = self.site.fixed(route) {
            let head = head_of(&content, &self.site);
            return self.clients[index].answer(head, &content, asked.method);
        }
        if route == Route::Events {
            return self.open_stream(now, index, &asked);
        }
        let is_fresh = |(at, _): &&(Instant, Rendered)| now.duration_since(*at) < FRESH;
        if let Some((_, rendered)) = self.last.as_ref().filter(is_fresh)
            && let Some(content) = rendered.content(route, wall_ms())
        {
            let head = head_of(&content, &self.site);
            return self.clients[index].answer(head, &content, asked.method);
        }
        self.clients[index].wait_for_snapshot(asked);
        self.ask(now);
    }

    fn open_stream(&mut self, now: Instant, index: usize, asked: &HttpRequest) {
        let streams = self.clients.iter().filter(|client| client.is_streaming()).count();
        if streams >= STREAMS_MAX {
            let text =
                format!("{STREAMS_MAX} clients follow /events already; read /status instead");
            let refusal = HttpError::new(UNAVAILABLE, text);
            return refuse(&mut self.clients[index], &refusal, &self.site);
        }
        let head = head(OK, EVENTS, None, self.site.policy());
        self.clients[index].start_stream(now, head, asked.method);
        if let Some((_, rendered)) = &self.last {
            self.clients[index].send_event(now, &rendered.event());
        }
        self.silence = now + STREAM_SILENCE;
        self.ask(now);
    }

    /// Asks the main loop for a snapshot, unless one is already requested.
    fn ask(&mut self, now: Instant) {
        if self.asked.is_some() {
            return;
        }
        self.asked = Some(now + PATIENCE);
        let shared = Arc::clone(&self.shared);
        let receive = move |snapshot: &Arc<Snapshot>| {
            shared.put(snapshot);
            false
        };
        if let Err(error) = self.reader.follow(Duration::ZERO, receive) {
            self.give_up(now, error);
        }
    }

    /// Sends an error to clients that wait for a snapshot, and an event with the error to followers.
    fn give_up(&mut self, now: Instant, error: NoSnapshot) {
        self.asked = None;
        let event: Arc<[u8]> = format!("event: silent\ndata: {error}\n\n").into_bytes().into();
        for client in self.clients.iter_mut().filter(|client| client.is_streaming()) {
            client.send_event(now, &event);
        }
        let refusal = HttpError::new(UNAVAILABLE, error.to_string());
        for client in self.clients.iter_mut().filter(|client| client.waiting_for().is_some()) {
            refuse(client, &refusal, &self.site);
        }
    }

    /// Subscribes to snapshots as long as there are followers.
    fn follow_or_not(&mut self, now: Instant) {
        let is_wanted = self.clients.iter().any(Client::is_streaming);
        match (&self.following, is_wanted) {
            (None, true) => self.follow(now),
            (Some(following), false) => {
                following.store(false, Ordering::Release);
                self.following = None;
            }
            _ => {}
        }
    }

    fn follow(&mut self, now: Instant) {
        let following = Arc::new(AtomicBool::new(true));
        let (shared, is_wanted) = (Arc::clone(&self.shared), Arc::clone(&following));
        let receive = move |snapshot: &Arc<Snapshot>| {
            let go_on = is_wanted.load(Ordering::Acquire);
            if go_on {
                shared.put(snapshot);
            }
            go_on
        };
        match self.reader.follow(STREAM_PAUSE, receive) {
            Ok(()) => self.following = Some(following),
            // Retried at the next message from the main loop.
            Err(NoSnapshot::Silent) => self.silence = now + STREAM_SILENCE,
            Err(NoSnapshot::Ended) => self.clients.retain(|client| !client.is_streaming()),
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.listener.accept() {
                Ok((stream, _)) if self.clients.len() >= CLIENTS_MAX => self.turn_away(stream),
                Ok((stream, _)) => self.clients.extend(Client::new(stream, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if is_shortage(&error) {
                        self.closed_until = Some(now + DESCRIPTORS_PAUSE);
                        return;
                    }
                    // The client disconnected before it was accepted.
                }
            }
        }
    }

    /// Refuses one client too many with a short answer, as far as its socket accepts it at once.
    fn turn_away(&self, mut stream: TcpStream) {
        let text = format!("{CLIENTS_MAX} clients are connected already; try again in a moment");
        let content = Content::refused(&HttpError::new(UNAVAILABLE, text));
        let mut answer = head_of(&content, &self.site);
        answer.extend_from_slice(&content.body);
        if stream.set_nonblocking(true).is_ok() {
            // Read its request, because otherwise the kernel would send a reset instead of this answer.
            _ = io::Read::read(&mut stream, &mut [0; 2048]);
            _ = stream.write(&answer);
        }
    }

    fn heed_time(&mut self, now: Instant) {
        if self.closed_until.is_some_and(|until| until <= now) {
            self.closed_until = None;
        }
        if self.asked.is_some_and(|until| until <= now) {
            self.give_up(now, NoSnapshot::Silent);
        }
        if self.silence <= now {
            self.silence = now + STREAM_SILENCE;
            if self.clients.iter().any(Client::is_streaming) {
                self.ask(now);
            }
        }
        for client in &mut self.clients {
            if let Some(refusal) = client.heed_time(now) {
                refuse(client, &refusal, &self.site);
            }
        }
    }
}

struct Ready {
    listener: bool,
    /// One for each client.
    clients: Vec<bool>,
}

fn head_of(content: &Content, site: &Site) -> Vec<u8> {
    head(content.status, content.kind, Some(content.body.len()), site.policy())
}

fn refuse(client: &mut Client, refusal: &HttpError, site: &Site) {
    let content = Content::refused(refusal);
    client.answer(head_of(&content, site), &content, super::http::Method::Get);
}

/// True when there are no file descriptors or no memory for one more client.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that a deadline has passed when poll returns.
    let duration = duration + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread waits, with time limits for its clients"
)]
fn now() -> Instant {
    Instant::now()
}
