//! The code of all targets in `fuzz_targets/`.
pub mod targets;
