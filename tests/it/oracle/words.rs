//! The table of what operators write into `<commonParams>`; each set of options has a name.
//! Does not know what the options mean.

use std::fmt;
use std::process::Command;

use crate::support::storm::Chance;

/// Words of one trial.
#[derive(Debug, Clone)]
pub struct Set {
    pub name: String,
    pub words: Vec<String>,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.words.join(" "))
    }
}

/// Name and words; `RULES` stands for a file that holds exclude rules.
pub const SETS: &[(&str, &str)] = &[
    ("plain", "-a"),
    ("stock", "-artuz"),
    // Filters.
    ("exclude-dir", "-a --exclude=cache/"),
    ("exclude-name", "-a --exclude=cache"),
    ("exclude-anchored", "-a --exclude=/cache"),
    ("exclude-path", "-a --exclude=d/cache"),
    ("exclude-stars", "-a --exclude=cache/**"),
    ("exclude-star", "-a --exclude=cache/*"),
    ("exclude-three", "-a --exclude=/d/***"),
    ("exclude-objects", "-a --exclude=*.o"),
    ("exclude-from", "-a --exclude-from=RULES"),
    ("exclude-two", "-a --exclude=cache/ --exclude=*.o"),
    ("filter-exclude", "-a --filter=-_cache/"),
    ("filter-hide", "-a --filter=hide_*.o"),
    ("filter-protect", "-a --filter=protect_*.o"),
    ("filter-merge", "-a --filter=merge_RULES"),
    ("filter-not", "-a --filter=-!_*/"),
    ("include-some", "-a --include=*.c --exclude=*.o --exclude=cache"),
    ("include-only", "-a --include=*/ --include=*.c --exclude=*"),
    ("include-tree", "-a --include=/d/*** --exclude=/*"),
    ("include-in-excluded", "-a --include=cache/x.c --exclude=cache/*"),
    ("include-from", "-a --include-from=RULES --exclude=*.o"),
    ("cvs", "-aC"),
    ("per-directory", "-aF"),
    ("per-directory-twice", "-aFF"),
    ("dir-merge", "-a --filter=:_.rules"),
    ("dir-merge-exclude", "-a --filter=dir-merge,-_.rules"),
    ("delete-excluded", "-a --exclude=cache/ --delete-excluded"),
    ("delete-excluded-objects", "-a --exclude=*.o --delete-excluded"),
    ("prune", "-am"),
    ("prune-some", "-am --include=*/ --include=*.c --exclude=*"),
    ("max-size", "-a --max-size=2k"),
    ("min-size", "-a --min-size=100"),
    // Links.
    ("no-links", "-rt"),
    ("copy-links", "-aL"),
    ("copy-dirlinks", "-ak"),
    ("copy-unsafe", "-a --copy-unsafe-links"),
    ("safe-links", "-a --safe-links"),
    ("keep-dirlinks", "-aK"),
    ("munge-links", "-a --munge-links"),
    ("hard-links", "-aH"),
    ("hard-links-objects", "-aH --exclude=*.o"),
    // What is compared and how it is written.
    ("checksum", "-ac"),
    ("ignore-times", "-aI"),
    ("size-only", "-a --size-only"),
    ("window", "-a --modify-window=1"),
    ("update", "-au"),
    ("inplace", "-a --inplace"),
    ("append", "-a --append"),
    ("append-verify", "-a --append-verify"),
    ("whole", "-aW"),
    ("sparse", "-aS"),
    ("fuzzy", "-ay"),
    ("partial-dir", "-a --partial-dir=.parts"),
    ("delay-updates", "-a --delay-updates"),
    ("existing", "-a --existing"),
    ("ignore-existing", "-a --ignore-existing"),
    ("backup", "-a --backup"),
    ("backup-suffix", "-a --backup --suffix=.old"),
    ("backup-dir", "-a --backup --backup-dir=../bak"),
    ("backup-dir-inside", "-a --backup --backup-dir=.bak --exclude=/.bak"),
    ("compare-dest", "-a --compare-dest=../base"),
    ("copy-dest", "-a --copy-dest=../base"),
    ("link-dest", "-a --link-dest=../base"),
    // What is deleted.
    ("max-delete", "-a --max-delete=2"),
    ("delete-before", "-a --delete-before"),
    ("delete-delay", "-a --delete-delay"),
    ("delete-after", "-a --delete-after"),
    ("force", "-a --force"),
    // Attributes.
    ("no-perms", "-rlt"),
    ("executability", "-rltE"),
    ("chmod", "-a --chmod=D755,F640"),
    ("omit-dir-times", "-aO"),
    ("omit-link-times", "-aJ"),
    ("chown", "-a --chown=1:1"),
    ("acls", "-aA"),
    ("xattrs", "-aX"),
    ("fake-super", "-a -M--fake-super"),
    ("numeric", "-a --numeric-ids"),
    ("no-devices", "-a --no-D"),
    ("specials", "-a --specials"),
    ("one-file-system", "-ax"),
    // The transfer and the output.
    ("relative", "-aR"),
    ("no-implied-dirs", "-a --no-implied-dirs"),
    ("dirs", "-ltd"),
    ("zip", "-azz"),
    ("protect-args", "-as"),
    ("verbose", "-avvP --stats"),
    ("quiet", "-aq"),
    ("itemize", "-ai"),
    ("stderr-all", "-a --stderr=all"),
    ("out-format", "-a --out-format=%n --log-file=/dev/null"),
    ("protocol", "-a --protocol=30"),
    ("no-inc-recursive", "-a --no-inc-recursive"),
    ("timeout", "-a --timeout=20"),
    ("bwlimit", "-a --bwlimit=50000"),
    ("block-size", "-a -B1024"),
    ("preallocate", "-a --preallocate"),
    ("open-noatime", "-a --open-noatime"),
    ("fsync", "-a --fsync"),
];

/// One set of the table; `_` inside a word is a blank.
pub fn set((name, words): &(&str, &str)) -> Set {
    let word = |word: &str| {
        if word.starts_with("--filter=") { word.replacen('_', " ", 1) } else { word.to_owned() }
    };
    Set { name: (*name).to_owned(), words: words.split(' ').map(word).collect() }
}

/// The set of this name.
pub fn named(name: &str) -> Set {
    set(SETS.iter().find(|(known, _)| *known == name).unwrap())
}

/// Random pairs of sets, each joined to one set; without those that rsync refuses.
pub fn pairs(table: &[Set], count: usize, seed: u64) -> Vec<Set> {
    let mut chance = Chance::new(seed);
    let mut pick = || &table[chance.below(table.len() as u64) as usize];
    let pair = |_| {
        let (one, other) = (pick(), pick());
        let words = one.words.iter().chain(&other.words).cloned().collect();
        Set { name: format!("{}+{}", one.name, other.name), words }
    };
    (0..count).map(pair).filter(is_accepted).collect()
}

/// False when rsync by hand refuses these words together.
fn is_accepted(set: &Set) -> bool {
    const SYNTAX_ERROR: i32 = 1;
    let mut command = Command::new("rsync");
    command.args(&set.words).args(["-n", "/no/such/source/", "/no/such/copy/"]);
    command.output().unwrap().status.code() != Some(SYNTAX_ERROR)
}
