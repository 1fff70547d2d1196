#![no_main]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/window.rs"]
mod window;

libfuzzer_sys::fuzz_target!(|data: &[u8]| window::run(data));
