//! Failures that somebody has to fix, and what to do about each.
//! Knows the messages of rsync and ssh; decides nothing.

use super::RunPaths;

/// Failures that somebody has to fix: a part of rsync's message, our clause after "remote X", and what to do about it.
const ADVICE: &[(&str, &str, &str)] = &[
    (
        "@ERROR: Unknown module",
        "has no module {module}",
        "correct name=\"…\" in <remote>, or add the module to its rsyncd.conf",
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
        "accepts nothing, because module {module} is read only",
        "set \"read only = no\" in its rsyncd.conf",
    ),
    (
        "password file must not be other-accessible",
        "is not contacted, because other users may read the password file {file}",
        "run chmod 600 on it",
    ),
    (
        "password file must be owned by root",
        "is not contacted, because the password file {file} does not belong to root",
        "run chown root on it",
    ),
    (
        "could not open password file",
        "is not contacted, because the password file {file} cannot be read",
        "correct passwordfile=\"…\" in <auth>",
    ),
    (
        "refuse --delete",
        "refuses deletions",
        "take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/>",
    ),
    ("remote command not found", "has no rsync", "install it there, or correct --rsync-path"),
    (
        "rather than greeting",
        "has no rsync daemon at that port, something else answers",
        "correct <userDefinedPort> or the remote's ip",
    ),
    (
        "is your shell clean",
        "prints text before rsync begins",
        "let .bashrc and .profile there print nothing without a terminal, and give the user a shell (not nologin)",
    ),
    (
        "sudo: ",
        "does not let us run rsync with sudo",
        "allow it there without a password and a terminal (NOPASSWD, !requiretty)",
    ),
    (
        "UNPROTECTED PRIVATE KEY FILE",
        "is not offered the ssh key, because other users may read its file here",
        "run chmod 600 on it",
    ),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "shows another ssh host key than before",
        "if the machine was rebuilt, run ssh-keygen -R with its name as this user and connect once by hand; if it was not, somebody may be in between",
    ),
    (
        "Host key verification failed",
        "shows an ssh host key that is unknown",
        "connect once by hand with ssh as this user",
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

/// The same for refused logins: the remote has refused the user or the password.
const LOGINS: &[(&str, &str, &str)] = &[
    (
        "@ERROR: auth failed",
        "refuses {user}",
        "compare <auth users passwordfile> (the file here holds the password alone) with \"auth users\" and the secrets file of module {module} there (USER:PASSWORD, chmod 600); its log says more",
    ),
    (
        "Permission denied (",
        "does not let {user} in with ssh",
        "install the public key of the user who runs sersync there; a key with a passphrase works only with an agent",
    ),
    (
        "Too many authentication failures",
        "does not let {user} in with ssh",
        "install the public key of the user who runs sersync there; a key with a passphrase works only with an agent",
    ),
];

/// True for the message of a refused login.
pub(super) fn is_login(text: &str) -> bool {
    LOGINS.iter().any(|(words, ..)| text.contains(words))
}

/// What to check when nobody answers: a part of the message of rsync, ssh or the kernel, and the advice.
const HINTS: &[(&str, &str)] = &[
    (
        "Connection refused",
        "nobody listens there: start the rsync daemon (with ssh: sshd), or correct the port (<remote port>, else <userDefinedPort>) or the ip",
    ),
    ("Name or service not known", "correct the remote's ip, or this machine's name service"),
    ("Could not resolve hostname", "correct the remote's ip, or this machine's name service"),
    ("Temporary failure in name resolution", "look at this machine's name service"),
    (
        "without a greeting",
        "look at the log of the daemon there; another service may listen at that port",
    ),
    ("No route to host", "look at the network and the firewalls in between"),
    ("Network is unreachable", "look at the network of this machine"),
    ("onnection timed out", "look at the network and the firewalls in between"),
];

/// What to check when a remote is down for this reason.
pub fn hint(reason: &str) -> Option<&'static str> {
    HINTS.iter().find(|(words, _)| reason.contains(words)).map(|(_, hint)| *hint)
}

/// The program that is missing on the remote, as the remote shell names it.
fn missing_program(text: &str, code: i32) -> Option<&str> {
    const BEFORE: [&str; 2] = ["command not found: ", "Unknown command: "];
    const BEHIND: [&str; 2] = [": command not found", ": not found"];
    let no_file = (code == 127).then_some(": No such file or directory");
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("rsync: "));
    lines.into_iter().find_map(|line| {
        let behind = BEFORE.iter().find_map(|words| line.split_once(words));
        if let Some((_, program)) = behind {
            return Some(program);
        }
        let before = BEHIND.into_iter().chain(no_file).find_map(|end| line.strip_suffix(end))?;
        before.rsplit(": ").next()
    })
}

/// The remote-shell program (such as ssh) that is missing on this machine.
fn missing_shell(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Failed to exec ")?;
    rest.split(':').next()
}

/// What is wrong (a clause whose subject is the remote) and what to do; `None` for an unknown message.
pub(super) fn advice(text: &str, code: i32, places: &RunPaths) -> Option<(String, String)> {
    if let Some(shell) = missing_shell(text) {
        let advice = "install it here, or correct -e in <commonParams>";
        return Some((format!("cannot be reached without {shell}"), advice.into()));
    }
    if let Some(program) = missing_program(text, code) {
        let advice = "install it there, or correct --rsync-path in <commonParams>";
        return Some((format!("has no {program}"), advice.into()));
    }
    let mut known = ADVICE.iter().chain(LOGINS);
    let (_, reason, advice) = known.find(|(words, ..)| text.contains(words))?;
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
    // Insert the user last, because it may contain anything.
    let fill = |words: &str| {
        let words = words.replace("{module}", places.module).replace("{file}", &file);
        words.replace("{user}", &user)
    };
    Some((fill(reason), fill(advice)))
}

/// Everything in the tables, for the test of its translation.
#[cfg(test)]
pub fn known_words() -> Vec<String> {
    let known = || ADVICE.iter().chain(LOGINS);
    let reasons = known().map(|(_, reason, _)| reason.replace("{user}", "user {user}"));
    let advice = known().map(|(_, _, advice)| (*advice).to_owned());
    reasons.chain(advice).chain(HINTS.iter().map(|(_, hint)| (*hint).to_owned())).collect()
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
