//! Requests to web services for the heartbeat and the alerts, with a time limit and TLS by the system's certificates.
//! Messages show only the host of an address, because the rest may contain a token.

use std::time::Duration;

use ureq::Agent;

use crate::ground::tls::tls_by_the_system;
use crate::secret::masked;

/// The time limit of a request, including its answer.
const TIME: Duration = Duration::from_secs(15);

/// The maximum length of an answer.
const ANSWER_MAX: u64 = 64 << 10;

/// A client. It reads the certificates when it first needs them.
#[derive(Debug, Clone)]
pub struct Web {
    agent: Agent,
}

impl Default for Web {
    fn default() -> Self {
        let config = Agent::config_builder()
            .tls_config(tls_by_the_system())
            .http_status_as_error(false)
            .max_redirects(3)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .user_agent(concat!("sersync/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(TIME / 2))
            .timeout_connect(Some(TIME / 2))
            .timeout_global(Some(TIME));
        Self { agent: config.build().new_agent() }
    }
}

impl Web {
    /// Sends a GET request; ignores the body of the answer.
    ///
    /// # Errors
    /// A clause that names the host, when there is no answer or it is an error.
    pub fn get(&self, url: &str) -> Result<(), String> {
        let answer = self.agent.get(url).call();
        judge(url, answer).map(|_| ())
    }

    /// Sends text, and returns the text of the answer.
    ///
    /// # Errors
    /// As [`Web::get`].
    pub fn post(&self, url: &str, content_type: &str, body: &str) -> Result<String, String> {
        let answer = self.agent.post(url).content_type(content_type).send(body);
        judge(url, answer)
    }
}

/// Why a request fails, as a clause that names the host; for a certificate problem, also what to do.
fn why_not(shown: &impl std::fmt::Display, error: &str) -> String {
    match error.split_once("invalid peer certificate: ") {
        Some((_, "UnknownIssuer")) => format!(
            "the certificate of {shown} comes from a CA that this machine does not trust: add that CA to the system's certificates, \
             or name its file with SSL_CERT_FILE in the environment of sersync2"
        ),
        Some((_, reason)) => format!("the certificate of {shown} is not valid: {reason}"),
        None if error.contains("No CA certificates were loaded") => {
            format!(
                "cannot trust {shown}: this machine has no CA certificates; install the package ca-certificates"
            )
        }
        None => format!("cannot reach {shown}: {error}"),
    }
}

fn judge(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String, String> {
    let shown = masked(url);
    let mut answer = answer.map_err(|error| match error {
        // These errors may contain the whole address, so replace them.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            format!("{shown} is not a valid address")
        }
        error => why_not(&shown, &error.to_string()),
    })?;
    let status = answer.status().as_u16();
    if !(200..300).contains(&status) {
        return Err(format!("{shown} answers with status {status}"));
    }
    let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
    // Only the status matters. A body that is not text counts as empty.
    Ok(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_with_what_to_do() {
        let why = |error| why_not(&"https://h/…", error);
        assert!(why("io: invalid peer certificate: UnknownIssuer").contains("SSL_CERT_FILE"));
        let expired = why("io: invalid peer certificate: certificate expired");
        assert_eq!(expired, "the certificate of https://h/… is not valid: certificate expired");
        assert!(why("No CA certificates were loaded from the system").contains("ca-certificates"));
        assert_eq!(why("timeout: global"), "cannot reach https://h/…: timeout: global");
    }
}
