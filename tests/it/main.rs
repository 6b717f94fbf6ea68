//! The integration tests: the real binary, real files, a real rsync daemon, a real sshd.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and look at the clock")]

mod background;
mod bench;
mod config_damage;
mod config_files;
mod config_lenient;
mod config_lenient_field;
mod config_messages;
mod config_refusals;
mod confine;
mod control;
mod doc_examples;
mod doc_expressions;
mod echo;
mod example_file;
mod faults;
mod filter_rsync;
mod filters;
mod fuzz_corpus;
mod habits;
mod hard_links;
mod ignored_case;
mod in_the_way;
mod legacy_files;
mod local_remote;
mod mirror;
mod mirror_plugins;
mod moves;
mod old_receiver;
mod oracle;
mod page;
mod plugins;
mod receivers;
mod receivers_doc;
mod remote_options;
mod rsync_options;
mod samples;
mod steps;
mod support;
mod tidy;
mod tools;
mod transport;
mod watch;
