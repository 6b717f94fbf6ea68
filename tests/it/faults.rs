//! Real faults, caused on purpose: every promise of docs/RELIABILITY.md has its test here.

mod downtime;
mod fail_log;
mod guard;
mod journal;
mod limits;
mod names;
mod network;
mod outages;
mod record;
mod remotes;
mod source;
mod storm;
mod swaps;
mod table;
