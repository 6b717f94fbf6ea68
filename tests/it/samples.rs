//! Every sample that an operator may copy is valid. Other tests cover the meaning of the elements.

use std::fs;
use std::path::Path;

use sersync::config::{LoadOptions, load};

use crate::support::mirror::{Mirror, Setup};
use crate::support::rsyncd::Rsyncd;
use crate::support::{TestDir, wait_for_content};

#[test]
fn every_sample_configuration_passes_the_check_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut samples: Vec<_> = fs::read_dir(root.join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .collect();
    samples.push(root.join("confxml.example.xml"));
    assert!(samples.len() > 2);
    for sample in samples {
        // Not `--check`, which also wants the watch path to exist on this machine.
        let loaded = load(&sample, &LoadOptions::default())
            .unwrap_or_else(|error| panic!("{}: {error}", sample.display()));
        assert_eq!(loaded.warning_lines(), Vec::<String>::new(), "{}", sample.display());
    }
}

/// The first `<head>...</head>` of README.md, which a newcomer copies.
fn first_configuration() -> &'static str {
    let readme = include_str!("../../README.md");
    let block = readme.split("```xml\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("README.md shows no configuration")
}

/// Both files as in the repository, except for the paths and addresses of this machine.
#[test]
fn the_first_configuration_of_the_readme_fits_the_sample_of_the_receiver() {
    let dir = TestDir::new();
    let (source, copy) = (dir.dir("source"), dir.dir("copy"));
    let own = |text: &str, changes: &[(&str, &str)]| {
        changes.iter().fold(text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in\n{text}");
            text.replace(from, to)
        })
    };
    let is_root = rustix::process::geteuid().is_root();
    let chroot = if is_root { "use chroot = yes" } else { "use chroot = no\nmunge symlinks = no" };
    let user = if is_root { "uid = root\ngid = root" } else { "" };
    let receiver = own(
        include_str!("../../config/rsyncd.conf"),
        &[
            ("/srv/mirror/www", copy.to_str().unwrap()),
            ("192.0.2.10", "127.0.0.1"),
            ("use chroot = yes", chroot),
            ("uid = root\ngid = root", user),
        ],
    );
    let daemon = Rsyncd::start_from(&receiver, &copy);
    let port = format!("<rsync><userDefinedPort start=\"true\" port=\"{}\"/>", daemon.port);
    let sender = own(
        first_configuration(),
        &[("/data/www", source.to_str().unwrap()), ("192.0.2.20", "127.0.0.1"), ("<rsync>", &port)],
    );
    let mut mirror = Mirror::prepare(&Setup::to(&daemon));
    fs::write(&mirror.config, sender).unwrap();
    fs::write(source.join("f"), "1").unwrap();
    mirror.set_args(&["-r"]);
    mirror.launch();
    mirror.wait_ready();
    wait_for_content(&copy.join("f"), "1");
    assert!(mirror.stop().success());
}
