//! The environment of the server's process.
//!
//! Servers load modules so that these prefer their own libraries' symbols (`RTLD_DEEPBIND`). Then the variable `environ` of the
//! module is another one than the server's, and what the standard library reads from it or passes on to children is empty.

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn dlclose(handle: *mut c_void) -> c_int;
}

/// Symbols are looked up when they are used.
const RTLD_LAZY: c_int = 1;

/// The variables of the environment. Call it on the main thread: the server changes its environment only there.
#[must_use]
pub fn variables() -> Vec<(OsString, OsString)> {
    // SAFETY: no file stands for the program itself, which is never unloaded; a static name; the symbol is a variable of
    // every C library.
    let environ = unsafe {
        let program = dlopen(std::ptr::null(), RTLD_LAZY);
        if program.is_null() {
            return Vec::new();
        }
        let environ = dlsym(program, c"environ".as_ptr());
        dlclose(program);
        environ.cast::<*const *const c_char>()
    };
    let mut found = Vec::new();
    if environ.is_null() {
        return found;
    }
    // SAFETY: it points to a list of C strings that ends with null, or is null; nobody changes it meanwhile.
    let mut next = unsafe { *environ };
    while !next.is_null() {
        // SAFETY: an entry of the list, or its end.
        let entry = unsafe { *next };
        if entry.is_null() {
            break;
        }
        // SAFETY: a C string of the list.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if let Some(at) = text.iter().skip(1).position(|byte| *byte == b'=') {
            let (name, value) = (text[..=at].to_vec(), text[at + 2..].to_vec());
            found.push((OsString::from_vec(name), OsString::from_vec(value)));
        }
        // SAFETY: this entry was not the end.
        next = unsafe { next.add(1) };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_of_the_process() {
        let mut expected: Vec<_> = std::env::vars_os().collect();
        let mut found = variables();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert!(!found.is_empty());
    }
}
