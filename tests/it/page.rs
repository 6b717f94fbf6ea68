//! The status page and what else tells how the mirror is: the server by itself with made-up snapshots, and the real program.

mod browser;
mod fake;
mod http;
mod metrics;
mod mirror;
mod recipes;
mod tls;
