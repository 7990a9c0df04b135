//! Join tokens. The law is in `proto::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, proto::fuzzing::join_tokens));
