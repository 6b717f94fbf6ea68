//! Confines the runs of one remote over ssh: they go through the connection that stays between them.
//! ssh has to read keys and may start programs, so the ssh that connects is not confined: a probe starts it, which reads no file of
//! the mirror. The ssh of a later run only hands its pipes to the one that has connected.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use super::Endpoint;
use super::confine::{self, Confinement};
use super::master::Master;
use crate::ground::lock::lock;
use crate::ground::program::{find_program, is_elf};

/// After so many failures in a row, runs are confined no more.
const FAILURES_MAX: u32 = 3;

/// What an ssh says when the other side allows no more sessions in one connection.
const REFUSED: &[u8] = b"Session open refused by peer";

/// How many sessions sshd allows in one connection, unless its configuration says otherwise (`MaxSessions`).
pub const SESSIONS: usize = 10;

/// How the runs of one remote reach it.
#[derive(Debug)]
pub struct OverSsh {
    master: Master,
    /// The operator's ssh, as the first word of a command.
    program: String,
    confinement: Confinement,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Runs are confined. Otherwise each connects by itself where no connection stands.
    is_on: bool,
    /// How often in a row something confined has failed.
    failures: u32,
}

impl OverSsh {
    /// Not confined yet. `shell`: the operator's `-e`.
    ///
    /// # Errors
    /// Why the runs cannot be confined; a clause.
    pub fn new(
        master: Master,
        shell: Option<&str>,
        mut confinement: Confinement,
    ) -> Result<Self, String> {
        let program = shell.and_then(|shell| shell.split_whitespace().next()).unwrap_or("ssh");
        let file = if program.contains('/') { Some(program.into()) } else { find_program(program) };
        let file: PathBuf =
            file.and_then(|file: PathBuf| file.canonicalize().ok()).ok_or("there is no ssh")?;
        if !is_elf(&file) {
            return Err(format!(
                "{} is a script, which may read and start anything",
                file.display()
            ));
        }
        confinement.reads(file);
        Ok(Self { master, program: program.into(), confinement, state: Mutex::default() })
    }

    /// While runs are confined: the remote shell, and what it and rsync may read.
    pub fn confined(&self) -> Option<(OsString, Confinement)> {
        let is_on = self.state().is_on;
        is_on.then(|| (self.master.client_words(&self.program).into(), self.confinement.clone()))
    }

    fn is_possible(&self) -> bool {
        self.state().failures < FAILURES_MAX && confine::is_usable()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Endpoint {
    /// True when runs are to be confined over ssh, and no connection stands for that: then a probe has to open one first.
    pub fn lacks_connection(&self) -> bool {
        let Some(over_ssh) = &self.over_ssh else { return false };
        over_ssh.is_possible() && !(over_ssh.state().is_on && over_ssh.master.stands())
    }

    /// The next runs connect by themselves, and are not confined over ssh.
    pub fn set_free(&self) {
        if let Some(over_ssh) = &self.over_ssh {
            over_ssh.state().is_on = false;
        }
    }

    /// A probe has opened a connection: from now on runs over ssh are confined. False when they cannot be.
    pub fn confine_over_ssh(&self) -> bool {
        let Some(over_ssh) = &self.over_ssh else { return false };
        if !over_ssh.is_possible() {
            return false;
        }
        if !over_ssh.master.stands() {
            self.note_confined_failure("no connection stays between the runs");
            return false;
        }
        over_ssh.state().is_on = true;
        true
    }

    /// A run has delivered.
    pub fn note_delivery(&self) {
        if let Some(over_ssh) = &self.over_ssh {
            let mut state = over_ssh.state();
            if state.is_on {
                state.failures = 0;
            }
        }
    }

    /// A confined run has failed; after some in a row the confinement is taken for the cause.
    pub fn note_confined_failure(&self, reason: &str) {
        let Some(over_ssh) = &self.over_ssh else { return };
        let mut state = over_ssh.state();
        state.is_on = false;
        state.failures += 1;
        if state.failures == FAILURES_MAX {
            self.say_that_it_is_not(reason);
        }
    }

    /// What a confined run wrote shows that the server allows fewer sessions than the runs need: they are confined no more. False when it
    /// shows no such thing.
    pub fn give_up_refused_sessions(&self, stderr: &[u8]) -> bool {
        let Some(over_ssh) = &self.over_ssh else { return false };
        let mut state = over_ssh.state();
        let is_refused = stderr.windows(REFUSED.len()).any(|window| window == REFUSED);
        if !state.is_on || !is_refused {
            return false;
        }
        *state = State { is_on: false, failures: FAILURES_MAX };
        self.say_that_it_is_not("its sshd allows too few sessions in one connection: \"MaxSessions 10\" there is enough");
        true
    }

    /// True while runs over ssh are confined.
    pub fn is_confined_over_ssh(&self) -> bool {
        self.over_ssh.as_ref().is_some_and(|over_ssh| over_ssh.state().is_on)
    }

    /// True when the connection that stays between the runs is open.
    pub fn connection_stands(&self) -> bool {
        self.master.as_ref().is_some_and(Master::stands)
    }

    fn say_that_it_is_not(&self, reason: &str) {
        log::info!(
            "{}: rsync over ssh is not confined to the watch path: {reason}; an rsync before 3.4 may follow a link that somebody puts in the place of a directory",
            self.destination
        );
    }
}
