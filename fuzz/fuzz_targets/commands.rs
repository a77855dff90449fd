//! Arguments of commands, and what they hold: see [`redgrease_fuzz::commands`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| redgrease_fuzz::commands::check(input));
