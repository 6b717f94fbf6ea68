//! docs/RECEIVERS.md and its Chinese translation name every option with a special meaning, and every ability.
//! Does not check the explanations.

use sersync::rsync::exit::abilities_and_options;
use sersync::rsync::options::{Meaning, OPTIONS, Role};

const PAGES: [(&str, &str); 2] = [
    ("docs/RECEIVERS.md", include_str!("../../docs/RECEIVERS.md")),
    ("docs/RECEIVERS.zh-CN.md", include_str!("../../docs/RECEIVERS.zh-CN.md")),
];

/// Directives of rsyncd.conf that affect a mirror.
const DIRECTIVES: &[&str] = &[
    "max connections",
    "lock file",
    "timeout",
    "refuse options",
    "exclude",
    "filter",
    "exclude from",
    "read only",
    "write only",
    "use chroot",
    "munge symlinks",
    "uid",
    "gid",
    "fake super",
    "auth users",
    "secrets file",
    "strict modes",
    "hosts allow",
    "hosts deny",
    "pre-xfer exec",
    "post-xfer exec",
    "early exec",
    "incoming chmod",
    "motd file",
    "socket options",
    "log file",
    "transfer logging",
];

/// True for roles that the pages describe as a whole class of options.
fn is_described_as_a_class(role: Role) -> bool {
    matches!(role, Role::Delete | Role::Rule(_))
}

#[test]
fn every_option_that_means_something_special_stands_there() {
    for (page, text) in PAGES {
        for option in OPTIONS {
            let is_special = match option.meaning {
                Meaning::Passes => option.differs.is_some(),
                Meaning::Shapes(role) => !is_described_as_a_class(role),
                Meaning::LeftOut(_) | Meaning::Refused(_) => true,
            };
            let Some(name) = option.names.first().filter(|_| is_special) else { continue };
            assert!(text.contains(&format!("`--{name}`")), "{page} does not name --{name}");
        }
    }
}

#[test]
fn every_ability_and_every_directive_stands_there() {
    for (page, text) in PAGES {
        for (ability, option) in abilities_and_options().filter(|(_, option)| option.len() > 3) {
            let row = |line: &str| line.starts_with("| ") && line.contains(&format!("`{option}`"));
            let is_there = text.lines().any(row) || option.starts_with("-@");
            assert!(is_there, "{page} does not say what is done without {ability:?} ({option})");
        }
        for directive in DIRECTIVES {
            assert!(text.contains(&format!("`{directive}`")), "{page} does not name {directive}");
        }
    }
}
