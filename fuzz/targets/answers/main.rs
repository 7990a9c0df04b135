//! Streamed answers, as the command line reads them. The law is beside this file.
#![no_main]

#[path = "../../../src/events.rs"]
mod events;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, events::fuzzing::answers));
