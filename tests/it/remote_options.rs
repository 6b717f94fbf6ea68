//! Options of one remote replace those of `<rsync>`, for this remote only; options without a sensible meaning are refused.

use std::path::Path;

use sersync::rsync::{Abilities, Endpoint, RunKind};

use crate::config_refusals::{read, refused, stock_with};

const REMOTE: &str = "<remote ip=\"127.0.0.1\" name=\"tongbu1\"/>";

/// The arguments of a run to each remote of the stock file, if these are its remotes.
fn words(remotes: &str) -> Vec<String> {
    let config = read(stock_with(REMOTE, remotes)).unwrap().config;
    let run = |remote: &sersync::config::Remote| {
        let endpoint = Endpoint::new(Path::new("/w"), &remote.destination, &remote.options);
        let spec = endpoint.plan(&RunKind::Probe, Abilities::ALL);
        String::from_utf8(spec.shell_line()).unwrap()
    };
    config.mirrors[0].remotes.iter().map(run).collect()
}

#[test]
fn options_of_one_remote_hold_for_it_alone() {
    let own = "user=\"bob\" port=\"8730\" params=\"-rlt\" timeout=\"7\" bwlimit=\"1.5m\"";
    let words = words(&format!("<remote ip=\"h\" name=\"m\" {own}/><remote ip=\"i\" name=\"m\"/>"));
    for word in ["rsync -rlt ", "--port=8730", "--timeout=7", "--bwlimit=1.5m", " bob@h::m/"] {
        assert!(words[0].contains(word), "{word}: {}", words[0]);
    }
    assert!(words[1].contains("rsync -artuz ") && words[1].ends_with(" i::m/"), "{}", words[1]);
    assert!(!words[1].contains("bwlimit") && !words[1].contains("--port"), "{}", words[1]);
}

/// How many sessions are ready for each remote, and how many stay while it is idle.
fn sessions(common: &str, remotes: &str) -> Vec<(usize, usize)> {
    let text = stock_with("<ssh start=\"false\"/>", &format!("<ssh start=\"false\"/>{common}"));
    let config = read(text.replace(REMOTE, remotes)).unwrap().config;
    let counts = |remote: &sersync::config::Remote| {
        let endpoint = Endpoint::new(Path::new("/w"), &remote.destination, &remote.options);
        (endpoint.ready(), endpoint.idle())
    };
    config.mirrors[0].remotes.iter().map(counts).collect()
}

#[test]
fn no_more_sessions_stay_than_are_ready() {
    let of = |words: &str| format!("<remote ip=\"h\" name=\"m\">{words}</remote>");
    assert_eq!(sessions("", &of("")), [(4, 0)]);
    assert_eq!(sessions("<session idle=\"2\"/>", &of("")), [(4, 2)]);
    assert_eq!(sessions("<session idle=\"2\"/>", &of("<session ready=\"1\"/>")), [(1, 1)]);
    assert_eq!(sessions("<session idle=\"2\"/>", &of("<session ready=\"0\"/>")), [(0, 0)]);
    assert_eq!(sessions("<session ready=\"6\"/>", &of("<session idle=\"1\"/>")), [(6, 1)]);
    for (words, said) in [
        ("idle=\"5\"", "<session idle>: expected a number of sessions, found `5`"),
        ("ready=\"1\" idle=\"2\"", "write a number from 0 to 1"),
        ("ready=\"17\"", "write a number from 0 to 16"),
        ("", "<session ready>"),
    ] {
        let switch = "<ssh start=\"false\"/>";
        refused(switch, &format!("{switch}<session {words}/>"), &[said]);
    }
}

#[test]
fn one_remote_may_be_reached_with_ssh() {
    let words = words("<remote ip=\"h\" name=\"/m\" ssh=\"true\" port=\"22\"/>");
    assert!(words[0].contains("'ssh -p 22 ") && words[0].ends_with(" h:/m/"), "{}", words[0]);
}

