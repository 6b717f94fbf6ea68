//! Confines the runs of one remote over ssh. They share a connection that stays open between runs.
//! The ssh that connects reads keys and may start programs, so it cannot be confined. A probe starts it, and a probe reads no file below
//! the watch path. The ssh of a later run only passes its pipes to that ssh.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use super::Endpoint;
use super::confine::{self, Confinement};
use super::master::Master;
use crate::ground::lock::lock;
use crate::ground::program::{find_program, is_elf};

/// After so many failures in a row, the runs of this remote are not confined any more.
const FAILURES_MAX: u32 = 3;

/// ssh's message when the server allows no more sessions in one connection.
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
    /// True while runs are confined. Otherwise a run connects by itself if no connection is open.
    is_on: bool,
    /// How many confined runs in a row have failed.
    failures: u32,
}

impl OverSsh {
    /// Confinement is off at first. `shell` is the operator's `-e`.
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
    /// True when runs over ssh can be confined, but no open connection serves them: a probe has to open one first. A connection that has died
    /// without a trace is noticed by the run that uses it.
    pub fn lacks_connection(&self) -> bool {
        let Some(over_ssh) = &self.over_ssh else { return false };
        over_ssh.is_possible() && !(over_ssh.state().is_on && over_ssh.master.may_be_open())
    }

    /// From now on each run over ssh connects by itself and is not confined.
    pub fn leave_unconfined(&self) {
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
        if !over_ssh.master.is_open() {
            self.note_confined_failure("its connection does not stay open between runs");
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

    /// Counts a failed confined run. After some in a row, confinement counts as the cause and ends for this remote.
    pub fn note_confined_failure(&self, reason: &str) {
        let Some(over_ssh) = &self.over_ssh else { return };
        let mut state = over_ssh.state();
        state.is_on = false;
        state.failures += 1;
        if state.failures == FAILURES_MAX {
            self.log_unconfined(reason);
        }
    }

    /// Ends confinement if the output of a confined run shows that sshd allows too few sessions in one connection. False if it
    /// does not show that.
    pub fn give_up_refused_sessions(&self, stderr: &[u8]) -> bool {
        let Some(over_ssh) = &self.over_ssh else { return false };
        let mut state = over_ssh.state();
        let is_refused = stderr.windows(REFUSED.len()).any(|window| window == REFUSED);
        if !state.is_on || !is_refused {
            return false;
        }
        *state = State { is_on: false, failures: FAILURES_MAX };
        self.log_unconfined("its sshd allows too few sessions in one connection: \"MaxSessions 10\" there is enough");
        true
    }

    /// True while runs over ssh are confined.
    pub fn is_confined_over_ssh(&self) -> bool {
        self.over_ssh.as_ref().is_some_and(|over_ssh| over_ssh.state().is_on)
    }

    /// True when the connection that stays between the runs is open.
    pub fn is_connection_open(&self) -> bool {
        self.master.as_ref().is_some_and(Master::is_open)
    }

    fn log_unconfined(&self, reason: &str) {
        log::info!(
            "{}: rsync over ssh is not confined to the watch path: {reason}; an rsync before 3.4 may follow a link that somebody puts in the place of a directory",
            self.destination
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::destination::{Destination, Host};
    use crate::rsync::{Abilities, RsyncOptions, RunKind};

    /// An endpoint whose runs are confined.
    fn confined() -> Endpoint {
        let host = Host { name: "h".into(), ..Host::default() };
        let destination = Destination::Ssh { host, path: "/copy".into() };
        let endpoint = Endpoint::new(Path::new("/data"), &destination, &RsyncOptions::default());
        let over_ssh = OverSsh {
            master: Master::at("/nowhere/socket"),
            program: "ssh".into(),
            confinement: endpoint.own_confinement().unwrap(),
            state: Mutex::new(State { is_on: true, failures: 0 }),
        };
        Endpoint { over_ssh: Some(Arc::new(over_ssh)), ..endpoint }
    }

    fn fail(endpoint: &Endpoint, times: u32) {
        for _ in 0..times {
            endpoint.over_ssh.as_ref().unwrap().state().is_on = true;
            endpoint.note_confined_failure("it does not work");
        }
    }

    #[test]
    fn a_confined_run_makes_no_connection_of_its_own() {
        let endpoint = confined();
        let plan = || endpoint.plan(&RunKind::Batch { ignore_times: false }, Abilities::ALL);
        let spec = plan();
        let shell = spec.args.iter().skip_while(|word| *word != "-e").nth(1).unwrap();
        assert_eq!(
            shell,
            "ssh -F none -o BatchMode=yes -o LogLevel=ERROR -o ControlMaster=no -o ControlPath=/nowhere/socket -o ProxyCommand=false"
        );
        assert!(spec.confinement.is_some());
        endpoint.leave_unconfined();
        assert!(plan().confinement.is_none() && plan() != spec);
    }

    #[test]
    fn confinement_is_given_up_after_failures_in_a_row_alone() {
        let endpoint = confined();
        let failures = |endpoint: &Endpoint| endpoint.over_ssh.as_ref().unwrap().state().failures;
        fail(&endpoint, FAILURES_MAX - 1);
        assert!(!endpoint.is_confined_over_ssh());
        endpoint.note_delivery();
        assert_eq!(failures(&endpoint), FAILURES_MAX - 1, "it was not confined");
        endpoint.over_ssh.as_ref().unwrap().state().is_on = true;
        endpoint.note_delivery();
        assert_eq!(failures(&endpoint), 0);
        fail(&endpoint, FAILURES_MAX);
        assert!(!endpoint.confine_over_ssh() && !endpoint.lacks_connection());
    }

    #[test]
    fn an_sshd_that_refuses_sessions_is_not_asked_again() {
        let endpoint = confined();
        assert!(!endpoint.give_up_refused_sessions(b"Connection closed by UNKNOWN port 65535"));
        let words =
            b"mux_client_request_session: session request failed: Session open refused by peer\n";
        assert!(endpoint.give_up_refused_sessions(words));
        assert!(!endpoint.is_confined_over_ssh() && !endpoint.lacks_connection());
        assert!(!endpoint.give_up_refused_sessions(words), "unconfined runs connect by themselves");
    }
}
