//! Failures that somebody has to mend, and what to do about each.
//! Knows rsync's and ssh's words; decides nothing.

/// Failures that somebody has to mend: a piece of rsync's words, and what to do.
const ADVICE: &[(&str, &str)] = &[
    (
        "@ERROR: Unknown module",
        "the remote has no such module; correct name=\"…\" in <remote> or add the module to its rsyncd.conf",
    ),
    (
        "@ERROR: auth failed",
        "user or password is refused; compare <auth users passwordfile> with the secrets file of the remote",
    ),
    (
        "@ERROR: access denied",
        "the remote does not let this machine in; look at \"hosts allow\" in its rsyncd.conf",
    ),
    ("@ERROR: chroot failed", "the module's directory does not exist on the remote; create it"),
    ("@ERROR: chdir failed", "the module's directory does not exist on the remote; create it"),
    (
        "ERROR: module is read only",
        "the module is read only; set \"read only = no\" in the remote's rsyncd.conf",
    ),
    (
        "password file must not be other-accessible",
        "the password file is readable by others; run chmod 600 on it",
    ),
    (
        "password file must be owned by root",
        "the password file must belong to root; run chown root on it",
    ),
    (
        "could not open password file",
        "the password file cannot be read; correct passwordfile=\"…\" in <auth>",
    ),
    (
        "refuse --delete",
        "the remote refuses deletions; take \"delete\" out of \"refuse options\" in its rsyncd.conf, or set <delete start=\"false\"/>",
    ),
    ("Failed to exec", "ssh cannot be started; install it"),
    ("remote command not found", "rsync is not installed on the remote"),
    ("rsync: command not found", "rsync is not installed on the remote"),
    ("rsync: not found", "rsync is not installed on the remote"),
    (
        "Host key verification failed",
        "the remote's ssh host key is unknown or has changed; connect once by hand with ssh as this user",
    ),
    ("Permission denied (", "ssh does not let us in; install this user's public key on the remote"),
    (
        "Too many authentication failures",
        "ssh does not let us in; install this user's public key on the remote",
    ),
    (
        "[Receiver] mkdir",
        "the directory on the remote cannot be made; create it and the directories above it",
    ),
    (
        "[Receiver] change_dir",
        "the directory on the remote cannot be entered; look at its mode and owner",
    ),
];

/// What to do about a failure, when its words are known.
pub(super) fn advice(text: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(words, _)| text.contains(words)).map(|(_, advice)| *advice)
}
