//! Records of the log that are intact and mean nothing. The law is in `consensus::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, consensus::fuzzing::log_replay));
