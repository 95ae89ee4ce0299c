//! libFuzzer on the target `command_line` of `tests/src/hostile/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (craq_tests::hostile::target("command_line").body)(bytes));
