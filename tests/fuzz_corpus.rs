//! The fuzz targets of `fuzz/` on their kept corpus, and on scripts drawn from a fixed seed: what a fuzzer has once found
//! stays found, on any toolchain.

use std::fs;
use std::path::Path;

use proptest::prelude::RngCore;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[path = "../fuzz/targets/circuit.rs"]
mod circuit;
#[path = "../fuzz/targets/config.rs"]
mod config;
#[path = "../fuzz/targets/input.rs"]
mod input;
#[path = "../fuzz/targets/window.rs"]
mod window;

/// Runs a target on each file of its corpus, and on some hundred scripts that nobody chose.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).expect("the corpus is kept").map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 10, "{} files in {}", files.len(), folder.display());
    for file in files {
        run(&fs::read(&file).expect("it can be read"));
    }
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    for length in 0..300 {
        let mut script = vec![0; length];
        random.fill_bytes(&mut script);
        run(&script);
    }
}

#[test]
fn window_figures_agree_with_a_list_of_all_events() {
    replay("window", window::run);
}

#[test]
fn a_command_keeps_its_promises_under_any_script() {
    replay("circuit", circuit::run);
}

#[test]
fn every_configuration_works_or_is_refused_by_its_fields() {
    replay("config", config::run);
}
