//! The host names under which the page answers; others are refused as protection against DNS rebinding.
//! Resolves nothing: a name is allowed if the configuration contains it or it is this machine's own name.

/// The host names under which the page answers.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Allows only addresses and `localhost`.
    pub fn loopback() -> Self {
        Self { names: vec!["localhost".to_owned()] }
    }

    /// Allows these names too.
    pub fn with(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names.into_iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// True when this `Host` header is allowed. Addresses always are, because an attacker controls names, not addresses.
    pub fn allow(&self, host: &str) -> bool {
        let name = without_port(host.trim());
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if bare.unwrap_or(name).parse::<std::net::IpAddr>().is_ok() {
            return true;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.names.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // `[::1]:80` has brackets; a bare IPv6 address contains several colons.
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_may_ask_and_nobody_else() {
        let hosts = Hosts::loopback().with(["Mirror1.example.com".to_owned()]);
        for host in [
            "localhost",
            "localhost:8008",
            "LOCALHOST.:1",
            "127.0.0.1:8008",
            "[::1]:8008",
            "::1",
            "192.0.2.7",
            "mirror1.example.com:80",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8008",
            "localhost:80@evil.example",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }
}
