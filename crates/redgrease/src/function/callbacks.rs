//! The Python parts of a function as a server takes them: a pickle that calls `redgrease.worker.source_functions.load`.

use redgrease_core::codec::Value;

const MODULE: &str = "redgrease.worker.source_functions";
const FUNCTION: &str = "load";
/// Version of what the function is given.
const FORMAT: i64 = 1;

/// What the function is given: an encoded dict.
pub(super) fn content(steps: Vec<Value>, source: Value, on_registered: Value) -> Vec<u8> {
    let fields = [
        ("format", Value::Int(FORMAT)),
        ("steps", Value::List(steps)),
        ("source", source),
        ("onRegistered", on_registered),
    ];
    Value::Dict(fields.into_iter().map(|(name, value)| (Value::text(name), value)).collect()).encode()
}

/// The pickle (protocol 4) of a call with one `bytes` object.
pub(super) fn pickle(content: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x04".to_vec();
    for name in [MODULE, FUNCTION] {
        // SHORT_BINUNICODE: both names are short.
        pickle.extend([0x8c, name.len() as u8]);
        pickle.extend_from_slice(name.as_bytes());
    }
    pickle.push(0x93); // STACK_GLOBAL
    pickle.push(0x8e); // BINBYTES8
    pickle.extend((content.len() as u64).to_le_bytes());
    pickle.extend_from_slice(content);
    pickle.extend(b"\x85R."); // TUPLE1, REDUCE, STOP
    pickle
}

/// A script that loads a function, and forgets it.
pub(super) fn check_script(content: &[u8]) -> String {
    format!("import {MODULE}\n{MODULE}.{FUNCTION}(b'{}')\n", content.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_is_a_call_of_the_worker() {
        let pickle = pickle(b"abc");
        let expected =
            b"\x80\x04\x8c\x21redgrease.worker.source_functions\x8c\x04load\x93\x8e\x03\0\0\0\0\0\0\0abc\x85R.";
        assert_eq!(pickle.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_script_holds_any_bytes() {
        let script = check_script(b"a'\"\\\n\xff");
        assert!(script.ends_with("load(b'a\\'\\\"\\\\\\n\\xff')\n"), "{script}");
    }
}
