//! The protocol of the control socket: one JSON object on each line, a request and its answer.
//! Parses and formats them; pure. docs/CONTROL.md describes them for other programs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::event::PathEvent;
use crate::snapshot::Snapshot;

/// The version of the protocol. It is raised when an older program would misunderstand a newer one.
pub const VERSION: u32 = 1;

/// The maximum length of a request, in bytes.
pub const REQUEST_MAX: usize = 256 << 10;

/// A command to a running mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Report the state.
    Status,
    /// Answer when every earlier change is delivered.
    Flush {
        /// Only this remote.
        #[serde(default)]
        remote: Option<String>,
        /// Only these absolute paths and what is below them; empty: everything. Written by [`write_path`].
        #[serde(default)]
        paths: Vec<String>,
        /// Answer after this at the latest.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Compare a tree now.
    SyncNow {
        /// Only this remote.
        #[serde(default)]
        remote: Option<String>,
        /// Only this absolute path and what is below it, written by [`write_path`].
        #[serde(default)]
        path: Option<String>,
    },
    /// Report the state of a path at each remote.
    Explain {
        /// An absolute path, written by [`write_path`].
        path: String,
    },
    /// Send events from now on, until this connection ends.
    Events,
    /// Retry at once what failed.
    Retry {
        /// Only this remote.
        #[serde(default)]
        remote: Option<String>,
    },
    /// Send nothing until `resume`.
    Pause {
        /// Only this remote.
        #[serde(default)]
        remote: Option<String>,
        /// Resume automatically after this time.
        #[serde(default)]
        for_ms: Option<u64>,
        /// Resume when this connection ends.
        #[serde(default)]
        while_connected: bool,
    },
    /// End a pause.
    Resume {
        /// Only this remote.
        #[serde(default)]
        remote: Option<String>,
    },
    /// Read the configuration again.
    Reload {
        /// Only report what would change.
        #[serde(default)]
        dry_run: bool,
    },
    /// Carry out the withheld deletions on the remotes.
    ConfirmDeletions,
    /// Change the log level.
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
    },
    /// Finish the jobs in flight, and end.
    Stop,
}

/// A request, with the protocol version of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub command: Command,
}

/// The response to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the server.
    pub version: u32,
    /// The result.
    #[serde(flatten)]
    pub result: Answer,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The state.
    Status {
        /// The current snapshot.
        snapshot: Box<Snapshot>,
    },
    /// The flush has ended.
    Flushed {
        /// The remotes that still lack paths; empty when everything is delivered.
        missing: Vec<Missing>,
    },
    /// The state of a path.
    Explained {
        /// At each remote that gets it.
        remotes: Vec<PathStatus>,
    },
    /// One event; more follow.
    Event {
        /// The event.
        event: Box<PathEvent>,
    },
    /// The command is done or accepted.
    Done {
        /// A sentence for each fact that the operator should know.
        notes: Vec<String>,
    },
    /// The command failed.
    Failed {
        /// The kind, for programs: `version`, `malformed`, `unknown`, `refused`, `busy`, `silent`, `ended`.
        kind: String,
        /// The reason, and what to do.
        message: String,
    },
}

/// The state of a path at one remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Which remote.
    pub remote: String,
    /// `delivered`, `pending`, `in_flight` or `failing`.
    pub state: String,
    /// Since when, if known.
    pub since_ms: Option<u64>,
    /// Why it is not delivered, if known.
    pub reason: Option<String>,
    /// What an operator should do.
    pub what_to_do: Option<String>,
    /// Failed tries so far.
    pub tries: u64,
    /// When it is retried; `None` when it is in flight, or the time is not known.
    pub next_try_ms: Option<u64>,
}

/// The paths that one remote still lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which remote.
    pub remote: String,
    /// How many paths.
    pub paths: u64,
    /// The first of them.
    pub first: Vec<String>,
    /// Why they are not delivered yet, if known.
    pub reason: Option<String>,
}

impl Answer {
    /// An [`Answer::Failed`] of this kind.
    pub fn failed(kind: &str, message: impl Into<String>) -> Self {
        Self::Failed { kind: kind.into(), message: message.into() }
    }

