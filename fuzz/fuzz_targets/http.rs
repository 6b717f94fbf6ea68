//! See `http` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sersync_fuzz::targets::http(bytes));
