//! Users of the server.

use std::ptr::NonNull;

use crate::api::{OwnedString, api, string_bytes};
use crate::raw;
use crate::reply::CallReply;
use crate::server::Server;

/// A user of the server, valid for one call.
pub(crate) struct ModuleUser(pub(crate) NonNull<raw::RedisModuleUser>);

impl ModuleUser {
    /// The user of that name, if it exists and is enabled.
    pub(crate) fn enabled(server: &Server, name: &str) -> Option<ModuleUser> {
        let get = api!(RedisModule_GetModuleUserFromUserName)?;
        let text = OwnedString::new(name.as_bytes());
        // SAFETY: the string lives during the call; the user that comes back is ours to free.
        let user = NonNull::new(unsafe { get(text.0) }).map(ModuleUser)?;
        let rules = user.rules().unwrap_or_else(|| described(server, name));
        (rules.split(|byte| *byte == b' ').next() == Some(b"on")).then_some(user)
    }

    /// The user's rules, which begin with `on` or `off`; the server keeps this text between changes of the user.
    fn rules(&self) -> Option<Vec<u8>> {
        let describe = api!(RedisModule_GetModuleUserACLString)?;
        // SAFETY: a valid user; the string that comes back is ours to free.
        let text = NonNull::new(unsafe { describe(self.0.as_ptr()) })?;
        // SAFETY: a valid string, of which a part is copied before it is freed.
        let rules = unsafe { string_bytes(text.as_ptr()) }.iter().take(4).copied().collect();
        // SAFETY: ours, freed once.
        unsafe { api!(RedisModule_FreeString)(std::ptr::null_mut(), text.as_ptr()) };
        Some(rules)
    }
}

impl Drop for ModuleUser {
    fn drop(&mut self) {
        // SAFETY: made by `RedisModule_GetModuleUserFromUserName` and freed once, here; no context refers to it any more.
        unsafe { api!(RedisModule_FreeModuleUser)(self.0.as_ptr()) };
    }
}

/// The first flag of a user, on servers that cannot describe a user (Redis before 7.0.6).
fn described(server: &Server, name: &str) -> Vec<u8> {
    let args: [&[u8]; 2] = [b"getuser", name.as_bytes()];
    // SAFETY: a valid context of the main thread; the letter beside `v` takes nothing.
    let reply = unsafe { CallReply::of_command(server.raw_context(), c"acl", c"vE", &args) };
    reply.and_then(|reply| Some(reply.view().element(1)?.element(0)?.bytes().to_vec())).unwrap_or_default()
}
