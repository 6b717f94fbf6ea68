//! The routes and their content.
//! Does not know sockets. Renders each form of a snapshot once for all clients.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;

use super::http::{HttpError, HttpRequest, NOT_FOUND, OK, Status, UNAVAILABLE};
use crate::metrics::{self, MetricsFormat};
use crate::snapshot::Snapshot;
use crate::snapshot::health::{HealthThresholds, Level};

/// The page: markup, style and script in one file.
pub(super) const PAGE: &str = include_str!("page.html");

/// The content type of JSON.
pub const JSON: &str = "application/json; charset=utf-8";
/// The content type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of server-sent events.
pub const EVENTS: &str = "text/event-stream; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What a URL path serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The page.
    Page,
    /// The configuration in force.
    Config,
    /// The last warnings of the log.
    Log,
    /// The snapshot.
    Status,
    /// The metrics.
    Metrics(MetricsFormat),
    /// The health verdict.
    Health(HealthThresholds),
    /// A snapshot after each change, as server-sent events.
    Events,
}

impl Route {
    /// The route of a request.
    ///
    /// # Errors
    /// When the path or its query is unknown.
    pub fn of(asked: &HttpRequest) -> Result<Self, HttpError> {
        Ok(match asked.path.as_str() {
            "/" | "/index.html" => Self::Page,
            "/status" => Self::Status,
            "/metrics" if asked.reads_open_metrics => Self::Metrics(MetricsFormat::OpenMetrics),
            "/metrics" => Self::Metrics(MetricsFormat::Classic),
            "/healthz" => Self::Health(thresholds(&asked.query)?),
            "/events" => Self::Events,
            "/config" => Self::Config,
            "/log" => Self::Log,
            _ => {
                let text = "no such page; there are /, /status, /metrics, /healthz, /events, /config and /log";
                return Err(HttpError::new(NOT_FOUND, text));
            }
        })
    }
}

/// Parses `max_age=SECONDS` and `max_pending=N`, as in `sersync2 status`.
fn thresholds(query: &str) -> Result<HealthThresholds, HttpError> {
    let mut thresholds = HealthThresholds::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = value.parse::<u64>();
        match (name, number) {
            ("max_age", Ok(seconds)) => thresholds.max_age = Duration::from_secs(seconds),
            ("max_pending", Ok(paths)) => thresholds.max_pending = Some(paths),
            _ => {
                let text =
                    "write /healthz?max_age=SECONDS&max_pending=PATHS, each of them if you like";
                return Err(HttpError::new(super::http::BAD_REQUEST, text));
            }
        }
    }
    Ok(thresholds)
}

/// A body with its status and type; many clients share it.
#[derive(Debug, Clone)]
pub struct Content {
    /// The status code.
    pub status: Status,
    /// The content type.
    pub kind: &'static str,
    /// The bytes.
    pub body: Arc<[u8]>,
}

impl Content {
    /// Content with status 200.
    pub fn new(kind: &'static str, body: impl Into<Arc<[u8]>>) -> Self {
        Self { status: OK, kind, body: body.into() }
    }

    /// The content of a refusal.
    pub fn refused(refusal: &HttpError) -> Self {
        let body = format!("{}\n", refusal.text).into_bytes();
        Self { status: refusal.status, kind: TEXT, body: body.into() }
    }
}

/// The content that needs no snapshot: the page itself, the configuration, and the last warnings of the log.
pub struct Site {
    config: Box<dyn Fn() -> String + Send>,
    log: Box<dyn Fn() -> Vec<String> + Send>,
    policy: OnceLock<String>,
}

impl Site {
    /// `config` returns JSON without secrets; `log` returns the last warnings.
    pub fn new(
        config: Box<dyn Fn() -> String + Send>,
        log: Box<dyn Fn() -> Vec<String> + Send>,
    ) -> Self {
        Self { config, log, policy: OnceLock::new() }
    }

    /// The security policy: the browser may only use this script and style, and send requests to this server.
    pub fn policy(&self) -> &str {
        self.policy.get_or_init(|| {
            format!(
                "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                hash_of("script"),
                hash_of("style"),
            )
        })
    }

