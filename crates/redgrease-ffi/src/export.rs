//! The functions that the server looks up in a module's library.

/// Makes a cdylib a module of the server: `export_module!(c"name", version, start)`.
///
/// `start` is `fn(&Loader) -> Result<(), String>`; an error refuses the load and is logged.
#[macro_export]
macro_rules! export_module {
    ($name:expr, $version:expr, $start:path) => {
        #[cfg(not(test))]
        #[global_allocator]
        static ALLOCATOR: $crate::ServerAllocator = $crate::ServerAllocator;

        /// Called by the server when it loads the module.
        ///
        /// # Safety
        /// Only by the server.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn RedisModule_OnLoad(
            context: *mut $crate::raw_types::RedisModuleCtx,
            argv: *mut *mut $crate::raw_types::RedisModuleString,
            argc: ::std::ffi::c_int,
        ) -> ::std::ffi::c_int {
            // SAFETY: the caller is the server, with its own arguments.
            unsafe { $crate::load::on_load(context, argv, argc, $name, $version, $start) }
        }

        /// Called by the server before it unloads the module: refused, because the module's threads and the server's
        /// event loop refer to its code. A server that ends may unload it: the code stays mapped (see `build.rs`).
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub extern "C" fn RedisModule_OnUnload(_context: *mut $crate::raw_types::RedisModuleCtx) -> ::std::ffi::c_int {
            $crate::server_event::on_unload()
        }
    };
}
