//! Files that sersync2 users have published load or are refused with the reason, as the README beside them tells.

use std::path::PathBuf;

use sersync::config::{LoadOptions, Loaded, PluginName, load};
use sersync::destination::Destination;

fn file(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/legacy-configs");
    PathBuf::from(folder).join(format!("{name}.xml"))
}

fn loaded(name: &str) -> Loaded {
    load(&file(name), &LoadOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(name: &str) -> String {
    match load(&file(name), &LoadOptions::default()) {
        Ok(_) => panic!("{name} was loaded"),
        Err(error) => error.to_string(),
    }
}

/// Watch path and remotes in one line.
fn summary(loaded: &Loaded) -> String {
    let mirrors = loaded.config.mirrors.iter().map(|mirror| {
        let remotes = mirror.remotes.iter().map(|remote| &remote.destination);
        let shown = |place: &Destination| format!("{} {}", place.host().unwrap(), place.name());
        let remotes: Vec<_> = remotes.map(shown).collect();
        format!("{}: {}", mirror.watch.display(), remotes.join(", "))
    });
    mirrors.collect::<Vec<_>>().join("; ")
}

#[test]
fn every_file_that_must_load_loads_with_its_paths_and_remotes() {
    for (name, expected) in [
        ("01", "/opt/tongbu: 127.0.0.1 tongbu1"),
        ("03", "/data: 172.16.1.41 data"),
        ("04", "/mnt/rfs: 192.168.109.183 rfs"),
        ("06", "/opt/tongbu: 127.0.0.1 tongbu1"),
        ("08", "/home: 192.0.2.8 rsync"),
        ("09", "/opt/tongbu: 127.0.0.1 tongbu1"),
        ("10", "/data/www: 172.16.1.25 /data/www, 172.16.1.26 /data/www"),
        ("11", "/data/test: 192.168.0.1 yw_test"),
        ("12", "/data: 172.16.1.41 web_data"),
        ("13", "/home/root/escape: 192.168.31.100 blog"),
        ("14", "/data/wordpress: 172.18.0.132 /data/backup"),
        ("16", "/data: 192.168.1.20 data"),
        ("18", "/opt/tongbu: 192.168.8.42 tongbu, 192.168.8.39 tongbu"),
        ("19", "/data/source: 10.0.5.41 /data/backup"),
        ("20", "/path/to/source: 192.168.1.200 /path/to/destination"),
        ("21", "/etc/dhcp: 10.1.2.3 dhcp"),
        ("22", "/data/Client/data: 172.17.0.3 stock, 172.17.0.5 stock"),
        ("annotated-sample", "/www: 172.16.10.5 /tmp/www"),
    ] {
        assert_eq!(summary(&loaded(name)), expected, "{name}");
    }
}

#[test]
fn plain_files_load_without_a_warning() {
    for name in ["01", "03", "04", "06", "08", "10", "13", "21"] {
        assert_eq!(loaded(name).warning_lines(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn leniency_is_told_with_line_and_column() {
    for (name, line, words) in [
        ("09", "4:5", "11 lines of text"),
        ("09", "4:6", "read as GBK"),
        ("11", "34:53", "blanks around"),
        ("12", "33:56", "<timeout start=\"false\" time=\"100\"/>"),
        ("14", "37:103", "between elements is ignored"),
        ("16", "5:4", "16 lines of text"),
        ("18", "9:17", "refreshCDN has no definition"),
        ("19", "4:6", "<localpath> stands in <head>"),
        ("20", "2:2", "the root element is `sersync`"),
        ("20", "14:6", "<inotify> stands in <sersync>"),
        ("22", "34:21", "no quotation marks"),
        ("annotated-sample", "25:44", "`/tmp/www` is a path"),
    ] {
        let lines = loaded(name).warning_lines();
        let found =
            lines.iter().any(|l| l.contains(&format!(".xml:{line}: ")) && l.contains(words));
        assert!(found, "{name} {line} {words}: {lines:#?}");
    }
}

#[test]
fn every_file_that_must_be_refused_names_what_and_where() {
    for (name, place, words) in [
        ("02", "02.xml:25:18", "`{TARGET_HOST}`, a placeholder"),
        ("05", "05.xml:45:16", "`rsync远程服务器IP` is no host name"),
        ("07", "07.xml:24:19", "`{{ dir1 }}`, a placeholder"),
        ("07", "07.xml:26:1", "`{% for host in groups.all %}` was never filled in"),
        ("07", "07.xml:40:31", "`{{ sync_name }}`, a placeholder"),
        ("15", "15.xml:28:21", "`x.x.x.64` is no host name"),
        ("15", "15.xml:35:21", "`x.x.x.71` is no host name"),
        ("17", "17.xml:24:5", "no remote"),
    ] {
        let report = refused(name);
        assert!(report.contains(place) && report.contains(words), "{name}: {report}");
    }
}

#[test]
fn the_file_with_placeholder_addresses_loads_with_real_ones() {
    let bytes = std::fs::read(file("15")).unwrap();
    let text = String::from_utf8(bytes).unwrap().replace("ip=\"x.x.x.", "ip=\"10.0.0.");
    let loaded = sersync::config::load_bytes("15.xml", text.as_bytes(), &LoadOptions::default());
    let loaded = loaded.unwrap();
    assert_eq!(loaded.config.mirrors[0].remotes.len(), 8);
    let ports =
        loaded.config.mirrors[0].remotes.iter().map(|to| to.destination.host().unwrap().port);
    assert!(ports.into_iter().all(|port| port == Some(9381)));
}

#[test]
fn a_file_without_remotes_loads_for_a_plugin_alone() {
    let options = LoadOptions { plugin_alone: Some(PluginName::Command), ..LoadOptions::default() };
    let loaded = load(&file("17"), &options).unwrap();
    assert_eq!(summary(&loaded), "/home/work/app/static/upload: ");
    let command = loaded.config.plugins.command.unwrap();
    assert_eq!(command.prefix, ["/root/sersync/bin/curl.sh"]);
}

#[test]
fn values_that_differ_from_the_stock_file_are_obeyed() {
    let ten = &loaded("10").config.mirrors[0].remotes[0];
    assert!(ten.destination.is_ssh());
    assert_eq!(ten.destination.host().unwrap().port, Some(22));
    assert_eq!(ten.destination.user(), Some("rsync_backup"));
    assert_eq!(ten.options.password_file, None);
    let eleven = loaded("11").config;
    assert!(!eleven.changes.delete && eleven.changes.create_file);
    assert_eq!(eleven.filter.excludes, ["log.txt", r"(.*)\.svn", r"(.*)\.gz"]);
    assert_eq!(eleven.fail_log.retry_minutes, 10);
    let password_file = eleven.mirrors[0].remotes[0].options.password_file.clone();
    assert_eq!(password_file, Some("/etc/rsync_client.pass".into()));
    let crontab = eleven.crontab.unwrap();
    assert_eq!((crontab.minutes, crontab.excludes.len()), (5, 4));
    let twenty_one = &loaded("21").config.mirrors[0].remotes[0].options.params;
    assert_eq!(twenty_one.len(), 8);
    assert_eq!(twenty_one[3], "--exclude=*.conf.*");
    assert_eq!(loaded("18").config.crontab.unwrap().minutes, 30);
    let twenty_two = loaded("22").config;
    assert!(!twenty_two.changes.create_folder && twenty_two.changes.modify);
    assert_eq!(twenty_two.mirrors[0].remotes[0].options.timeout_s, None);
}
