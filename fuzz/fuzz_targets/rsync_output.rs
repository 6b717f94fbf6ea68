//! See `rsync_output` in `src/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sersync_fuzz::targets::rsync_output(bytes));
