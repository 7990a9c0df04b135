//! A log that was written and then damaged. The law is in `consensus::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, consensus::fuzzing::log_recovery));
