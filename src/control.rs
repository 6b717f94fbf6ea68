//! The control socket: how `sersync2 status`, `flush` and the other commands speak with a running mirror (docs/CONTROL.md).
//! Carries commands and answers; what a command means is decided by the main loop (`daemon/control.rs`).

pub mod client;
pub mod event;
pub mod instances;
pub mod protocol;
pub mod server;
pub mod socket;

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";
