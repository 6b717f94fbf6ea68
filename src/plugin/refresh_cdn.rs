//! The refreshCDN plugin: tells a content delivery network which URL changed, one HEAD request per event.
//! Does not interpret `whatsup` in the answers, which go to an error log for people. Never logs the password.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use super::actor::{Deliver, PluginFailure, PluginSuccess, StopSignal};
use super::error_log::ErrorLog;
use super::socket::connect;
use super::{PathTail, PluginEvent};
use crate::config::RefreshCdnPlugin;

/// The bytes of a name that are encoded in the request line.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// The bytes of configured values that are encoded. `%` and `&` are kept, because the operator wrote them on purpose.
const VALUE: &AsciiSet = &CONTROLS.add(b' ');

/// The maximum number of bytes that are read of an answer.
const ANSWER_MAX: u64 = 4096;

/// The refreshCDN plugin's side of [`Deliver`].
pub(super) struct RefreshCdn {
    config: RefreshCdnPlugin,
    tail: Option<PathTail>,
    error_log: ErrorLog,
    limit: Duration,
}

impl RefreshCdn {
    pub(super) fn new(
        config: RefreshCdnPlugin,
        tail: Option<PathTail>,
        error_log: PathBuf,
        limit: Duration,
    ) -> Self {
        Self { config, tail, error_log: ErrorLog::new(error_log), limit }
    }

    /// `urls=URL`, or `dirs=URL/` for a directory; `None` when the expression does not match the path.
    fn parameter(&self, event: &PluginEvent) -> Option<String> {
        let path = event.absolute();
        let path = path.as_os_str().as_bytes();
        let tail = match &self.tail {
            Some(find) => find(path)?,
            None => below(event.root.as_os_str().as_bytes(), path).to_vec(),
        };
        let base = value(&self.config.base);
        let url = format!("{base}{}", percent_encode(&tail, NAME));
        Some(if event.is_dir { format!("dirs={url}/") } else { format!("urls={url}") })
    }

    fn request(&self, parameter: &str) -> String {
        let user = value(&self.config.user);
        let password = value(&self.config.password);
        let host = &self.config.domain;
        format!(
            "HEAD /index.jsp?user={user}&pswd={password}&ok=ok&{parameter} HTTP/1.0\r\nHost: {host}\r\n\r\n"
        )
    }

    fn ask(&self, request: &str) -> Result<Vec<u8>, PluginFailure> {
        let RefreshCdnPlugin { domain, port, .. } = &self.config;
        let mut stream = connect(domain, *port, self.limit)?;
        let refused = |what: String| PluginFailure::Refused(format!("{domain}:{port} {what}"));
        stream
            .write_all(request.as_bytes())
            .map_err(|error| refused(format!("did not accept the request: {error}")))?;
        let answer = read_answer(stream, self.limit);
        if answer.is_empty() {
            return Err(refused("gave no answer".into()));
        }
        Ok(answer)
    }
}

impl Deliver for RefreshCdn {
    fn deliver(
        &mut self,
        event: &PluginEvent,
        _stop: &StopSignal,
    ) -> Result<PluginSuccess, PluginFailure> {
        let Some(parameter) = self.parameter(event) else {
            return Ok(PluginSuccess::Skipped);
        };
        let answer = self.ask(&self.request(&parameter))?;
        let whatsup = find_whatsup(&answer);
        let line = whatsup.unwrap_or_else(|| first_line(&answer));
        self.error_log.append(&format!("{} {parameter}", printable(line)));
        match status(&answer) {
            Some(status) if status >= 400 => Err(PluginFailure::Refused(format!(
                "{} answered with status {status}",
                self.config.domain
            ))),
            None if whatsup.is_none() => Err(PluginFailure::Refused(format!(
                "{} answered with something that is not HTTP",
                self.config.domain
            ))),
            _ => Ok(PluginSuccess::Done),
        }
    }
}

/// Reads until the answer is complete, the time limit is reached or the connection ends.
#[expect(
    clippy::disallowed_methods,
    reason = "this thread waits: a server that sends slowly must not hold it for ever"
)]
fn read_answer(mut stream: TcpStream, limit: Duration) -> Vec<u8> {
    let until = Instant::now() + limit;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !is_complete(&answer) && (answer.len() as u64) < ANSWER_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    answer
}

/// True when the head is complete: the answer to a HEAD request has no body.
fn is_complete(answer: &[u8]) -> bool {
    answer.windows(4).any(|four| four == b"\r\n\r\n") || answer.windows(2).any(|two| two == b"\n\n")
}

/// The text from `whatsup` to the end of its line.
fn find_whatsup(answer: &[u8]) -> Option<&[u8]> {
    let start = answer.windows(7).position(|word| word == b"whatsup")?;
    Some(first_line(&answer[start..]))
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == b'\n');
    text[..end.unwrap_or(text.len())].trim_ascii_end()
}

/// Replaces control characters, so that an answer cannot forge a line.
fn printable(line: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(line).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// The status of `HTTP/1.x NNN …`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(first_line(answer)).ok()?;
    let mut words = line.strip_prefix("HTTP/")?.split(' ');
    words.nth(1)?.parse().ok()
}

/// The path below the root, with its leading slash; empty for the root itself.
fn below<'a>(root: &[u8], path: &'a [u8]) -> &'a [u8] {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(root).unwrap_or(path)
}

fn value(text: &str) -> String {
    percent_encode(text.as_bytes(), VALUE).to_string()
}
