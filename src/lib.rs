//! sersync: a real-time file mirror; `docs/ARCHITECTURE.md` has the picture. The binary `sersync2` is one call of [`commands::run`].
//! The modules in reading order, in groups: the words they share, the decisions, what carries them out, what puts it together.

pub mod ground;

pub mod change;
pub mod destination;
pub mod directory;
pub mod failure;
pub mod path;
pub mod secret;

pub mod xml;

pub mod args;
pub mod config;
pub mod filter;

pub mod engine;

pub mod rsync;
pub mod source;
pub mod worker;

pub mod watch;

pub mod tools;

pub mod fail_log;
pub mod journal;
pub mod record;
pub mod seal;
pub mod state;

pub mod plugin;

pub mod control;
pub mod snapshot;

pub mod alert;
pub mod complaint;
pub mod event_log;
pub mod heartbeat;
pub mod metrics;
pub mod page;
pub mod status_file;
pub mod web;

pub mod banner;
pub mod logging;
pub mod process;
pub mod sys;

pub mod daemon;

pub mod commands;
