//! Stop strings in an answer that is cut anywhere. The law is in `server::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, server::fuzzing::stop_strings));
