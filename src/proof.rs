#![doc = include_str!("proof.md")]
