//! libFuzzer on the target `node_message` of `tests/src/hostile/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (craq_tests::hostile::target("node_message").body)(bytes));
