//! HTTP: parses requests, formats the heads of responses.
//! Pure; `server.rs` owns the sockets.

use super::hosts::Hosts;

/// The longest request head; those of browsers are far shorter.
pub const REQUEST_MAX: usize = 8 << 10;

/// The most header lines of a request.
const HEADERS_MAX: usize = 64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The path, before `?`.
    pub path: String,
    /// The part after `?`.
    pub query: String,
    /// Whether the body is wanted too.
    pub method: Method,
    /// Whether the client accepts OpenMetrics.
    pub reads_open_metrics: bool,
}

/// The supported methods, which only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Head and body.
    Get,
    /// The head alone.
    Head,
}

/// A status code with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16, pub &'static str);

/// 200.
pub const OK: Status = Status(200, "OK");
/// 400.
pub const BAD_REQUEST: Status = Status(400, "Bad Request");
/// 404.
pub const NOT_FOUND: Status = Status(404, "Not Found");
/// 405.
pub const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
/// 408.
pub const TIMEOUT: Status = Status(408, "Request Timeout");
/// 421.
pub const MISDIRECTED: Status = Status(421, "Misdirected Request");
/// 431.
pub const TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
/// 503.
pub const UNAVAILABLE: Status = Status(503, "Service Unavailable");

/// Why a request is refused: a status and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    /// The status code.
    pub status: Status,
    /// What is wrong and what to do.
    pub text: String,
}

impl HttpError {
    /// A refusal.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

/// Reads a request; `None` while its head is incomplete.
///
/// # Errors
/// When it is not a request, too long, or not supported.
pub fn parse(bytes: &[u8], hosts: &Hosts) -> Result<Option<HttpRequest>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|error| match error {
        httparse::Error::TooManyHeaders => {
            HttpError::new(TOO_LARGE, format!("more than {HEADERS_MAX} header lines"))
        }
        error => HttpError::new(BAD_REQUEST, format!("not a valid HTTP request: {error}")),
    })?;
    if parsed.is_partial() {
        let is_too_long = bytes.len() >= REQUEST_MAX;
        let text = || format!("the request's head is longer than {REQUEST_MAX} bytes");
        return if is_too_long { Err(HttpError::new(TOO_LARGE, text())) } else { Ok(None) };
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => {
            let text = "this page is read-only: it answers GET and HEAD only";
            return Err(HttpError::new(METHOD_NOT_ALLOWED, text));
        }
    };
    check_host(&request, hosts)?;
    let target = request.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let accepts = header(&request, "accept");
    let reads_open_metrics = accepts.is_some_and(|accept| accept.contains("openmetrics-text"));
    Ok(Some(HttpRequest { path: path.into(), query: query.into(), method, reads_open_metrics }))
}

/// Protects against DNS rebinding: another site may point its own name at our address, and its script could then read
/// this page. So the `Host` header must be an address or one of our names.
fn check_host(request: &httparse::Request<'_, '_>, hosts: &Hosts) -> Result<(), HttpError> {
    let named = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host")).count();
    match (named, request.version) {
        // Old monitoring tools send no `Host`; a browser always does.
        (0, Some(0)) => return Ok(()),
        (1, _) => {}
        _ => return Err(HttpError::new(BAD_REQUEST, "a request needs one Host header")),
    }
    let host = header(request, "host").unwrap_or_default();
    if hosts.allow(host) {
        return Ok(());
    }
    let text = "this page does not answer to that name (protection against DNS rebinding): use the machine's address, \
                or write the name into <host hostip=\"...\" page=\"network\">";
    Err(HttpError::new(MISDIRECTED, text))
}

fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

/// The head of a response. Without a length, the end of the connection ends the body.
pub fn head(status: Status, content_type: &str, length: Option<usize>, policy: &str) -> Vec<u8> {
    let Status(code, words) = status;
    let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
    let allow = if status == METHOD_NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
    let retry = if status == UNAVAILABLE { "Retry-After: 5\r\n" } else { "" };
    format!(
        "HTTP/1.1 {code} {words}\r\nContent-Type: {content_type}\r\n{length}{allow}{retry}\
         Cache-Control: no-store\r\nContent-Security-Policy: {policy}\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> Result<Option<HttpRequest>, HttpError> {
        parse(request.as_bytes(), &Hosts::loopback())
    }

    fn refused(request: &str) -> u16 {
        ask(request).unwrap_err().status.0
    }

    #[test]
    fn a_request_is_read_when_it_is_whole() {
        assert_eq!(ask("GET /status?a=1 HTTP/1.1\r\nHost: local"), Ok(None));
        let asked = ask("GET /status?a=1 HTTP/1.1\r\nHost: localhost:8008\r\n\r\n").unwrap();
        let expected = HttpRequest {
            path: "/status".into(),
            query: "a=1".into(),
            method: Method::Get,
            reads_open_metrics: false,
        };
        assert_eq!(asked, Some(expected));
        assert!(ask("HEAD / HTTP/1.0\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn what_is_no_request_of_ours_is_refused_with_its_status() {
        let many = "X: y\r\n".repeat(70);
        let long = "a".repeat(REQUEST_MAX);
        assert_eq!(refused("\u{16}\u{3}\u{1}\r\n\r\n"), 400);
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"), 400);
        assert_eq!(refused("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 431);
        assert_eq!(refused(&format!("GET /{long}")), 431);
    }
}
