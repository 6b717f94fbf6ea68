//! Requests to web services for the heartbeat and the alerts: within a time limit, with TLS by the system's certificates.
//! Shows no address beyond its host, for the rest may be a token.

use std::time::Duration;

use ureq::Agent;

use crate::ground::tls::tls_by_the_system;
use crate::secret::masked;

/// How long a request may take, its answer included.
const TIME: Duration = Duration::from_secs(15);

/// Longest answer that is looked at.
const ANSWER_MAX: u64 = 64 << 10;

/// A client; the certificates are read when it first needs them.
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
    /// Asks for an address; what it answers does not matter.
    ///
    /// # Errors
    /// A clause that names the host, when there is no answer or it is an error.
    pub fn get(&self, url: &str) -> Result<(), String> {
        let answer = self.agent.get(url).call();
        judge(url, answer).map(|_| ())
    }

    /// Sends text, and returns the answer's.
    ///
    /// # Errors
    /// As [`Web::get`].
    pub fn post(&self, url: &str, content_type: &str, body: &str) -> Result<String, String> {
        let answer = self.agent.post(url).content_type(content_type).send(body);
        judge(url, answer)
    }
}

/// Why a request fails, as a clause that names the host; what is wrong with certificates says what to do.
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
        // Some of them show the whole address.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            format!("{shown} is no address that can be asked")
        }
        error => why_not(&shown, &error.to_string()),
    })?;
    let status = answer.status().as_u16();
    if !(200..300).contains(&status) {
        return Err(format!("{shown} answers with status {status}"));
    }
    let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
    // A good status is what counts; an answer that is no text is none that we know.
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
