//! The server side of the control socket: one thread serves all clients, and no client delays another.
//! Does not execute commands: the main loop does, and sends the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::SOCKET;
use super::event::{PathEvent, Stage};
use super::protocol::{Answer, Command, REQUEST_MAX, parse_request};
use super::socket::listen_in;
use crate::ground::lock::lock;
use crate::ground::thread::JoinedThread;

/// The maximum number of clients at a time; one more is refused with a message.
const CLIENTS_MAX: usize = 64;

/// A client that neither sends nor reads for this time is disconnected, unless it waits for an answer or holds a pause.
const IDLE: Duration = Duration::from_secs(60);

/// How long the main loop may take for a command that it answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no connection is accepted when a descriptor is missing.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How many bytes of events may wait for a listener that does not read; further events are dropped.
const EVENTS_MAX: usize = 1 << 20;

/// A command for the main loop.
#[derive(Debug)]
pub struct Call {
    /// The command.
    pub command: Command,
    /// Takes the answer.
    pub reply: Reply,
}

/// Takes the answer to a request. If it is dropped unused, the client is told that the program is ending.
#[derive(Debug)]
pub struct Reply {
    client: u64,
    request: u64,
    to: Option<Sender<Answered>>,
    wake: Arc<OwnedFd>,
    /// Set when the client was told that the main loop does not answer.
    late: Arc<AtomicBool>,
    /// The client's queue of events, if the client asked for events.
    queue: Option<Arc<Mutex<Queue>>>,
}

/// A client, the number of its request, and the message.
type Answered = (u64, u64, Outgoing);

/// A message from the main loop.
#[derive(Debug)]
enum Outgoing {
    /// The answer to a request.
    Answer(Answer),
    /// A line for a listener.
    Line(Vec<u8>),
}

/// The events that wait for a listener.
#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    /// Dropped events that were not reported to the client yet.
    dropped: u64,
}

/// A client that gets events until it disconnects. A slow one delays nobody.
#[derive(Debug)]
pub struct Listener {
    client: u64,
    to: Sender<Answered>,
    wake: Arc<OwnedFd>,
    queue: Arc<Mutex<Queue>>,
}

impl Listener {
    /// The client's number.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// Queues a line, or drops and counts it when the queue is full.
    pub fn tell(&self, line: &[u8]) {
        {
            let mut queue = lock(&self.queue);
            if queue.bytes + line.len() > EVENTS_MAX {
                queue.dropped += 1;
                return;
            }
            queue.bytes += line.len();
        }
        self.send(line.to_vec());
    }

    fn send(&self, line: Vec<u8>) {
        // Fails only when the thread has ended.
        _ = self.to.send((self.client, 0, Outgoing::Line(line)));
        wake_up(&self.wake);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let last = Answer::failed("ended", "the mirror is ending").to_line();
        lock(&self.queue).bytes += last.len();
        self.send(last);
    }
}

impl Reply {
    /// The client's number, constant as long as it is connected.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// True when the client was told that there is no answer: the command must not be carried out any more.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Sends the answer.
    pub fn send(mut self, answer: Answer) {
        self.answer(answer);
    }

    /// Answers and sends events from now on; `None` if the client has not asked for events.
    pub fn listen(mut self) -> Option<Listener> {
        let (to, queue) = (self.to.clone()?, self.queue.clone()?);
        self.answer(Answer::Done { notes: vec!["events follow from now on".into()] });
        Some(Listener { client: self.client, to, wake: Arc::clone(&self.wake), queue })
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(to) = self.to.take() {
            // Fails only when the thread has ended.
            _ = to.send((self.client, self.request, Outgoing::Answer(answer)));
            wake_up(&self.wake);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Answer::failed("ended", "the mirror is ending"));
    }
}

/// A message to the main loop.
#[derive(Debug)]
pub enum ClientEvent {
    /// A command.
    Call(Call),
    /// A client has disconnected: release what it held, and drop its pending requests.
    Gone(u64),
}

