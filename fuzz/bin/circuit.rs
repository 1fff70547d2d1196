#![no_main]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/circuit.rs"]
mod circuit;

libfuzzer_sys::fuzz_target!(|data: &[u8]| circuit::run(data));
