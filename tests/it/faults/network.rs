//! A transfer that is cut off by the death of the receiver: nothing of it stays.
//! Whole outages, and what they mean for other remotes, are tried in `outages.rs`.

use std::time::Duration;

use crate::support::forwarder::Forwarder;
use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::same::wait_until_same;
use crate::support::{free_port, wait_for_content, wait_until};

#[test]
fn a_transfer_that_is_cut_leaves_no_temporary_file_on_the_remote() {
    let mut daemon = Rsyncd::start();
    let port = free_port();
    let forwarder = Forwarder::start(5, port, daemon.port);
    let remotes = vec![(forwarder.ip(), "data".to_string())];
    let mirror = Mirror::start(&Setup { remotes, port, ..Setup::to(&daemon) });
    mirror.write("d/first", "x");
    wait_for_content(&daemon.at("d/first"), "x");
    forwarder.set_rate(Some(2 << 20));
    let noise: Vec<u8> = (0..8u64 << 20).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
    mirror.write("d/big", &noise);
    let dir = daemon.at("d");
    let temporary = || {
        let names = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".big.")).count()
    };
    wait_until("the transfer is under way", || temporary() > 0);
    daemon.stop();
    assert_eq!(temporary(), 1, "a killed receiver leaves its temporary file");
    mirror.wait_for_output("is down");
    daemon.start_again();
    wait_for_content(&daemon.at("d/big"), &noise);
    let data = daemon.at("d");
    wait_until("nothing is left of the first try", || {
        std::fs::read_dir(&data).unwrap().count() == 2
    });
    wait_until_same(&mirror.source, &daemon.data, Duration::from_secs(5), "after the cut");
}
