//! Fuzz targets of `redgrease-core`: bytes in, a panic where a guarantee does not hold.
//!
//! # Layout
//! - [`commands`], [`worker_frames`], [`stored`]: a target each, with the function `check`;
//! - [`seeds`]: small valid inputs of each target.
//!
//! The files in `fuzz_targets` connect them with libFuzzer. The tests here run the stored corpora without it.

pub mod commands;
pub mod seeds;
pub mod stored;
pub mod worker_frames;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn check_all(target: &str, check: impl Fn(&[u8]), seeds: &[Vec<u8>]) {
        seeds.iter().for_each(|seed| check(seed));
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        for file in fs::read_dir(corpus).expect("the corpus is a directory") {
            check(&fs::read(file.expect("an entry").path()).expect("a readable file"));
        }
    }

    #[test]
    fn each_input_of_the_corpora_passes() {
        check_all("commands", commands::check, &seeds::commands());
        check_all("worker_frames", worker_frames::check, &seeds::worker_frames());
        check_all("stored", stored::check, &seeds::stored());
    }
}
