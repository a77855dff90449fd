//! Frames between server and worker: see [`redgrease_fuzz::worker_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| redgrease_fuzz::worker_frames::check(input));
