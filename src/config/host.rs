//! Host names, addresses and user names, as rsync and ssh accept them.
//! Checks only their form; the first contact shows whether they exist.

use crate::ground::words::quoted;

/// Refuses what is not a user name or could be misread as something else; the error is a clause.
pub fn check_user(user: &str) -> Result<(), String> {
    if user.starts_with('-') {
        return Err("it begins with `-`, as an option does".to_owned());
    }
    match user.chars().find(|&c| c.is_whitespace() || matches!(c, '@' | ':' | '/')) {
        Some(c) => Err(format!("it holds {}", quoted(&c.to_string()))),
        None if user.is_empty() => Err("it is empty".to_owned()),
        None => Ok(()),
    }
}

/// The host as rsync accepts it: an IPv6 address gets brackets; the error is a clause.
pub fn check_host(host: &str) -> Result<String, String> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let (address, zone) = bare.split_once('%').map_or((bare, ""), |(a, z)| (a, z));
    if address.parse::<std::net::Ipv6Addr>().is_ok()
        && zone.chars().all(|c| c.is_ascii_alphanumeric())
    {
        return Ok(format!("[{bare}]"));
    }
    if host.starts_with('-') {
        return Err("it begins with `-`, as an option does".to_owned());
    }
    if host.contains("://") {
        return Err("it is an URL; only its host part belongs here".to_owned());
    }
    if host.contains(':') {
        return Err("a port belongs into <userDefinedPort>, a module into name".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(c) = host.chars().find(|&c| !allowed(c)) {
        return Err(format!("it holds {}", quoted(&c.to_string())));
    }
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err("it has an empty part between its dots".to_owned());
    }
    check_dotted(&labels)?;
    Ok(host.to_owned())
}

/// Refuses what only looks like an IPv4 address: `x.x.x.1`, `192.168.1`, `10.0.0.256`.
fn check_dotted(labels: &[&str]) -> Result<(), String> {
    let is_number = |label: &&str| label.bytes().all(|b| b.is_ascii_digit());
    let is_blank = |label: &&str| label.bytes().all(|b| matches!(b, b'x' | b'X'));
    let numbers = labels.iter().filter(|label| is_number(label)).count();
    let blanks = labels.iter().filter(|label| is_blank(label)).count();
    if labels.len() == 4 && blanks > 0 && numbers + blanks == 4 {
        return Err("an x stands where a number belongs".to_owned());
    }
    if numbers < labels.len() {
        return Ok(());
    }
    if labels.len() != 4 {
        return Err(format!("an IPv4 address has four numbers, this has {}", labels.len()));
    }
    match labels.iter().find(|label| label.parse::<u8>().is_err()) {
        Some(label) => Err(format!("{label} is above 255")),
        None => Ok(()),
    }
}
