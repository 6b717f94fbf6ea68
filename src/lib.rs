//! sersync: a real-time file mirror; `docs/ARCHITECTURE.md` has the picture, the layers and the glossary.
//! The binary `sersync2` is one call of [`commands::run`].
//!
//! Where to begin, in the order of a change's life:
//!
//! 1. [`config`] says what is watched and where it is sent; [`filter`] says what is excluded.
//! 2. [`watch`] reports a [`change`]: a hint that a path may differ from its copy.
//! 3. [`engine::Engine`] decides: events in, actions out; no clock, no I/O, no threads. It is the core.
//! 4. [`worker`] looks at the disk, plans, and runs [`rsync`], which knows the options of a run and the meaning of its end.
//! 5. [`journal`] keeps what is pending through a crash; [`record`] keeps the known state of the tree, so that a start finds what
//!    changed meanwhile.
//! 6. [`snapshot`] is the state at one moment, which [`page`], [`metrics`], [`alert`] and `sersync2 status` (by [`control`])
//!    read.
//! 7. [`daemon`] joins the parts.
//!
//! The modules below are in reading order, in groups: shared words, decisions, actions, reports, and what joins them.

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
