//! sersync: a real-time file mirror; `docs/ARCHITECTURE.md` has the picture, the layers and the glossary.
//! The binary `sersync2` is one call of [`commands::run`].
//!
//! Where to begin, in the order of a change's life:
//!
//! 1. [`config`] says what is watched and where it goes; [`filter`] says what is left out.
//! 2. [`watch`] reports a [`change`]: a hint that a path may differ from its copy.
//! 3. [`engine::Engine`] decides: events in, actions out; no clock, no I/O, no threads. It is the core.
//! 4. [`worker`] looks at the disk, plans, and runs [`rsync`], which knows the words of a run and what its end means.
//! 5. [`journal`] keeps what is pending over a crash, [`record`] what the tree was when nobody looked.
//! 6. [`snapshot`] is what everything that tells reads: [`page`], [`metrics`], [`alert`], [`event_log`], [`control`].
//! 7. [`daemon`] joins the parts.
//!
//! The modules stand in reading order, in groups: the words they share, the decisions, what carries them out, what tells, what
//! joins.

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

pub mod remote_list;
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
