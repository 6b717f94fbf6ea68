//! The targets of `fuzz_targets/`, in one place.
pub mod targets;
