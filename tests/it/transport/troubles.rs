//! Causes everything that can be wrong with a remote: each fault has a clear outcome, and nothing hangs.

use super::{BATCH, Options, Rig};
use sersync::failure::{Failure, FailureKind};
use sersync::rsync::Abilities;
use sersync::rsync::exit::{Ability, Outcome};
use sersync::rsync::probe::{Probed, run_probe};
use sersync::rsync::run::Session;

const REFUSED: Outcome =
    Outcome::Refused { ability: Ability::DeleteMissing, option: "--delete-missing-args" };

fn denied(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) if failure.kind == FailureKind::Denied => failure.clause(),
        other => panic!("expected a sentence for the operator, found {other:?}"),
    }
}

#[test]
fn able_remote_is_recognised() {
    let rig = Rig::new(&["-a"]);
    rig.remote_file("bystander");
    let probed = run_probe(&rig.endpoint(), None, 7, drop).unwrap();
    assert!(matches!(probed, Probed::Able(Abilities::ALL)), "{probed:?}");
    assert_eq!(rig.remote_names(""), ["bystander"]);
}

#[test]
fn remote_that_refuses_to_delete_missing_names_is_recognised() {
    let options =
        Options { module: "refuse options = delete-missing-args".into(), ..Options::default() };
    let rig = Rig::with(&["-a"], &options);
    let expected = Abilities { delete_missing: false, ..Abilities::ALL };
    match run_probe(&rig.endpoint(), None, 7, drop).unwrap() {
        Probed::Able(found) => assert_eq!(found, expected),
        Probed::Failed(outcome) => panic!("{outcome:?}"),
    }
    assert_eq!(rig.batch(&["gone"]), REFUSED);
    rig.remote_file("gone");
    assert_eq!(rig.fallback(&["gone"]), Outcome::Delivered);
    assert!(!rig.holds("gone"));
}

#[test]
#[ignore = "set SERSYNC_OLD_RSYNC to an rsync 3.2.7-1+deb12u6 or another one that cannot delete missing names"]
fn old_rsync_is_recognised_and_still_served() {
    let program =
        std::env::var_os("SERSYNC_OLD_RSYNC").expect("SERSYNC_OLD_RSYNC names an old rsync");
    let options = Options { program: program.into(), ..Options::default() };
    let rig = Rig::with(&["-artuz"], &options);
    match run_probe(&rig.endpoint(), None, 7, drop).unwrap() {
        Probed::Able(found) => assert!(!found.delete_missing, "{found:?}"),
        Probed::Failed(outcome) => panic!("{outcome:?}"),
    }
    rig.remote_file("a/gone/below");
    rig.remote_file("a/bystander");
    rig.source.file("a/new", "1");
    assert_eq!(rig.batch(&["a/gone"]), REFUSED);
    assert_eq!(rig.fallback(&["a/gone", "a/new"]), Outcome::Delivered);
    assert_eq!(rig.remote_names("a"), ["bystander", "new"]);
    assert_eq!(rig.trees(&["a"], &[]), Outcome::Delivered);
    assert_eq!(rig.remote_names("a"), ["new"]);
}

#[test]
fn remote_that_is_not_there_is_down() {
    let mut rig = Rig::new(&["-a"]);
    rig.daemon.stop();
    let probed = run_probe(&rig.endpoint(), None, 7, drop).unwrap();
    match probed {
        Probed::Failed(Outcome::Failed(Failure { kind: FailureKind::Away, reason, .. })) => {
            assert!(reason.contains("refused"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_module_is_named() {
    let mut rig = Rig::new(&["-a"]);
    rig.send_to("nosuch");
    let message = denied(rig.batch(&["x"]));
    assert!(message.starts_with("has no module nosuch: "), "{message}");
}

#[test]
fn passwords_right_wrong_missing_and_open_to_all() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new(&["-a"]);
    let file = rig.daemon.password_file("secret");
    let rig = rig.signed_in("bob", file.clone());
    rig.source.file("f", "1");
    assert_eq!(rig.batch(&["f"]), Outcome::Delivered);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(denied(rig.batch(&["f"])).contains("chmod 600"));
    std::fs::remove_file(&file).unwrap();
    assert!(denied(rig.batch(&["f"])).contains("cannot be read"));

    let file = rig.daemon.password_file("wrong");
    let rig = rig.signed_in("bob", file);
    assert!(denied(rig.batch(&["f"])).contains("refuses user bob with the password in "));
}

#[test]
fn missing_password_is_refused_and_never_asked_for() {
    let mut rig = Rig::new(&["-a"]);
    rig.send_to("auth");
    assert!(
        denied(rig.batch(&["f"])).contains("refuses to serve us without a user and a password")
    );
}

#[test]
fn read_only_module_is_named() {
    let options = Options { module: "read only = yes".into(), ..Options::default() };
    let rig = Rig::with(&["-a"], &options);
    assert!(denied(rig.batch(&["f"])).contains("read only"));
}

#[test]
fn busy_daemon_is_told_from_a_dead_one() {
    let options =
        Options { module: "max connections = 1\nlock file = lock".into(), ..Options::default() };
    let rig = Rig::with(&["-a"], &options);
    let first = rig.session(&BATCH);
    crate::support::wait_until("the first session holds the only connection", || {
        std::fs::read_to_string(rig.daemon.log_file())
            .is_ok_and(|log| log.contains("rsync to data"))
    });
    let outcome = rig.batch(&["f"]);
    let is_busy = matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Busy);
    assert!(is_busy, "{outcome:?}");
    Session::close_all(vec![first]);
}

#[test]
fn operator_option_that_rsync_does_not_know_is_named() {
    let rig = Rig::new(&["-a", "--no-such-option"]);
    match rig.batch(&["f"]) {
        Outcome::Failed(Failure { kind: FailureKind::Options, reason, .. }) => {
            assert!(reason.contains("--no-such-option"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}
