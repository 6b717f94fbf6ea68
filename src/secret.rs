//! A value that nobody may see, such as the token in a webhook's address: where it is kept, and how it is read when it is needed.
//! Never shows it: neither `Debug` nor JSON nor an error holds the value itself.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// The longest secret that is read from a file; a longer one is a mistake.
const LENGTH_MAX: u64 = 16 << 10;

/// Where a secret is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In the configuration file itself.
    Written(String),
    /// On the first line of a file. The file is read at each use, so a changed secret needs no restart.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
}

impl Secret {
    /// `file:/PATH`, `env:NAME`, or the secret itself.
    pub fn parse(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("file:") {
            return Self::File(PathBuf::from(path));
        }
        match text.strip_prefix("env:") {
            Some(name) => Self::Environment(name.to_owned()),
            None => Self::Written(text.to_owned()),
        }
    }

    /// The secret itself.
    ///
    /// # Errors
    /// A clause for the log when it cannot be read.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Written(text) => Ok(text.clone()),
            Self::Environment(name) => match std::env::var(name) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(_) => Err(format!("the environment variable {name} is not set, or no text")),
            },
            Self::File(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
                let mut text = String::new();
                std::io::Read::read_to_string(
                    &mut std::io::Read::take(file, LENGTH_MAX),
                    &mut text,
                )
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
                    Some(line) => Ok(line.to_owned()),
                    None => Err(format!("the first line of {} is empty", path.display())),
                }
            }
        }
    }
}

/// Where it is kept; an address is shown up to its host.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(text) => f.write_str(&masked(text)),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Environment(name) => write!(f, "env:{name}"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Shortens an address to its host, because the rest may hold a token. Hides any other text.
pub fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return "…".to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_place_only() {
        let url = Secret::parse("https://user:pass@hooks.example.com/services/T0/B0?token=x");
        assert_eq!(format!("{url:?}"), "Secret(https://hooks.example.com/…)");
        assert_eq!(serde_json::to_string(&url).unwrap(), r#""https://hooks.example.com/…""#);
        assert_eq!(Secret::parse("hunter2").to_string(), "…");
        assert_eq!(Secret::parse("file:/etc/hook").to_string(), "file:/etc/hook");
    }

    #[test]
    fn a_secret_in_a_file_is_its_first_line_and_a_missing_one_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        let secret = Secret::parse(&format!("file:{}", path.display()));
        assert!(secret.read().unwrap_err().contains("cannot open"));
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.read().unwrap_err().contains("is empty"));
        std::fs::write(&path, "s3cret \nanother line\n").unwrap();
        assert_eq!(secret.read().unwrap(), "s3cret");
        assert!(Secret::parse("env:SERSYNC_NOT_SET").read().unwrap_err().contains("not set"));
    }
}
