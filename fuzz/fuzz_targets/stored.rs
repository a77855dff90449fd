//! Stored and exchanged data: see [`redgrease_fuzz::stored`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| redgrease_fuzz::stored::check(input));
