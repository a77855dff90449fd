//! The server's module API as its C header declares it.
//!
//! The bindings are generated and committed (`make bindings`); nothing reads the header in a build.

// The names are C's, and the server's documentation describes them.
// Of an enumeration only some values are used.
#[allow(non_camel_case_types, non_upper_case_globals, dead_code, missing_docs)]
mod bindings;

pub use bindings::*;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const HEADER: &str = include_str!("../../redismodule/redismodule.h");
    const BINDINGS: &str = include_str!("bindings.rs");

    /// The words of the header, comments included.
    fn words(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect()
    }

    /// The names of the items that begin so in the bindings.
    fn bound(beginning: &str) -> Vec<&'static str> {
        let names: Vec<_> = BINDINGS
            .lines()
            .filter_map(|line| line.strip_prefix(beginning))
            .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
            .collect();
        assert!(!names.is_empty(), "no '{beginning}' in the bindings");
        names
    }

    #[test]
    fn every_function_of_the_bindings_is_one_that_the_header_asks_the_server_for() {
        for name in bound("pub type ").into_iter().filter(|name| name.starts_with("RedisModule_")) {
            assert!(HEADER.contains(&format!("(*{name})(")), "{name} is not declared in the header: make bindings");
            let asked = name == "RedisModule_GetApi"
                || HEADER.contains(&format!("REDISMODULE_GET_API({});", name.trim_start_matches("RedisModule_")));
            assert!(asked, "the header does not ask the server for {name}");
        }
    }

    #[test]
    fn every_structure_and_constant_of_the_bindings_is_in_the_header() {
        let header = words(HEADER);
        // bindgen names what has no name in the header, and puts the name of an enumeration before its values.
        let is_named = |name: &&str| !name.contains("__bindgen_");
        for name in bound("pub struct ").into_iter().chain(bound("pub const ")).filter(is_named) {
            let value = name.find("_REDISMODULE_").map_or(name, |at| &name[at + 1..]);
            assert!(header.contains(name) || header.contains(value), "{name} is not in the header: make bindings");
        }
    }
}
