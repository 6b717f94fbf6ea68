//! Small tools that several parts need and none owns: the lowest layer, which knows nothing of mirroring.
//! Nothing here decides anything.

pub mod counted;
pub mod lock;
pub mod printable;
pub mod words;
