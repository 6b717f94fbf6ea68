//! Small tools that several parts need and none owns. This is the lowest layer; it knows nothing of mirroring.
//! Nothing here decides anything.

pub mod absolute;
pub mod counted;
pub mod directory;
pub mod every;
pub mod figures;
pub mod generations;
pub mod identity;
pub mod limits;
pub mod lock;
pub mod numbered;
pub mod octal;
pub mod printable;
pub mod program;
pub mod thread;
pub mod time;
pub mod tls;
pub mod words;