    /// The content of a route that needs no snapshot; `None` for other routes.
    pub fn fixed(&self, route: Route) -> Option<Content> {
        match route {
            Route::Page => Some(Content::new(HTML, PAGE.as_bytes())),
            Route::Config => Some(Content::new(JSON, (self.config)().into_bytes())),
            Route::Log => {
                let lines = serde_json::to_vec(&(self.log)()).unwrap_or_default();
                Some(Content::new(JSON, lines))
            }
            _ => None,
        }
    }
}

/// The hash with which the policy allows exactly this `<script>` or `<style>`.
fn hash_of(element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let inner = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
    let inner = inner.map_or("", |(inner, _)| inner);
    let digest = ring::digest::digest(&ring::digest::SHA256, inner.as_bytes());
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(digest))
}

/// A snapshot in all its forms; each form is rendered once, on the first request.
pub struct Rendered {
    /// The snapshot itself.
    pub snapshot: Arc<Snapshot>,
    status: OnceLock<Arc<[u8]>>,
    event: OnceLock<Arc<[u8]>>,
    classic: OnceLock<Arc<[u8]>>,
    open_metrics: OnceLock<Arc<[u8]>>,
}

impl Rendered {
    /// Renders nothing yet.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let [status, event, classic, open_metrics] = std::array::from_fn(|_| OnceLock::new());
        Self { snapshot, status, event, classic, open_metrics }
    }

    /// The snapshot as an event.
    pub fn event(&self) -> Arc<[u8]> {
        let make = || {
            let mut event = b"event: snapshot\ndata: ".to_vec();
            // Serde's JSON has no line breaks, so it is one line of data.
            event.extend_from_slice(&self.json());
            event.extend_from_slice(b"\n\n");
            event.into()
        };
        Arc::clone(self.event.get_or_init(make))
    }

    fn json(&self) -> Arc<[u8]> {
        let make = || serde_json::to_vec(&*self.snapshot).unwrap_or_default().into();
        Arc::clone(self.status.get_or_init(make))
    }

    /// The answer of a route; `None` for routes that need no snapshot.
    pub fn content(&self, route: Route, now_ms: u64) -> Option<Content> {
        match route {
            Route::Status => Some(Content::new(JSON, self.json())),
            Route::Metrics(format) => {
                let cell = match format {
                    MetricsFormat::Classic => &self.classic,
                    MetricsFormat::OpenMetrics => &self.open_metrics,
                };
                let make = || metrics::encode(&self.snapshot, format).into_bytes().into();
                Some(Content::new(format.content_type(), Arc::clone(cell.get_or_init(make))))
            }
            Route::Health(thresholds) => Some(self.health(&thresholds, now_ms)),
            Route::Page | Route::Config | Route::Log | Route::Events => None,
        }
    }

    fn health(&self, thresholds: &HealthThresholds, now_ms: u64) -> Content {
        let health = self.snapshot.health(thresholds, now_ms);
        let status = if health.level == Level::Ok { OK } else { UNAVAILABLE };
        let text = match health.level {
            Level::Ok => "ok\n".to_owned(),
            _ => health.reasons.iter().map(|reason| format!("{reason}\n")).collect(),
        };
        Content { status, kind: TEXT, body: text.into_bytes().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_in_chinese_what_the_program_says_about_remotes() {
        let policies = crate::failure::policies();
        let kinds = policies.flat_map(|kind| [kind.said, kind.over, kind.advice]);
        let kinds = kinds.filter(|words| !words.is_empty()).map(str::to_owned);
        for words in crate::rsync::exit::advice::known_words().into_iter().chain(kinds) {
            assert!(
                super::super::words::are_known(&words),
                "{words} is not in SAID_ZH of page.html"
            );
        }
        let refused = serde_json::to_string(crate::failure::DELETIONS_REFUSED_ADVICE).unwrap();
        assert!(PAGE.contains(&format!("const REFUSED_ADVICE = {refused};")));
    }

    #[test]
    fn the_page_holds_one_script_and_one_style_and_nothing_from_elsewhere() {
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}>")).count(), 1, "{element}");
        }
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=\"",
            "onclick=",
            "src=\"http",
            "href=\"http",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
