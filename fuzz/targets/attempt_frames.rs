//! Frames of a token stream, between coordinator and agent. The law is in `proto::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, proto::fuzzing::attempt_frames));
