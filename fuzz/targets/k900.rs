#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lenscast::fuzz::run("k900", data));