/// Passes a message to the main loop.
pub type Ask = Box<dyn Fn(ClientEvent) -> Asked + Send>;

/// What became of a message to the main loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It arrives.
    Heard,
    /// The main loop accepts none.
    Silent,
    /// There is no main loop any more.
    Ending,
}

/// The running server. Dropping it stops and joins the thread, and removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    directory: PathBuf,
    wake: Arc<OwnedFd>,
    stop: Option<Sender<Answered>>,
    listeners: Sender<UnixListener>,
    starts: Arc<AtomicBool>,
    thread: Option<JoinedThread>,
}

/// Creates the socket again after it was deleted, and passes it to the running thread.
#[derive(Debug, Clone)]
pub struct SocketMaker {
    directory: PathBuf,
    wake: Arc<OwnedFd>,
    listeners: Sender<UnixListener>,
}

impl SocketMaker {
    /// Listens at the socket's path again. Connected clients stay connected.
    ///
    /// # Errors
    /// When the system refuses the socket.
    pub fn make_again(&self) -> io::Result<()> {
        let listener = listen_in(&self.directory)?;
        // Fails only when the thread has ended.
        _ = self.listeners.send(listener);
        wake_up(&self.wake);
        Ok(())
    }
}

impl ControlServer {
    /// Starts the server in the state directory.
    ///
    /// # Errors
    /// When the socket or the thread cannot be created.
    pub fn start(directory: &Path, ask: Ask) -> io::Result<Self> {
        let listener = listen_in(directory)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, answers) = unbounded();
        let (listeners, new_listeners) = unbounded();
        let starts = Arc::new(AtomicBool::new(false));
        let mut room = Room {
            listener,
            accepts_from: None,
            starts: Arc::clone(&starts),
            new_listeners,
            ask,
            answers,
            sender: sender.clone(),
            wake: Arc::clone(&wake),
            clients: BTreeMap::new(),
            next: 0,
        };
        let thread = JoinedThread::start("control", move || while room.step() {})?;
        Ok(Self {
            directory: directory.to_path_buf(),
            wake,
            stop: Some(sender),
            listeners,
            starts,
            thread: Some(thread),
        })
    }

    /// Notes whether the mirror is being started again, so that there is no main loop for a time.
    pub fn set_starting(&self, starts: bool) {
        self.starts.store(starts, Ordering::Release);
    }

    /// Returns the means to create the socket again after it was deleted.
    pub fn socket_maker(&self) -> SocketMaker {
        let (directory, wake) = (self.directory.clone(), Arc::clone(&self.wake));
        SocketMaker { directory, wake, listeners: self.listeners.clone() }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // An empty line for no client tells the thread to stop.
        if let Some(stop) = self.stop.take() {
            _ = stop.send((u64::MAX, 0, Outgoing::Line(Vec::new())));
        }
        wake_up(&self.wake);
        drop(self.thread.take());
        _ = std::fs::remove_file(self.directory.join(SOCKET));
    }
}

fn wake_up(wake: &OwnedFd) {
    // Fails only when the counter is full, and then the thread is woken anyway.
    _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}

/// The state of the thread.
struct Room {
    listener: UnixListener,
    /// No connection is accepted before, because a descriptor was missing.
    accepts_from: Option<Instant>,
    /// The mirror is being started again.
    starts: Arc<AtomicBool>,
    /// New listening sockets; each replaces one whose file was deleted.
    new_listeners: Receiver<UnixListener>,
    ask: Ask,
    answers: Receiver<Answered>,
    sender: Sender<Answered>,
    wake: Arc<OwnedFd>,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The number of the request that waits for its answer, and the time limit of the answer.
    waits: Option<(u64, Option<Instant>)>,
    /// Set when the answer to that request came too late.
    late: Arc<AtomicBool>,
    requests: u64,
    /// It holds a pause as long as it is connected.
    holds: bool,
    /// For a listener: its queue, and how many bytes of it are in `output`.
    listens: Option<(Arc<Mutex<Queue>>, usize)>,
    /// It will send nothing more.
    is_silent: bool,
    /// When it is disconnected unless something arrives.
    idle_until: Instant,
}

