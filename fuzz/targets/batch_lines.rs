//! Lines of a batch. The law is in `server::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, server::fuzzing::batch_lines));