    /// Formats this answer as a line.
    pub fn to_line(self) -> Vec<u8> {
        let response = Response { version: VERSION, result: self };
        let mut line = serde_json::to_vec(&response).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Formats a command as the line of a request.
pub fn request_line(command: Command) -> Vec<u8> {
    let request = Request { version: VERSION, command };
    let mut line = serde_json::to_vec(&request).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads a request.
///
/// # Errors
/// The answer for the client.
pub fn parse_request(line: &[u8]) -> Result<Command, Answer> {
    /// The fields that every version of the protocol has.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
        command: String,
    }
    let malformed = |error: serde_json::Error| {
        let message = format!("not a valid request: {error}; docs/CONTROL.md describes requests");
        Answer::failed("malformed", message)
    };
    let head: Head = serde_json::from_slice(line).map_err(malformed)?;
    if head.version != VERSION {
        let message = format!(
            "this instance speaks version {VERSION} of the control protocol, and was asked in version {}: \
             use the sersync2 that it was started with, or restart it with the new one",
            head.version
        );
        return Err(Answer::failed("version", message));
    }
    let request = serde_json::from_slice::<Request>(line);
    request.map(|request| request.command).map_err(|error| {
        let message = format!("unknown or incomplete command {:?}: {error}", head.command);
        Answer::failed("unknown", message)
    })
}

/// A path as text. Bytes that are not UTF-8, control characters and backslashes become `\xNN`.
pub fn write_path(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().for_each(|byte| push_escaped(&mut text, byte));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escaped(&mut text, *byte));
    }
    text
}

fn push_escaped(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

/// Reverses [`write_path`].
pub fn read_path(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes[at..].strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let byte = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                path.push(byte);
                at += 4;
            }
            None => {
                path.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> String {
        match parse_request(line.as_bytes()) {
            Err(Answer::Failed { kind, .. }) => kind,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let flush = Command::Flush {
            remote: Some("h::m".into()),
            paths: vec!["/w/a".into()],
            timeout_ms: Some(5),
        };
        let commands = [
            Command::Status,
            flush,
            Command::Pause { remote: None, for_ms: Some(7), while_connected: true },
            Command::Events,
            Command::Stop,
        ];
        for command in commands {
            assert_eq!(parse_request(&request_line(command.clone())), Ok(command));
        }
        let short = br#"{"version":1,"command":"flush"}"#;
        let all = Command::Flush { remote: None, paths: Vec::new(), timeout_ms: None };
        assert_eq!(parse_request(short), Ok(all));
    }

    #[test]
    fn each_mistake_is_told_apart() {
        assert_eq!(kind("GET / HTTP/1.1"), "malformed");
        assert_eq!(kind("{}"), "malformed");
        assert_eq!(kind(r#"{"version":2,"command":"status"}"#), "version");
        assert_eq!(kind(r#"{"version":1,"command":"dance"}"#), "unknown");
        assert_eq!(kind(r#"{"version":1,"command":"log_level"}"#), "unknown");
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let answer = Answer::Status { snapshot: Box::default() };
        let line = answer.clone().to_line();
        let response: Response = serde_json::from_slice(&line).unwrap();
        assert_eq!((response.version, response.result), (VERSION, answer));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn an_event_says_only_what_is_known() {
        let told = PathEvent { at_ms: 7, path: Some("/w/a".into()), ..PathEvent::default() };
        let line = Answer::Event { event: Box::new(told.clone()) }.to_line();
        let text = String::from_utf8(line.clone()).unwrap();
        assert!(!text.contains("null"), "{text}");
        let response: Response = serde_json::from_slice(&line).unwrap();
        assert_eq!(response.result, Answer::Event { event: Box::new(told) });
    }

    #[test]
    fn any_path_survives_the_way_as_text() {
        for bytes in
            [&b"/a b"[..], b"/\xff\x00\n", "/\u{85}\u{4e2d}".as_bytes(), b"/a\\x41", b"/\\"]
        {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let text = write_path(&path);
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert_eq!(read_path(&text), path);
        }
    }
}
