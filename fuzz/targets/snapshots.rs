//! Snapshots of the registry. The law is in `consensus::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, consensus::fuzzing::snapshots));
