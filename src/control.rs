//! The control socket, by which `sersync2 status`, `flush` and other commands talk to a running mirror (docs/CONTROL.md).
//! Carries commands and answers; the main loop executes the commands (`daemon/control.rs`).

pub mod client;
pub mod event;
pub mod instances;
pub mod protocol;
pub mod server;
pub mod socket;

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";
