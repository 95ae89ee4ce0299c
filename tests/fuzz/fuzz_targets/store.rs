//! libFuzzer on the target `store` of `tests/src/hostile/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (craq_tests::hostile::target("store").body)(bytes));