/// The password file of each remote, for these values of `<ssh start>`, `<auth passwordfile>` and the remotes.
fn password_files(ssh: bool, file: &str, remotes: &str) -> Result<Vec<Option<String>>, String> {
    let auth = format!("<auth start=\"true\" users=\"bob\" passwordfile=\"{file}\"/>");
    let text = stock_with(REMOTE, remotes)
        .replace("<ssh start=\"false\"/>", &format!("<ssh start=\"{ssh}\"/>"))
        .replace("<auth start=\"false\" users=\"root\" passwordfile=\"/etc/rsync.pas\"/>", &auth);
    assert!(text.contains(&auth), "{text}");
    let config = read(text)?.config;
    let file = |remote: &sersync::config::Remote| {
        remote.options.password_file.as_ref().map(|file| file.display().to_string())
    };
    Ok(config.mirrors[0].remotes.iter().map(file).collect())
}

#[test]
fn each_daemon_gets_the_password_file_whatever_the_other_remotes_are() {
    const DAEMON: &str = "<remote ip=\"h\" name=\"m\" ssh=\"false\"/>";
    const SSH: &str = "<remote ip=\"i\" name=\"/m\" ssh=\"true\"/>";
    const LOCAL: &str = "<remote path=\"/mnt/backup\"/>";
    let both = format!("{DAEMON}{SSH}{LOCAL}");
    for ssh in [true, false] {
        let files = password_files(ssh, "/etc/pas", &both).unwrap();
        assert_eq!(files, [Some("/etc/pas".to_owned()), None, None], "<ssh start=\"{ssh}\"/>");
        let report = password_files(ssh, "", &both).unwrap_err();
        assert!(report.contains("<auth passwordfile>"), "{report}");
        // No run would use the file, so it is not checked.
        assert_eq!(password_files(ssh, "", &format!("{SSH}{LOCAL}")).unwrap(), [None, None]);
    }
    let list = format!("{SSH}<remotes file=\"/no/list\" name=\"m\" ssh=\"false\"/>");
    assert!(password_files(true, "", &list).unwrap_err().contains("<auth passwordfile>"));
    let without = |ssh| password_files(ssh, "", "<remote ip=\"h\" name=\"/m\"/>").is_ok();
    assert!(without(true) && !without(false));
}

#[test]
fn a_directory_of_this_machine_needs_no_connection() {
    let words = words("<remote path=\"/mnt/backup/\" bwlimit=\"0\"/>");
    assert!(
        words[0].ends_with("--bwlimit=0 --modify-window=-1 -- ./ /mnt/backup/"),
        "{}",
        words[0]
    );
}

#[test]
fn what_makes_no_sense_for_a_remote_is_refused() {
    for (remote, words) in [
        ("<remote path=\"/opt/tongbu/copy\"/>", "lies in its own watch path"),
        ("<remote path=\"/opt\"/>", "holds its own watch path"),
        ("<remote path=\"copy\"/>", "no absolute path"),
        ("<remote path=\"/b\" ip=\"h\"/>", "path names a directory of this machine"),
        ("<remote ip=\"h\" name=\"m\" bwlimit=\"fast\"/>", "`fast` is no rate"),
        ("<remote ip=\"a@h\" name=\"m\" user=\"b\"/>", "write the user in one place only"),
        (
            "<remote ip=\"h\" name=\"m\" params=\"-n\"/>",
            "<remote params>: the option -n cannot stand here",
        ),
        ("<remote ip=\"h\" name=\"m\" port=\"0\"/>", "a port number"),
    ] {
        refused(REMOTE, remote, &[words]);
    }
}

#[test]
fn two_watch_paths_with_one_destination_are_refused_whatever_its_options_are() {
    let second = "<localpath watch=\"/b\"><remote ip=\"127.0.0.1\" name=\"tongbu1/\" bwlimit=\"5\" timeout=\"9\"/></localpath><rsync>";
    let report = read(stock_with("<rsync>", second)).map(|loaded| loaded.config).unwrap_err();
    assert!(report.contains("go to the same place"), "{report}");
}
