//! Access to the server's function table, and the strings that its functions take and return.

use std::ffi::CString;

use crate::raw;

/// A function of the module API; one that some supported servers lack is an `Option`.
macro_rules! api {
    ($name:ident) => {
        $crate::table::functions().$name
    };
}

pub(crate) use api;

/// Text for a place that ends at the first NUL.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).expect("NULs were replaced")
}

/// The number of the database that a context has selected.
///
/// # Safety
/// `context` is a valid context that has a client (that of a command or a notification, or a detached one).
pub(crate) unsafe fn selected_database(context: *mut raw::RedisModuleCtx) -> u32 {
    // SAFETY: the caller vouches for the context.
    u32::try_from(unsafe { api!(RedisModule_GetSelectedDb)(context) }).unwrap_or_default()
}

/// The bytes of a string of the server.
///
/// # Safety
/// `string` is a valid string of the server that is neither changed nor freed during `'a`.
pub(crate) unsafe fn string_bytes<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: the caller vouches for the string; the length is written by the callee.
    let ptr = unsafe { api!(RedisModule_StringPtrLen)(string, &raw mut len) };
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the server says that `len` bytes stand at `ptr`; they live as long as the string.
    unsafe { std::slice::from_raw_parts(ptr.cast(), len) }
}

/// A string of the server that we own.
pub(crate) struct OwnedString(pub(crate) *mut raw::RedisModuleString);

impl OwnedString {
    pub(crate) fn new(bytes: &[u8]) -> OwnedString {
        // SAFETY: a null context is allowed since 6.0: the string is ours to free. `bytes` is copied.
        let string =
            unsafe { api!(RedisModule_CreateString)(std::ptr::null_mut(), bytes.as_ptr().cast(), bytes.len()) };
        OwnedString(string)
    }

    /// Hands the string over: it is not freed here.
    pub(crate) fn into_raw(self) -> *mut raw::RedisModuleString {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for OwnedString {
    fn drop(&mut self) {
        // SAFETY: created by `new` without a context and freed once, here.
        unsafe { api!(RedisModule_FreeString)(std::ptr::null_mut(), self.0) };
    }
}