impl Room {
    /// Waits for input and handles it; false when the thread must end.
    fn step(&mut self) -> bool {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        let ready = self.wait();
        if ready.first() == Some(&true) {
            self.accept();
        }
        if let Ok(listener) = self.new_listeners.try_recv() {
            self.listener = listener;
        }
        if !self.take_answers() {
            // Deliver the last answers before the end.
            self.clients.values_mut().for_each(|client| _ = client.write());
            return false;
        }
        for (id, is_ready) in ids.into_iter().zip(ready.into_iter().skip(2)) {
            if is_ready {
                self.serve(id);
            }
        }
        self.drop_late();
        true
    }

    /// Waits; returns which are ready: the listener, the wake-up descriptor, and each client.
    fn wait(&mut self) -> Vec<bool> {
        self.accepts_from = self.accepts_from.filter(|from| *from > now());
        let accepts = self.accepts_from.map_or(PollFlags::IN, |_| PollFlags::empty());
        let mut fds =
            vec![PollFd::new(&self.listener, accepts), PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(self.clients.values().map(|client| {
            let mut events = PollFlags::empty();
            if !client.is_silent && client.waits.is_none() && client.output.is_empty() {
                events |= PollFlags::IN;
            }
            if !client.output.is_empty() {
                events |= PollFlags::OUT;
            }
            PollFd::new(&client.stream, events)
        }));
        let due = self.clients.values().filter_map(Client::due).chain(self.accepts_from).min();
        let timeout = due.map(|due| due.saturating_duration_since(now()));
        // Round up, so that no second wait is needed for the rest of a millisecond.
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        fds.iter().map(|fd| !fd.revents().is_empty()).collect()
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It stays ready while a descriptor is missing.
                Err(_) => return self.accepts_from = Some(now() + ACCEPT_PAUSE),
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let client = Client::new(stream);
            if !is_allowed(&client.stream) {
                let message = "only the user who runs this instance, and root, may control it";
                client.refuse(Answer::failed("refused", message));
            } else if self.clients.len() >= CLIENTS_MAX {
                let message = format!("{CLIENTS_MAX} clients are connected already: try again");
                client.refuse(Answer::failed("busy", message));
            } else {
                self.clients.insert(self.next, client);
                self.next += 1;
            }
        }
    }

    /// Passes the main loop's answers to the clients; false when the thread must end.
    fn take_answers(&mut self) -> bool {
        let mut counter = [0; 8];
        _ = rustix::io::read(&self.wake, &mut counter);
        let mut told = BTreeSet::new();
        while let Ok((id, request, said)) = self.answers.try_recv() {
            if id == u64::MAX {
                return false;
            }
            let Some(client) = self.clients.get_mut(&id) else { continue };
            match said {
                Outgoing::Answer(answer) if client.waits.is_some_and(|(it, _)| it == request) => {
                    client.answer(answer);
                    self.go_on(id);
                }
                Outgoing::Answer(_) => {}
                Outgoing::Line(line) => {
                    client.event(&line);
                    told.insert(id);
                }
            }
        }
        told.into_iter().for_each(|id| self.go_on(id));
        true
    }

    /// Reads from and writes to a client, as far as possible without waiting.
    fn serve(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.read().and_then(|()| client.write()).is_err() {
            return self.drop_client(id);
        }
        self.go_on(id);
    }

