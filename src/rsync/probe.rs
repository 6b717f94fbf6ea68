//! Learns what a receiver can do. Its runs change nothing, except that they may create the remote's directory.
//! Does not remember the answer; the worker does.

use std::time::{Duration, Instant};

use super::exit::Outcome;
use super::run::{Killer, Limits, Session, StartError};
use super::{Abilities, Endpoint, RunKind, input};
use crate::failure::{Failure, FailureKind, code};
use crate::ground::identity::Identity;

/// The time limits of a probe.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// The longest time without progress: longer than a connection takes.
    stall: Duration,
    /// How long its runs may take in all. Endless output counts as progress, so the stall limit alone is not enough.
    in_all: Duration,
}

const PATIENCE: Patience =
    Patience { stall: Duration::from_secs(30), in_all: Duration::from_secs(60) };

/// What a probe found.
#[derive(Debug)]
pub enum Probed {
    /// The remote answers, and has these abilities.
    Able(Abilities),
    /// The remote cannot be used now; the outcome says why, and is never a delivery or a refusal.
    Failed(Outcome),
}

/// Probes the remote with a list of one name that exists nowhere, in at most three runs. `nonce` makes the name unique.
/// `started` gets a handle on each run, so that a program that stops need not wait for it.
///
/// # Errors
/// When no run can be started.
pub fn run_probe(
    endpoint: &Endpoint,
    expected: Option<Identity>,
    nonce: u64,
    started: impl FnMut(Killer),
) -> Result<Probed, StartError> {
    ask(&Question { endpoint, expected, nonce, patience: PATIENCE }, &|_| Vec::new(), started)
}

/// Probes every ability, including those that the mirror learns only when it needs them.
/// It does not create a missing directory (`copy`), unlike a run with an effect.
///
/// # Errors
/// When no run can be started.
pub fn run_full_probe(
    endpoint: &Endpoint,
    copy: CopyState,
    nonce: u64,
) -> Result<Probed, StartError> {
    let words = |abilities: Abilities| {
        let mut words = Vec::new();
        if abilities.dry_run || copy == CopyState::Missing {
            words.push("-n");
            words.extend((abilities.delete && !abilities.delete_missing).then_some("--delete"));
        }
        words.extend(abilities.checksum.then_some("-c"));
        words.extend(abilities.ignore_times.then_some("-I"));
        words.extend(abilities.moves.then_some(["-s", "--fuzzy"]).into_iter().flatten());
        words
    };
    ask(&Question { endpoint, expected: None, nonce, patience: PATIENCE }, &words, |_| {})
}

/// Whether the remote's directory is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It is there, or this is not known.
    There,
    /// The first run that is not a dry run creates it.
    Missing,
}

/// Who is asked, and for how long.
struct Question<'a> {
    endpoint: &'a Endpoint,
    expected: Option<Identity>,
    nonce: u64,
    patience: Patience,
}

fn ask(
    question: &Question<'_>,
    words: &dyn Fn(Abilities) -> Vec<&'static str>,
    mut started: impl FnMut(Killer),
) -> Result<Probed, StartError> {
    let Question { endpoint, expected, nonce, patience } = *question;
    let begun = now();
    let mut abilities = Abilities::ALL;
    loop {
        let mut spec = endpoint.plan(&RunKind::Probe, abilities);
        spec.insert(&words(abilities));
        let session = Session::start(&spec, expected)?;
        started(session.killer());
        let limits = Limits { stall: patience.stall, output_max: 0 };
        let (killer, mut is_endless) = (session.killer(), false);
        let report = session.feed_and(&input::probe(nonce), limits, &mut |_| {
            if begun.elapsed() > patience.in_all {
                is_endless = true;
                killer.kill();
            }
        });
        if is_endless {
            return Ok(Probed::Failed(Outcome::Failed(endless())));
        }
        let outcome = report.judge(endpoint);
        match next(abilities, &outcome) {
            Next::Ask(fewer) => abilities = fewer,
            Next::Settled => return Ok(Probed::Able(abilities)),
            Next::Failed => return Ok(Probed::Failed(outcome)),
        }
    }
}

