//! `sersync2 events`: shows live what a running instance sees below its watch paths, and what it does with it.
//! Without a running instance, `tools/live.rs` watches instead.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::instance::{Which, parse};
use crate::control::client::{CallError, Connection, PATIENCE};
use crate::control::event::{PathEvent, Stage};
use crate::control::protocol::{Answer, Command, read_path};
use crate::ground::counted::counted;
use crate::rsync::quoted;
use crate::sys::posix::end_on_closed_pipes;
use crate::tools::live::{self, NOTHING_SHOWN, OutputStyle, name_in_json};
use crate::tools::output::Output;

/// Show each change below the watch paths and what sersync does with it, until Ctrl-C.
///
/// With a running instance it shows what the instance sees and does: whether a change is ignored and why, or pending, which
/// job sends it, and how long the delivery took. Without one it watches by itself, and sends nothing.
///
/// Exit code: 3 nothing can be shown, or the instance ends or does not answer; 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "events", bin_name = "sersync2 events")]
pub struct EventsArgs {
    /// The configuration
    #[arg(short = 'o', long = "config", value_name = "FILE", default_value = "confxml.xml")]
    config: PathBuf,

    /// The directory that the instance was started with
    #[arg(long = "state-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// One JSON object for each line, for programs
    #[arg(long)]
    json: bool,
}

/// Runs the command; the first word is its name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    end_on_closed_pipes();
    let args = match parse::<EventsArgs>(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let layout = if args.json { OutputStyle::Json } else { OutputStyle::Text };
    match connect(&args) {
        Ok(connection) => ended(listen(connection, layout)),
        // This reports an error of the configuration, if there is one.
        Err(CallError::NotRunning { .. } | CallError::Gone { .. } | CallError::Starts { .. }) => {
            match live::watch(&args.config, layout) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::from(NOTHING_SHOWN)
                }
            }
        }
        Err(error) => ended(Err(Ended::Call(error))),
    }
}

fn connect(args: &EventsArgs) -> Result<Connection, CallError> {
    let which = Which { config: Some(args.config.clone()), state_dir: args.state_dir.clone() };
    match which.one() {
        Ok(directory) => Connection::open(&directory),
        Err(_) => Err(CallError::NotRunning { directory: args.config.clone() }),
    }
}

/// Why no more events follow.
enum Ended {
    Call(CallError),
    Refused(String),
    Output(io::Error),
}

fn ended(result: Result<(), Ended>) -> ExitCode {
    match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Ended::Call(error)) => eprintln!("{error}"),
        Err(Ended::Refused(message)) => eprintln!("{message}"),
        Err(Ended::Output(error)) => eprintln!("cannot write: {error}"),
    }
    ExitCode::from(NOTHING_SHOWN)
}

fn listen(mut connection: Connection, layout: OutputStyle) -> Result<(), Ended> {
    let pid = connection.pid();
    let process = pid.map_or_else(|| "the instance".into(), |pid| format!("process {pid}"));
    let mut answer = connection.call(Command::Events, Some(PATIENCE)).map_err(Ended::Call)?;
    let mut output = Output::default();
    loop {
        match answer {
            Answer::Done { .. } => {
                let told = PathEvent {
                    at_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0),
                    why: Some(format!("listening to {process}")),
                    ..PathEvent::default()
                };
                write(output.buffer(), &told, layout);
            }
            Answer::Event { event } => write(output.buffer(), &event, layout),
            Answer::Failed { kind, .. } if kind == "ended" => {
                output.flush().map_err(Ended::Output)?;
                return Err(Ended::Refused(format!(
                    "{process} is ending, or is starting again with another configuration: no more events follow"
                )));
            }
            Answer::Failed { message, .. } => return Err(Ended::Refused(message)),
            _ => {
                let reason = "expected an event".into();
                return Err(Ended::Call(CallError::Foreign { pid, reason }));
            }
        }
        if !connection.has_more() {
            output.flush().map_err(Ended::Output)?;
        }
        answer = match connection.next_answer(None) {
            // A killed instance cannot send its end.
            Err(CallError::Ended { .. }) => Answer::failed("ended", ""),
            next => next.map_err(Ended::Call)?,
        };
    }
}

fn write(out: &mut Vec<u8>, told: &PathEvent, layout: OutputStyle) {
    match layout {
        OutputStyle::Text => write_text(out, told),
        OutputStyle::Json => out.extend_from_slice(json_of(told).to_string().as_bytes()),
    }
    out.push(b'\n');
}

fn write_text(out: &mut Vec<u8>, told: &PathEvent) {
    out.extend_from_slice(format!("{} ", time(told.at_ms)).as_bytes());
    let job = || told.job.map(|job| format!("job {job}"));
    if let Some(subject) = told.event.clone().or_else(job) {
        out.extend_from_slice(format!("{subject:<12} ").as_bytes());
    }
    if let Some(path) = &told.path {
        out.extend_from_slice(&quoted(read_path(path).as_os_str()));
        if let Some(from) = &told.moved_from {
            out.extend_from_slice(b" moved from ");
            out.extend_from_slice(&quoted(read_path(from).as_os_str()));
        }
        out.extend_from_slice(b": ");
    }
    out.extend_from_slice(sentence(told).as_bytes());
}

