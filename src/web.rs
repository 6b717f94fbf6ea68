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
        error => format!("cannot reach {shown}: {error}"),
    })?;
    let status = answer.status().as_u16();
    if !(200..300).contains(&status) {
        return Err(format!("{shown} answers with status {status}"));
    }
    let text = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
    // A good status is what counts; an answer that is no text is none that we know.
    Ok(text.unwrap_or_default())
}
