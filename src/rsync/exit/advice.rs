//! Failures that somebody has to mend, and what to do about each.
//! Knows rsync's and ssh's words; decides nothing.

use super::RunPaths;

/// Failures that somebody has to mend: a piece of rsync's words, what "remote X …" does, and what to do about it.
const ADVICE: &[(&str, &str, &str)] = &[
    (
        "@ERROR: Unknown module",
        "has no module {module}",
        "correct name=\"…\" in <remote>, or add the module to its rsyncd.conf",
    ),
    (
        "@ERROR: auth failed",
        "refuses {user}",
        "compare <auth users passwordfile> with \"auth users\" and the secrets file of module {module} there",
    ),
    (
        "@ERROR: access denied",
        "does not let this machine into module {module}",
        "look at \"hosts allow\" and \"hosts deny\" in its rsyncd.conf",
    ),
    (
        "@ERROR: chroot failed",
        "cannot enter the directory of module {module}",
        "create it there, or correct \"path\" in its rsyncd.conf",
    ),
    (
        "@ERROR: chdir failed",
        "cannot enter the directory of module {module}",
        "create it there, or correct \"path\" in its rsyncd.conf",
    ),
    (
        "ERROR: module is read only",
        "takes nothing, for module {module} is read only",
        "set \"read only = no\" in its rsyncd.conf",
    ),
    (
        "password file must not be other-accessible",
        "is not asked, for others may read the password file {file}",
        "run chmod 600 on it",
    ),
    (
        "password file must be owned by root",
        "is not asked, for the password file {file} does not belong to root",
        "run chown root on it",
    ),
    (
        "could not open password file",
        "is not asked, for the password file {file} cannot be read",
        "correct passwordfile=\"…\" in <auth>",
    ),
    (
        "refuse --delete",
        "refuses deletions",
        "take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/>",
    ),
    ("Failed to exec", "cannot be reached without ssh", "install it here"),
    ("remote command not found", "has no rsync", "install it there"),
    ("rsync: command not found", "has no rsync", "install it there"),
    ("rsync: not found", "has no rsync", "install it there"),
    (
        "Host key verification failed",
        "shows an ssh host key that is unknown or has changed",
        "connect once by hand with ssh as this user",
    ),
    (
        "Permission denied (",
        "does not let {user} in with ssh",
        "install the public key of the user who runs sersync there",
    ),
    (
        "Too many authentication failures",
        "does not let {user} in with ssh",
        "install the public key of the user who runs sersync there",
    ),
    (
        "[Receiver] mkdir",
        "cannot make the directory of {module}",
        "create it there, and those above it",
    ),
    (
        "[Receiver] change_dir",
        "cannot enter the directory of {module}",
        "look at its mode and owner there",
    ),
];

/// What to look at when nobody answers: a piece of rsync's, ssh's or the kernel's words, and the advice.
const HINTS: &[(&str, &str)] = &[
    (
        "Connection refused",
        "nobody listens there: start the daemon, or correct <userDefinedPort> or the remote's ip",
    ),
    ("Name or service not known", "correct the remote's ip, or this machine's name service"),
    ("Could not resolve hostname", "correct the remote's ip, or this machine's name service"),
    ("Temporary failure in name resolution", "look at this machine's name service"),
    (
        "rather than greeting",
        "no rsync daemon listens there: correct <userDefinedPort> or the remote's ip",
    ),
    (
        "without a greeting",
        "look at the log of the daemon there; another service may listen at that port",
    ),
    ("No route to host", "look at the network and the firewalls in between"),
    ("Network is unreachable", "look at the network of this machine"),
    ("onnection timed out", "look at the network and the firewalls in between"),
];

/// What to look at when a remote is down for this reason.
pub fn hint(reason: &str) -> Option<&'static str> {
    HINTS.iter().find(|(words, _)| reason.contains(words)).map(|(_, hint)| *hint)
}

/// What is wrong, as a clause whose subject is the remote, and what to do, when the words of a failure are known.
pub(super) fn advice(text: &str, places: &RunPaths) -> Option<(String, String)> {
    let (_, reason, advice) = ADVICE.iter().find(|(words, ..)| text.contains(words))?;
    let file = places.password_file.map_or_else(String::new, |file| file.display().to_string());
    let password = if places.password_file.is_some() {
        format!(" with the password in {file}")
    } else {
        String::new()
    };
    let user = match places.user {
        Some(user) => format!("user {user}{password}"),
        None if reason.contains("ssh") => "this user".into(),
        None => "to serve us without a user and a password".into(),
    };
    // The user last: it may hold anything.
    let fill = |words: &str| {
        let words = words.replace("{module}", places.module).replace("{file}", &file);
        words.replace("{user}", &user)
    };
    Some((fill(reason), fill(advice)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_told_with_what_to_look_at() {
        let refused = hint("failed to connect to 10.0.0.1:873: Connection refused");
        assert!(refused.is_some_and(|hint| hint.starts_with("nobody listens there: start")));
        let unknown = hint("getaddrinfo: nosuch 873: Name or service not known");
        assert!(unknown.is_some_and(|hint| hint.starts_with("correct the remote's ip, or")));
        assert_eq!(hint("no progress for 60 s"), None);
    }
}
