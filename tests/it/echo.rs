//! Two instances that mirror each other: what one brings is no change for the other, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::{Options, Rsyncd};
use crate::support::{tree, wait_for_content, wait_until};

/// One machine of the pair: a directory that a daemon receives into and that an instance watches.
struct Side {
    daemon: Rsyncd,
    mirror: Option<Mirror>,
}

impl Side {
    fn new() -> Self {
        // Without this, the daemon says only when a client comes.
        let module = "transfer logging = yes\nlog format = moved %o %n".to_owned();
        Self { daemon: Rsyncd::start_with(&Options { module, ..Options::default() }), mirror: None }
    }

    /// Watches this side's directory and sends to `other`.
    fn mirror_to(&mut self, other: &Rsyncd, attrib: bool) {
        let mut mirror = Mirror::prepare(&Setup::to(other));
        let xml = fs::read_to_string(&mirror.config).unwrap();
        let own = self.daemon.data.display().to_string();
        let xml = xml.replace(&mirror.source.display().to_string(), &own);
        let switch = |on: bool| format!("<attrib start=\"{on}\"/>");
        fs::write(&mirror.config, xml.replace(&switch(false), &switch(attrib))).unwrap();
        mirror.launch();
        mirror.wait_ready();
        self.mirror = Some(mirror);
    }

    /// Writes a file in one go: who writes in place while the other side's copy is under way shows a half-written file.
    fn write(&self, name: &str, content: &str) {
        let path = self.daemon.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, content).unwrap();
        fs::rename(unfinished, path).unwrap();
    }

    /// How many names the daemon has received or deleted so far.
    fn transfers(&self) -> usize {
        let log = fs::read_to_string(self.daemon.log_file()).unwrap_or_default();
        log.matches("moved ").count()
    }

    /// How many clients the daemon has served to their end, warm sessions included.
    fn runs(&self) -> usize {
        let log = fs::read_to_string(self.daemon.log_file()).unwrap_or_default();
        log.matches("receiving file list").count() + log.matches("sent ").count()
    }
}

fn pair(attrib: bool) -> (Side, Side) {
    let (mut a, mut b) = (Side::new(), Side::new());
    a.mirror_to(&b.daemon, attrib);
    b.mirror_to(&a.daemon, attrib);
    (a, b)
}

/// Waits until neither daemon has had anything to do for two seconds.
#[track_caller]
fn assert_comes_to_rest(a: &Side, b: &Side) {
    let counts = || (a.transfers(), b.transfers(), a.runs(), b.runs());
    let mut last = counts();
    let mut since = std::time::SystemTime::now();
    wait_until("both sides rest", || {
        let now = counts();
        if now != last {
            last = now;
            since = std::time::SystemTime::now();
        }
        since.elapsed().is_ok_and(|rest| rest.as_secs() >= 2)
    });
    assert_eq!(tree(&a.daemon.data), tree(&b.daemon.data));
}

/// Writes on both sides in turn. Files of their own may follow each other at once. Two versions of one file need some seconds between
/// them, for rsync's `--update` counts in whole seconds, and an echo of the old one may still be under way.
fn write_in_turn(a: &Side, b: &Side) {
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (a, b) } else { (b, a) };
        let name = format!("d{}/own{round}", round % 3);
        from.write(&name, &format!("round {round}"));
        wait_for_content(&to.daemon.at(&name), format!("round {round}"));
    }
    for (from, to) in [(a, b), (b, a), (a, b)] {
        let content = format!("written after {} transfers", from.transfers() + to.transfers());
        from.write("shared", &content);
        wait_for_content(&to.daemon.at("shared"), &content);
        assert_comes_to_rest(a, b);
        assert_eq!(fs::read(from.daemon.at("shared")).unwrap(), content.as_bytes());
    }
    for side in [a, b] {
        for round in 0..20 {
            let name = format!("d{}/own{round}", round % 3);
            let content = fs::read(side.daemon.at(name)).unwrap();
            assert_eq!(content, format!("round {round}").as_bytes());
        }
    }
}

#[test]
fn two_mirrors_of_each_other_come_to_rest_and_lose_nothing() {
    for attrib in [false, true] {
        let (a, b) = pair(attrib);
        write_in_turn(&a, &b);
        fs::remove_dir_all(a.daemon.at("d0")).unwrap();
        wait_until("the deletion arrives", || !b.daemon.at("d0/own0").exists());
        fs::rename(b.daemon.at("d1"), b.daemon.at("renamed")).unwrap();
        wait_until("the move arrives", || a.daemon.at("renamed/own1").exists());
        if attrib {
            fs::set_permissions(a.daemon.at("shared"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_comes_to_rest(&a, &b);
    }
}

#[test]
fn two_mirrors_rest_after_a_storm_of_short_lives_on_one_side() {
    for attrib in [false, true] {
        let (a, b) = pair(attrib);
        for i in 0..300 {
            let name = format!("d{}/e/f{i}", i % 7);
            a.write(&name, "short");
            if i % 2 == 0 {
                fs::remove_file(a.daemon.at(&name)).unwrap();
            }
        }
        fs::remove_dir_all(a.daemon.at("d3")).unwrap();
        assert_comes_to_rest(&a, &b);
        // What was deleted while its echo was under way may be back; what was not deleted must be there.
        for i in (0..300).filter(|i| i % 2 == 1 && i % 7 != 3) {
            assert!(a.daemon.at(format!("d{}/e/f{i}", i % 7)).exists(), "f{i} is lost");
        }
    }
}