/// The result of the event, as a clause.
fn sentence(told: &PathEvent) -> String {
    let remote = told.remote.as_deref().unwrap_or("a remote");
    let remotes = || counted(told.remotes.unwrap_or(0), "remote", "remotes");
    let why =
        |before: &str| told.why.as_ref().map_or_else(String::new, |why| format!("{before}{why}"));
    match told.what {
        Stage::News => why(""),
        Stage::Ignored => format!("ignored{}", why(" ")),
        Stage::Pending => format!("pending for {}", remotes()),
        Stage::Merged => format!("merged: it waits already{}", why("; ")),
        Stage::InJob => {
            let below = match told.scope.as_deref() {
                Some("tree") => " with everything below it",
                Some("listing") => " with the names in it",
                _ => "",
            };
            format!("leaves for {remote}{below}{}", why(" "))
        }
        Stage::Delivered => {
            let took = told.took_ms.map_or_else(String::new, |ms| format!(" after {ms} ms"));
            format!("delivered to {remote}{took}{}", why(", and "))
        }
        Stage::Failed => format!("could not be sent to {remote}{}", why(": ")),
        Stage::Returned => {
            let why = told.why.as_deref().unwrap_or("not done by this job");
            format!("{why}: pending for {remote} again")
        }
        Stage::Dropped => {
            let dropped = counted(told.dropped.unwrap_or(0), "event is", "events are");
            format!("{dropped} left out{}", why(": "))
        }
    }
}

fn json_of(told: &PathEvent) -> Value {
    let name = |text: &Option<String>| {
        text.as_ref().map(|text| name_in_json(read_path(text).as_os_str().as_bytes()))
    };
    let time = time(told.at_ms);
    match told.what {
        Stage::News => json!({ "time": time, "watch": name(&told.watch), "news": told.why }),
        Stage::Dropped => {
            json!({ "time": time, "decision": told.what, "dropped": told.dropped, "why": told.why })
        }
        _ => json!({
            "time": time,
            "watch": name(&told.watch),
            "path": name(&told.path),
            "event": told.event,
            "directory": told.directory,
            "scope": told.scope,
            "moved_from": name(&told.moved_from),
            "decision": told.what,
            "why": told.why,
            "remote": told.remote,
            "remotes": told.remotes,
            "job": told.job,
            "took_ms": told.took_ms,
        }),
    }
}

fn time(at_ms: u64) -> String {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).unwrap_or(0)).unwrap_or_default();
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(told: &PathEvent) -> String {
        let mut out = Vec::new();
        write_text(&mut out, told);
        // Skip the time.
        String::from_utf8(out).unwrap().split_off(24)
    }

    #[test]
    fn each_thing_that_becomes_of_a_path_is_a_sentence() {
        let told = |what| PathEvent {
            what,
            path: Some("/w/a b".into()),
            remote: Some("h::m".into()),
            job: Some(7),
            ..PathEvent::default()
        };
        let event = PathEvent {
            event: Some("MOVED_TO".into()),
            moved_from: Some("/w/c".into()),
            remotes: Some(2),
            ..told(Stage::Pending)
        };
        assert_eq!(text(&event), "MOVED_TO     '/w/a b' moved from /w/c: pending for 2 remotes");
        let job = PathEvent { scope: Some("tree".into()), ..told(Stage::InJob) };
        assert_eq!(text(&job), "job 7        '/w/a b': leaves for h::m with everything below it");
        let delivered = PathEvent { took_ms: Some(31), ..told(Stage::Delivered) };
        assert_eq!(text(&delivered), "job 7        '/w/a b': delivered to h::m after 31 ms");
        let confirmed = PathEvent { why: Some("pending again: to confirm it".into()), ..delivered };
        let line = "job 7        '/w/a b': delivered to h::m after 31 ms, and pending again: to confirm it";
        assert_eq!(text(&confirmed), line);
        let returned = told(Stage::Returned);
        let line = "job 7        '/w/a b': not done by this job: pending for h::m again";
        assert_eq!(text(&returned), line);
        let returned = PathEvent { why: Some("to be confirmed".into()), ..returned };
        let line = "job 7        '/w/a b': to be confirmed: pending for h::m again";
        assert_eq!(text(&returned), line);
        let why = Some("they came faster than they were read".into());
        let dropped =
            PathEvent { what: Stage::Dropped, dropped: Some(3), why, ..PathEvent::default() };
        assert_eq!(text(&dropped), "3 events are left out: they came faster than they were read");
    }

    #[test]
    fn names_in_json_are_texts_or_bytes() {
        let told = PathEvent {
            what: Stage::Pending,
            path: Some("/w/\\xff".into()),
            ..PathEvent::default()
        };
        assert_eq!(json_of(&told)["path"], json!([47, 119, 47, 255]));
        let told = PathEvent { path: Some("/w/a".into()), ..told };
        assert_eq!(
            (&json_of(&told)["path"], &json_of(&told)["decision"]),
            (&json!("/w/a"), &json!("pending"))
        );
    }
}
