//! What coordinators say to one another. The law is in `consensus::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, consensus::fuzzing::replica_messages));
