//! The http plugin: one POST per event, as a form (which receivers for sersync2 expect) or as JSON.
//! Follows no redirection and uses no proxy; https uses the system's certificates.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde_json::json;
use ureq::{Agent, Timeout};

use super::actor::{Deliver, PluginFailure, PluginSuccess, StopSignal};
use super::{PluginError, PluginEvent};
use crate::config::HttpPlugin;
use crate::ground::tls::tls_by_the_system;

/// The bytes that are encoded in a form value. Slashes are not, so common paths look as sersync2 sent them.
const FORM: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The default ports.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Status codes that mean "later": the event is kept and retried.
const TRY_AGAIN: [u16; 4] = [429, 502, 503, 504];

/// The http plugin's side of [`Deliver`].
pub(super) struct Http {
    agent: Agent,
    url: String,
    /// `host:port` for the log. The rest of the address may contain a secret token.
    shown: String,
    json: bool,
}

impl Http {
    pub(super) fn new(config: &HttpPlugin, limit: Duration) -> Result<Self, PluginError> {
        let (url, shown) = address(&config.url, config.port)?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls_by_the_system())
            .max_idle_connections(0)
            .user_agent(concat!("sersync/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(limit / 2))
            .timeout_connect(Some(limit / 2))
            .timeout_global(Some(limit))
            .build()
            .new_agent();
        Ok(Self { agent, url, shown, json: config.json })
    }

    fn judge(&self, status: u16) -> Result<PluginSuccess, PluginFailure> {
        let sentence = format!("{} answered with status {status}", self.shown);
        match status {
            200..=299 => Ok(PluginSuccess::Done),
            later if TRY_AGAIN.contains(&later) => Err(PluginFailure::Unreachable(sentence)),
            _ => Err(PluginFailure::Refused(sentence)),
        }
    }

    fn explain(&self, error: &ureq::Error) -> PluginFailure {
        let shown = &self.shown;
        let handed_over = match error {
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => false,
            ureq::Error::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::InvalidData
            ),
            _ => true,
        };
        if handed_over {
            PluginFailure::Refused(format!("{shown} sent an invalid answer: {error}"))
        } else {
            PluginFailure::Unreachable(format!("cannot connect to {shown}: {error}"))
        }
    }
}

impl Deliver for Http {
    fn deliver(
        &mut self,
        event: &PluginEvent,
        _stop: &StopSignal,
    ) -> Result<PluginSuccess, PluginFailure> {
        let (kind, body) = if self.json {
            ("application/json", json_body(event))
        } else {
            ("application/x-www-form-urlencoded", form_body(event))
        };
        let answer = self.agent.post(&self.url).content_type(kind).send(body);
        match answer {
            Ok(answer) => self.judge(answer.status().as_u16()),
            Err(error) => Err(self.explain(&error)),
        }
    }
}

/// The address to post to, and its `host:port`. A port inside the address takes precedence over the attribute.
fn address(url: &str, port: u16) -> Result<(String, String), PluginError> {
    let bad = |why: &str| PluginError::BadUrl(format!("url=\"{}\" {why}", without_secrets(url)));
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        _ => ("http", url),
    };
    // 80 is the attribute's default, which is meant for http.
    let port = if scheme == "https" && port == HTTP_PORT { HTTPS_PORT } else { port };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if host.is_empty() || host.starts_with(':') {
        return Err(bad("names no host; write http://host/path"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, digits)| digits.parse::<u16>().is_ok());
    let port = if has_port { String::new() } else { format!(":{port}") };
    let slash = if tail.starts_with('/') { "" } else { "/" };
    let full = format!("{scheme}://{authority}{port}{slash}{tail}");
    if full.parse::<ureq::http::Uri>().is_err() {
        return Err(bad("is not a valid address; write http://host/path, blanks as %20"));
    }
    Ok((full, format!("{host}{port}")))
}

/// The address without user, password and query.
fn without_secrets(url: &str) -> &str {
    let end = url.find('?').unwrap_or(url.len());
    url[..end].rsplit('@').next().unwrap_or_default()
}

fn form_body(event: &PluginEvent) -> Vec<u8> {
    format!(
        "watchroot={}&isdir={}&inotifyPath={}&mask={}",
        encoded(&event.root),
        u8::from(event.is_dir),
        encoded(&event.absolute()),
        event.mask
    )
    .into_bytes()
}

fn json_body(event: &PluginEvent) -> Vec<u8> {
    let path = event.absolute();
    let mut body = json!({
        "watchroot": event.root.to_string_lossy(),
        "isdir": event.is_dir,
        "inotifyPath": path.to_string_lossy(),
        "mask": event.mask,
        "remotes": &event.remotes[..],
    });
    if path.to_str().is_none() {
        // JSON strings cannot hold this name, because it is not UTF-8. So add its exact bytes.
        body["inotifyPathEncoded"] = encoded(&path).into();
    }
    body.to_string().into_bytes()
}

fn encoded(path: &Path) -> String {
    percent_encode(path.as_os_str().as_bytes(), FORM).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_takes_the_port_of_the_attribute_unless_it_has_its_own() {
        for (url, full, shown) in [
            ("example.com", "http://example.com:81/", "example.com:81"),
            ("http://example.com/p?q", "http://example.com:81/p?q", "example.com:81"),
            ("http://example.com:8080?q", "http://example.com:8080/?q", "example.com:8080"),
            ("http://u:p@h/x", "http://u:p@h:81/x", "h:81"),
            ("http://[::1]/x", "http://[::1]:81/x", "[::1]:81"),
            ("https://h/x", "https://h:81/x", "h:81"),
            ("https://h:8443/x", "https://h:8443/x", "h:8443"),
        ] {
            let expected = (full.to_owned(), shown.to_owned());
            assert_eq!(address(url, 81).unwrap(), expected);
        }
    }

    #[test]
    fn refusal_of_an_address_does_not_tell_its_secrets() {
        let error = address("http://user:secret@h h/p?token=secret", 80).unwrap_err();
        assert!(error.to_string().contains("h/p") && !error.to_string().contains("secret"));
    }

    #[test]
    fn https_has_its_own_usual_port() {
        assert_eq!(address("https://h/x", 80).unwrap().0, "https://h:443/x");
        assert_eq!(address("https://h:80/x", 80).unwrap().0, "https://h:80/x");
    }
}
