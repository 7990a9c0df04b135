//! Addresses, and the file of the coordinators. The law is in `daemon::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, daemon::fuzzing::settings));