fn endless() -> Failure {
    let reason = "sends text without end before a run begins";
    let advice = "look at \"motd file\" in its rsyncd.conf, or at what its login shell prints";
    Failure::new(FailureKind::Denied, code::STARTING, reason).advising(advice)
}

#[expect(clippy::disallowed_methods, reason = "a probe is limited by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

/// What to do after the answer to a probe.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Ask(Abilities),
    Settled,
    Failed,
}

fn next(asked: Abilities, outcome: &Outcome) -> Next {
    let fewer = match outcome {
        Outcome::Delivered | Outcome::Partial { .. } | Outcome::Kept { .. } => {
            return Next::Settled;
        }
        Outcome::Refused { ability, .. } => match asked.without(*ability) {
            Some(fewer) => fewer,
            None => return Next::Failed,
        },
        // rsync before 3.1.3 closes the connection at an unknown option, sometimes without a message.
        Outcome::Failed(Failure { kind: FailureKind::Away, code: 10 | 12, reason, .. })
            if asked.nanoseconds && is_cut(reason) =>
        {
            Abilities::NONE
        }
        _ => return Next::Failed,
    };
    if fewer == asked { Next::Failed } else { Next::Ask(fewer) }
}

/// True when there was a connection and the other side closed it.
fn is_cut(reason: &str) -> bool {
    reason.contains("reset by peer") || reason.contains("unexpectedly closed")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::destination::{Destination, Host};
    use crate::rsync::exit::Ability;
    use crate::rsync::options::RsyncOptions;

    #[test]
    fn refusals_lead_to_a_smaller_question() {
        let option = "--delete-missing-args";
        let refused = Outcome::Refused { ability: Ability::DeleteMissing, option };
        let fewer = Abilities { delete_missing: false, ..Abilities::ALL };
        assert_eq!(next(Abilities::ALL, &refused), Next::Ask(fewer));
        assert_eq!(next(fewer, &refused), Next::Failed);
    }

    #[test]
    fn a_cut_connection_is_asked_once_more_without_anything_new() {
        let away = |reason| Outcome::Failed(Failure::new(FailureKind::Away, 10, reason));
        let cut = away("read error: Connection reset by peer (104)");
        assert_eq!(next(Abilities::ALL, &cut), Next::Ask(Abilities::NONE));
        assert_eq!(next(Abilities::NONE, &cut), Next::Failed);
        let down = away("failed to connect to host: Connection refused (111)");
        assert_eq!(next(Abilities::ALL, &down), Next::Failed);
    }

    /// A daemon that greets one client and then sends `text` to it again and again, after a pause each time.
    fn talkative_daemon(text: Vec<u8>, pause: Duration) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let talk = move || {
            let (mut client, _) = listener.accept().unwrap();
            client.set_read_timeout(Some(pause)).unwrap();
            client.write_all(b"@RSYNCD: 31.0\n").unwrap();
            // Ends when the client is gone.
            while client.write_all(&text).is_ok() {
                _ = client.read(&mut [0; 256]);
            }
        };
        std::thread::Builder::new().spawn(talk).unwrap();
        port
    }

    #[test]
    fn a_greeting_that_never_ends_ends_the_probe() {
        let root = tempfile::tempdir().unwrap();
        let ms = Duration::from_millis;
        // Both make progress all the time, so only the limit for all can end them.
        let patience = Patience { stall: ms(60_000), in_all: ms(300) };
        for (text, pause) in [(vec![b'\n'; 4_000], ms(1)), (b"one moment\n".to_vec(), ms(60))] {
            let port = Some(talkative_daemon(text, pause));
            let host = Host { user: None, name: "127.0.0.1".into(), port };
            let destination = Destination::Daemon { host, module: "data".into() };
            let endpoint = Endpoint::new(root.path(), &destination, &RsyncOptions::default());
            let question = Question { endpoint: &endpoint, expected: None, nonce: 0, patience };
            let probed = ask(&question, &|_| Vec::new(), |_| {}).unwrap();
            let Probed::Failed(Outcome::Failed(failure)) = probed else { panic!("{probed:?}") };
            assert_eq!(failure, endless());
        }
    }
}
