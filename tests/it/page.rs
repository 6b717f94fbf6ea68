//! The status page and the other reports of the mirror's state: the server alone with made-up snapshots, and the real program.

mod browser;
mod fake;
mod http;
mod metrics;
mod mirror;
mod recipes;
mod tls;
