//! Compares a new configuration with the one in force, and words the differences.
//! Changes nothing.

use std::path::PathBuf;

use crate::change::{RemoteId, RootId};
use crate::config::{Config, Remote};
use crate::journal::JournalLayout;
use crate::rsync::options::RsyncOptions;

/// A remote of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The number of its watch path.
    pub root: RootId,
    watch: PathBuf,
    /// Its name in the journal, which is equal as long as the destination is the same.
    pub name: Vec<u8>,
    /// How it is reached.
    pub remote: Remote,
}

impl Slot {
    /// True when both are the same destination of the same watch path, at any position in the file.
    fn is(&self, other: &Self) -> bool {
        self.watch == other.watch && self.name == other.name
    }
}

/// The differences between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New remotes, by index in the new configuration.
    pub added: Vec<usize>,
    /// Removed remotes.
    pub removed: Vec<RemoteId>,
    /// Remotes with the same destination but other options; with their index in the new configuration.
    pub replaced: Vec<(RemoteId, usize)>,
    /// Page, status file, heartbeat, alerts or event log differ.
    pub tells_otherwise: bool,
    /// The interval of retries or of scheduled full syncs differs.
    pub other_times: bool,
    /// The files that list remotes differ.
    pub other_lists: bool,
    /// Changed elements that need a restart of the mirror.
    pub restart: Vec<&'static str>,
}

/// The remotes of a configuration, in file order.
pub fn slots_of(config: &Config) -> Vec<Slot> {
    let layout = JournalLayout::new(&config.mirrors);
    let remotes = config.mirrors.iter().flat_map(|mirror| {
        mirror.remotes.iter().map(|remote| (mirror.watch.clone(), remote.clone()))
    });
    let slot = |((root, name), (watch, remote)): ((RootId, &[u8]), (PathBuf, Remote))| Slot {
        root,
        watch,
        name: name.to_vec(),
        remote,
    };
    layout.names().zip(remotes).map(slot).collect()
}

impl Changes {
    /// The differences from `old`, with its remotes by number, to `new`.
    pub fn between(old: &Config, slots: &[Option<Slot>], new: &Config, wanted: &[Slot]) -> Self {
        let watches = |config: &Config| -> Vec<PathBuf> {
            config.mirrors.iter().map(|mirror| mirror.watch.clone()).collect()
        };
        let excludes = |config: &Config| config.crontab.as_ref().map(|it| it.excludes.clone());
        let minutes = |config: &Config| {
            (config.fail_log.retry_minutes, config.crontab.as_ref().map(|it| it.minutes))
        };
        let restart = [
            ("<localpath watch>", watches(old) != watches(new)),
            ("<filter>", old.filter != new.filter),
            ("<inotify>", old.changes != new.changes),
            ("<fileSystem>", old.backend != new.backend),
            ("<debug>", old.debug != new.debug),
            ("<guard>", old.guard != new.guard),
            ("<failLog path>", old.fail_log.path != new.fail_log.path),
            ("<crontabfilter>", excludes(old) != excludes(new)),
            ("<plugin>", old.plugin != new.plugin || old.plugins != new.plugins),
        ];
        let mut changes = Self {
            tells_otherwise: old.host != new.host || old.telling != new.telling,
            other_times: minutes(old) != minutes(new),
            other_lists: old.lists != new.lists,
            restart: restart
                .iter()
                .filter(|(_, differs)| *differs)
                .map(|(name, _)| *name)
                .collect(),
            ..Self::default()
        };
        for (index, slot) in wanted.iter().enumerate() {
            let known = slots.iter().position(|it| it.as_ref().is_some_and(|it| it.is(slot)));
            let Some(at) = known else {
                changes.added.push(index);
                continue;
            };
            if slots[at].as_ref().is_some_and(|known| known.remote != slot.remote) {
                changes.replaced.push((RemoteId(at), index));
            }
        }
        for (at, slot) in slots.iter().enumerate() {
            let is_gone = |slot: &Slot| !wanted.iter().any(|wanted| wanted.is(slot));
            if slot.as_ref().is_some_and(is_gone) {
                changes.removed.push(RemoteId(at));
            }
        }
        changes
    }

    /// True when nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A sentence for each difference.
    pub fn sentences(&self, slots: &[Option<Slot>], wanted: &[Slot]) -> Vec<String> {
        if self.is_empty() {
            return vec!["nothing has changed".into()];
        }
        let name = |id: &RemoteId| {
            let slot = slots.get(id.0).and_then(Option::as_ref);
            slot.map_or_else(String::new, |slot| slot.remote.destination.to_string())
        };
        let mut sentences = Vec::new();
        for index in &self.added {
            let name = &wanted[*index].remote.destination;
            sentences.push(format!("remote {name} is added: everything is compared with it"));
        }
        for id in &self.removed {
            sentences.push(format!(
                "remote {} is removed: what is pending for it is forgotten, and its copy stays as it is",
                name(id)
            ));
        }
        for (id, index) in &self.replaced {
            let before = slots.get(id.0).and_then(Option::as_ref);
            let differs = before.map(|before| differing(&before.remote, &wanted[*index].remote));
            sentences.push(format!(
                "remote {} has other settings from its next run on ({}); what is pending for it is kept",
                name(id),
                differs.unwrap_or_default().join(", ")
            ));
        }
        if self.tells_otherwise {
            sentences.push(
                "page, status file, heartbeat, alerts and event log start again with their new settings".into(),
            );
        }
        if self.other_times {
            sentences.push("the times of <failLog> and <crontab> count from now on".into());
        }
        if self.other_lists {
            sentences.push("the remotes come from other lists from now on".into());
        }
        if !self.restart.is_empty() {
            sentences.push(format!(
                "{} cannot be changed under way: the mirror starts again in this process; what is in flight is \
                 finished, what is pending is kept, and what changes meanwhile is found",
                self.restart.join(", ")
            ));
        }
        sentences
    }
}

