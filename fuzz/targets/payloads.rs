//! What every gRPC call takes and gives. The law is in `proto::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bounded(bytes, proto::fuzzing::payloads));
