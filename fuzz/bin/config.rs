#![no_main]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::run(data));