    /// Handles the next request, if the last one is answered.
    fn go_on(&mut self, id: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            if client.write().is_err() {
                return self.drop_client(id);
            }
            if client.waits.is_some() || !client.output.is_empty() {
                return;
            }
            match client.next_line() {
                Some(line) => self.request(id, &line),
                None if client.is_silent && !client.holds => return self.drop_client(id),
                None => return,
            }
        }
    }

    fn request(&mut self, id: u64, line: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let command = match parse_request(line) {
            Ok(command) => command,
            Err(answer) => return client.answer(answer),
        };
        client.requests += 1;
        let listens = command == Command::Events;
        client.holds |= listens || matches!(command, Command::Pause { while_connected: true, .. });
        if listens && client.listens.is_none() {
            client.listens = Some(Default::default());
        }
        let queue = client.listens.as_ref().filter(|_| listens);
        let queue = queue.map(|(queue, _)| Arc::clone(queue));
        let takes_long = matches!(command, Command::Flush { .. } | Command::Reload { .. });
        client.waits = Some((client.requests, (!takes_long).then(|| now() + PATIENCE)));
        client.late = Arc::default();
        let reply = Reply {
            client: id,
            request: client.requests,
            late: Arc::clone(&client.late),
            to: Some(self.sender.clone()),
            wake: Arc::clone(&self.wake),
            queue,
        };
        match (self.ask)(ClientEvent::Call(Call { command, reply })) {
            Asked::Heard => {}
            Asked::Silent => client.answer(silent(&self.starts)),
            Asked::Ending => client.answer(Answer::failed("ended", "the mirror is ending")),
        }
    }

    /// Answers clients for whom the main loop takes too long, and disconnects idle ones.
    fn drop_late(&mut self) {
        let now = now();
        let late = self.clients.iter().filter(|(_, it)| it.due().is_some_and(|due| due <= now));
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for id in late {
            match self.clients.get_mut(&id) {
                Some(client) if client.waits.is_some() => {
                    client.late.store(true, Ordering::Release);
                    client.answer(silent(&self.starts));
                    self.go_on(id);
                }
                _ => self.drop_client(id),
            }
        }
    }

    fn drop_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id)
            && (client.holds || client.waits.is_some())
        {
            (self.ask)(ClientEvent::Gone(id));
        }
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            waits: None,
            late: Arc::default(),
            requests: 0,
            holds: false,
            listens: None,
            is_silent: false,
            idle_until: now() + IDLE,
        }
    }

    /// Sends one answer and closes the connection.
    fn refuse(mut self, answer: Answer) {
        self.answer(answer);
        _ = self.write();
    }

    fn answer(&mut self, answer: Answer) {
        self.waits = None;
        self.output.extend_from_slice(&answer.to_line());
        self.idle_until = now() + IDLE;
    }

    /// Sends an event.
    fn event(&mut self, line: &[u8]) {
        self.output.extend_from_slice(line);
        if let Some((_, waiting)) = &mut self.listens {
            *waiting += line.len();
        }
    }

    /// Frees the queue when everything is written, and reports events that were dropped meanwhile.
    fn make_room(&mut self) {
        let Some((queue, waiting)) = &mut self.listens else { return };
        let mut queue = lock(queue);
        queue.bytes = queue.bytes.saturating_sub(std::mem::take(waiting));
        let dropped = std::mem::take(&mut queue.dropped);
        if dropped > 0 {
            let why = Some("they came faster than they were read".into());
            let told = PathEvent {
                what: Stage::Dropped,
                dropped: Some(dropped),
                why,
                ..PathEvent::default()
            };
            self.output.extend(Answer::Event { event: Box::new(told) }.to_line());
        }
    }

    /// When the client must be handled even if nothing arrives.
    fn due(&self) -> Option<Instant> {
        match self.waits {
            Some((_, due)) => due,
            // A listener may read slowly, because its queue is bounded.
            None if self.listens.is_some() => None,
            None if self.holds && self.output.is_empty() => None,
            None => Some(self.idle_until),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            if self.waits.is_some() || self.is_silent || !self.output.is_empty() {
                // We do not expect input now, so `poll` reports a closed connection.
                return self.look_for_hangup();
            }
            match self.stream.read(&mut buffer) {
                Ok(0) if self.holds => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => self.is_silent = true,
                Ok(count) => {
                    self.idle_until = now() + IDLE;
                    self.input.extend_from_slice(&buffer[..count]);
                    if self.input.len() > REQUEST_MAX && !self.input.contains(&b'\n') {
                        self.input.clear();
                        self.is_silent = true;
                        let message = format!("a request has at most {REQUEST_MAX} bytes");
                        self.answer(Answer::failed("malformed", message));
                    }
                    if self.input.contains(&b'\n') {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn look_for_hangup(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default()))?;
        let gone = PollFlags::HUP | PollFlags::ERR;
        match fds[0].revents().intersects(gone) {
            true => Err(ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.output.drain(..count);
                    self.idle_until = now() + IDLE;
                    if self.output.is_empty() {
                        self.make_room();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        Some(self.input.drain(..=end).collect())
    }
}

/// Only the owner of the instance and root may control it, even if others can open the socket.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = geteuid();
    socket_peercred(stream.as_fd()).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

fn silent(starts: &AtomicBool) -> Answer {
    if starts.load(Ordering::Acquire) {
        let message = "the mirror is starting again with another configuration; ask again";
        return Answer::failed("starting", message);
    }
    let message =
        "the main loop of this instance does not answer: it is overloaded or hangs; see its log";
    Answer::failed("silent", message)
}

#[expect(clippy::disallowed_methods, reason = "this thread waits: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::control::protocol::{Response, request_line};
    use crate::control::socket::connect_to;

    #[test]
    fn a_mirror_that_starts_again_is_not_said_to_hang() {
        let dir = tempfile::tempdir().unwrap();
        let server = ControlServer::start(dir.path(), Box::new(|_| Asked::Silent)).unwrap();
        let kind_of = || {
            let mut client = BufReader::new(connect_to(dir.path()).unwrap());
            client.get_mut().write_all(&request_line(Command::Status)).unwrap();
            kind(answer(&mut client))
        };
        assert_eq!(kind_of(), "silent");
        server.set_starting(true);
        assert_eq!(kind_of(), "starting");
        server.set_starting(false);
        assert_eq!(kind_of(), "silent");
    }

    /// A server, and the receiver of what it asks the main loop.
    fn server(dir: &Path) -> (ControlServer, Receiver<ClientEvent>) {
        let (sender, asked) = unbounded();
        let ask = move |it| sender.send(it).map_or(Asked::Ending, |()| Asked::Heard);
        (ControlServer::start(dir, Box::new(ask)).unwrap(), asked)
    }

    fn connect(dir: &Path) -> BufReader<UnixStream> {
        let stream = connect_to(dir).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        BufReader::new(stream)
    }

    fn answer(client: &mut BufReader<UnixStream>) -> Answer {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        serde_json::from_str::<Response>(&line).unwrap().result
    }

    fn kind(answer: Answer) -> String {
        match answer {
            Answer::Failed { kind, .. } => kind,
            other => format!("{other:?}"),
        }
    }

    fn next_call(asked: &Receiver<ClientEvent>) -> Call {
        match asked.recv_timeout(Duration::from_secs(30)).unwrap() {
            ClientEvent::Call(call) => call,
            ClientEvent::Gone(client) => panic!("client {client} has gone"),
        }
    }

    #[test]
    fn one_client_that_waits_delays_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, asked) = server(dir.path());
        let mut clients: Vec<_> = (0..10).map(|_| connect(dir.path())).collect();
        let mut calls: Vec<Call> = Vec::new();
        for client in &mut clients {
            client.get_mut().write_all(&request_line(Command::Stop)).unwrap();
            calls.push(next_call(&asked));
        }
        for (call, client) in calls.into_iter().zip(&mut clients).rev() {
            let notes = vec![format!("client {}", call.reply.client())];
            call.reply.send(Answer::Done { notes: notes.clone() });
            assert_eq!(answer(client), Answer::Done { notes });
        }
    }

    #[test]
    fn what_is_no_request_is_answered_and_the_next_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, asked) = server(dir.path());
        let mut client = connect(dir.path());
        client.get_mut().write_all(b"nonsense\n\xff\xfe\n").unwrap();
        assert_eq!(kind(answer(&mut client)), "malformed");
        assert_eq!(kind(answer(&mut client)), "malformed");
        client.get_mut().write_all(&request_line(Command::Status)).unwrap();
        drop(next_call(&asked));
        assert_eq!(kind(answer(&mut client)), "ended");
    }

    #[test]
    fn a_line_without_end_is_refused_and_too_many_clients_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, _asked) = server(dir.path());
        let mut client = connect(dir.path());
        let endless = vec![b'x'; REQUEST_MAX + 5_000];
        // The server may close the connection before it has read everything.
        _ = client.get_mut().write_all(&endless);
        assert_eq!(kind(answer(&mut client)), "malformed");
        let mut many: Vec<_> = (0..CLIENTS_MAX).map(|_| connect(dir.path())).collect();
        for client in &mut many {
            // An answer proves that the server has accepted the connection.
            client.get_mut().write_all(b"?\n").unwrap();
            assert!(["malformed", "busy"].contains(&kind(answer(client)).as_str()));
        }
        assert_eq!(kind(answer(&mut connect(dir.path()))), "busy");
    }

    #[test]
    fn the_main_loop_hears_when_somebody_goes_who_waits_or_holds_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, asked) = server(dir.path());
        let mut client = connect(dir.path());
        let pause = Command::Pause { remote: None, for_ms: None, while_connected: true };
        client.get_mut().write_all(&request_line(pause)).unwrap();
        let call = next_call(&asked);
        let id = call.reply.client();
        call.reply.send(Answer::Done { notes: Vec::new() });
        answer(&mut client);
        drop(client);
        let gone = asked.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(matches!(gone, ClientEvent::Gone(client) if client == id), "{gone:?}");
        let mut waits = connect(dir.path());
        let flush = Command::Flush { remote: None, paths: Vec::new(), timeout_ms: None };
        waits.get_mut().write_all(&request_line(flush)).unwrap();
        let call = next_call(&asked);
        drop(waits);
        let gone = asked.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(
            matches!(gone, ClientEvent::Gone(client) if client == call.reply.client()),
            "{gone:?}"
        );
    }

    #[test]
    fn a_listener_that_does_not_read_is_told_how_much_it_has_missed() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, asked) = server(dir.path());
        let mut client = connect(dir.path());
        client.get_mut().write_all(&request_line(Command::Events)).unwrap();
        let listener = next_call(&asked).reply.listen().unwrap();
        assert!(matches!(answer(&mut client), Answer::Done { .. }));
        let told = PathEvent { why: Some("x".repeat(1_000)), ..PathEvent::default() };
        let line = Answer::Event { event: Box::new(told) }.to_line();
        let all = 3 * EVENTS_MAX / line.len();
        (0..all).for_each(|_| listener.tell(&line));
        let (mut heard, mut missed) = (0, 0);
        while heard + missed < all {
            let Answer::Event { event } = answer(&mut client) else { panic!() };
            match event.dropped {
                Some(dropped) => missed += usize::try_from(dropped).unwrap(),
                None => heard += 1,
            }
        }
        assert!(missed > 0 && heard > 0, "{heard} heard, {missed} missed");
        // The queue has room again.
        listener.tell(&line);
        assert!(matches!(answer(&mut client), Answer::Event { event } if event.dropped.is_none()));
        drop(listener);
        assert_eq!(kind(answer(&mut client)), "ended");
    }

    #[test]
    fn a_request_from_a_pipe_that_ends_is_answered_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (_server, asked) = server(dir.path());
        let mut client = connect(dir.path());
        client.get_mut().write_all(&request_line(Command::Status)).unwrap();
        client.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        next_call(&asked).reply.send(Answer::Done { notes: Vec::new() });
        assert_eq!(answer(&mut client), Answer::Done { notes: Vec::new() });
    }

    #[test]
    fn ending_removes_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let (server, _asked) = server(dir.path());
        assert!(dir.path().join(SOCKET).exists());
        drop(server);
        assert!(!dir.path().join(SOCKET).exists());
    }
}