/// The settings in which a remote differs.
fn differing(old: &Remote, new: &Remote) -> Vec<&'static str> {
    // Names every field, so that a new one is not forgotten here.
    let RsyncOptions { params, password_file, timeout_s, bwlimit, sessions, deletes } =
        &old.options;
    let of = &new.options;
    let settings = [
        ("address, port or user", old.destination != new.destination),
        ("<commonParams>", *params != of.params),
        ("<auth passwordfile>", *password_file != of.password_file),
        ("<timeout>", *timeout_s != of.timeout_s),
        ("bwlimit", *bwlimit != of.bwlimit),
        ("<session>", *sessions != of.sessions),
        ("<delete>", *deletes != of.deletes),
    ];
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, LoadOptions};

    fn config(sersync: &str, head: &str) -> Config {
        let text = format!(
            "<head version=\"2.5\">{head}<sersync>{sersync}<rsync><commonParams params=\"-artuz\"/></rsync></sersync></head>"
        );
        config::load_bytes("c.xml", text.as_bytes(), &LoadOptions::default()).unwrap().config
    }

    fn mirror(remotes: &[&str]) -> String {
        mirror_of("/w", remotes)
    }

    fn mirror_of(watch: &str, remotes: &[&str]) -> String {
        let remotes = remotes.iter().map(|ip| format!("<remote ip=\"{ip}\" name=\"m\"/>"));
        format!("<localpath watch=\"{watch}\">{}</localpath>", remotes.collect::<String>())
    }

    fn between(old: &Config, new: &Config) -> Changes {
        let slots: Vec<_> = slots_of(old).into_iter().map(Some).collect();
        Changes::between(old, &slots, new, &slots_of(new))
    }

    #[test]
    fn remotes_that_come_and_go_need_no_new_start() {
        let old = config(&mirror(&["a", "b"]), "");
        assert!(between(&old, &old).is_empty());
        let changes = between(&old, &config(&mirror(&["c", "b"]), ""));
        assert_eq!((changes.added, changes.removed), (vec![0], vec![RemoteId(0)]));
        assert!(changes.restart.is_empty() && changes.replaced.is_empty());
        let swapped = between(&old, &config(&mirror(&["b", "a"]), ""));
        assert!(swapped.is_empty(), "{swapped:?}");
    }

    #[test]
    fn another_filter_starts_the_mirror_again_and_says_so() {
        let old = config(&mirror(&["a"]), "");
        let filter = "<filter start=\"true\"><exclude expression=\"x\"/></filter>";
        let new = config(&mirror(&["a"]), filter);
        let changes = between(&old, &new);
        assert_eq!(changes.restart, ["<filter>"]);
        let slots: Vec<_> = slots_of(&old).into_iter().map(Some).collect();
        let sentences = changes.sentences(&slots, &slots_of(&new));
        assert!(sentences[0].starts_with("<filter> cannot be changed under way"), "{sentences:?}");
    }

    #[test]
    fn a_remote_with_other_settings_is_told_with_what_differs() {
        let old = config(&mirror(&["a"]), "");
        let new = config(&mirror(&["a"]), "<inotify><delete start=\"false\"/></inotify>");
        let slots: Vec<_> = slots_of(&old).into_iter().map(Some).collect();
        let wanted = slots_of(&new);
        let changes = Changes::between(&old, &slots, &new, &wanted);
        let said = "remote a::m has other settings from its next run on (<delete>); what is pending for it is kept";
        assert_eq!(changes.sentences(&slots, &wanted)[0], said);
    }

    #[test]
    fn a_number_that_is_free_is_nobodys() {
        let old = config(&mirror(&["a"]), "");
        let slots = [None, Some(slots_of(&old).remove(0))];
        assert!(Changes::between(&old, &slots, &old, &slots_of(&old)).is_empty());
    }

    #[test]
    fn watch_paths_in_another_order_neither_add_nor_remove_a_remote() {
        let (one, two) = (mirror_of("/v", &["a"]), mirror_of("/w", &["b", "c"]));
        let old = config(&format!("{one}{two}"), "");
        let changes = between(&old, &config(&format!("{two}{one}"), ""));
        assert!(changes.added.is_empty() && changes.removed.is_empty(), "{changes:?}");
        assert!(changes.replaced.is_empty(), "{changes:?}");
        assert_eq!(changes.restart, ["<localpath watch>"], "they have other numbers now");
    }
}
