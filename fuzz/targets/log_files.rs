//! The files of a log as they are. The law is in `consensus::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, consensus::fuzzing::log_files));
