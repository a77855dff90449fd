//! Commands of the module.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;

use crate::api::{api, selected_database, string_bytes};
use crate::client::{BlockedClient, Owed, Replier};
use crate::context::ContextFlags;
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;

/// A command: its facts and what it does.
pub trait Command {
    /// Its name.
    const NAME: &'static CStr;
    /// Flags, as `RM_CreateCommand` reads them.
    const FLAGS: &'static CStr;
    /// ACL categories, where the server lets modules have them.
    const CATEGORIES: &'static CStr;
    /// First key, last key and step; zeros when it has none.
    const KEYS: (i32, i32, i32) = (0, 0, 0);
    /// Behind so many words, its name among them, is another command, whose keys are its own. Needs the flag `getkeys-api`.
    /// Zero: it has keys at fixed places, or none.
    const WRAPS: usize = 0;
    /// Arguments including the name: at least.
    const ARGS_MIN: usize = 1;
    /// Arguments including the name: at most.
    const ARGS_MAX: usize = usize::MAX;

    /// Answers one invocation: replies once, or blocks the client. When it does neither, or panics, the client is answered
    /// with `INTERNAL ...`.
    fn run(invocation: &Invocation<'_>);
}

/// One invocation of a command.
pub struct Invocation<'a> {
    context: *mut raw::RedisModuleCtx,
    /// Name and arguments.
    pub args: Vec<&'a [u8]>,
    owed: Owed,
    lifetime: PhantomData<&'a ()>,
}

impl Invocation<'_> {
    /// To answer it.
    #[must_use]
    pub fn reply(&self) -> Replier<'_> {
        Replier::new(self.context, &self.owed)
    }

    /// What the server is doing for this client.
    #[must_use]
    pub fn flags(&self) -> ContextFlags {
        ContextFlags::of(self.context)
    }

    /// Sends this command to the server's own replicas and append-only file as it came.
    pub fn replicate_verbatim(&self) {
        // SAFETY: the context is that of a running command.
        unsafe { api!(RedisModule_ReplicateVerbatim)(self.context) };
    }

    /// The number of the database that the client has selected.
    #[must_use]
    pub fn database(&self) -> u32 {
        // SAFETY: the context of a running command has a client.
        unsafe { selected_database(self.context) }
    }

    /// Name of the user that the client is logged in as.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let get = api!(RedisModule_GetCurrentUserName)?;
        // SAFETY: the context is that of a running command; the string that comes back is ours.
        let name = unsafe { get(self.context) };
        if name.is_null() {
            return None;
        }
        // SAFETY: a valid string, copied before it is freed.
        let text = String::from_utf8_lossy(unsafe { string_bytes(name) }).into_owned();
        // SAFETY: ours, made without automatic memory, freed once.
        unsafe { api!(RedisModule_FreeString)(self.context, name) };
        Some(text)
    }

    /// Holds the client until the handle is used; `None` where it cannot be held (in a transaction, in a script, or when
    /// the command was called by a module: the server would end itself).
    #[must_use]
    pub fn block(&self) -> Option<BlockedClient> {
        let flags = self.flags();
        let held = flags.multi() || flags.lua() || flags.deny_blocking();
        (!held).then(|| {
            self.owed.postpone();
            BlockedClient::block(self.context)
        })
    }
}

impl Loader<'_> {
    /// Registers a command, with its categories where the server lets modules have them.
    ///
    /// # Errors
    /// The server refuses its name or flags.
    pub fn command<C: Command>(&self) -> Result<(), String> {
        let (first, last, step) = C::KEYS;
        // SAFETY: the context is that of the load; all strings are static.
        let created = unsafe {
            api!(RedisModule_CreateCommand)(
                self.raw_context(),
                C::NAME.as_ptr(),
                Some(trampoline::<C>),
                C::FLAGS.as_ptr(),
                first,
                last,
                step,
            )
        };
        if created != raw::REDISMODULE_OK {
            return Err(format!("the server refuses command {} with flags '{}'", name::<C>(), flags::<C>()));
        }
        let set = api!(RedisModule_SetCommandACLCategories);
        let get = api!(RedisModule_GetCommand);
        if let (Some(set), Some(get)) = (set, get) {
            // SAFETY: the command was registered above by this module; the name is static.
            let command = unsafe { get(self.raw_context(), C::NAME.as_ptr()) };
            if !command.is_null() {
                // SAFETY: a valid command of ours, during the load, as the API asks.
                unsafe { set(command, C::CATEGORIES.as_ptr()) };
            }
        }
        Ok(())
    }

    /// Adds the ACL category `@gears`; returns whether this server lets modules have one.
    pub fn acl_category(&self) -> bool {
        let Some(add) = api!(RedisModule_AddACLCategory) else { return false };
        // SAFETY: during the load, with a static name.
        unsafe { add(self.raw_context(), c"gears".as_ptr()) == raw::REDISMODULE_OK }
    }
}

fn name<C: Command>() -> String {
    C::NAME.to_string_lossy().into_owned()
}

fn flags<C: Command>() -> String {
    C::FLAGS.to_string_lossy().into_owned()
}

/// Reports the keys of the command behind the first words.
///
/// # Safety
/// The server asks for the positions of keys, with these arguments.
unsafe fn report_inner_keys(
    context: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
    words: usize,
) {
    thread_local! {
        /// The server asks us for the keys of a command that wraps another one, and we ask it for those of that one.
        static ASKING: Cell<bool> = const { Cell::new(false) };
    }
    // Each command inside a command that wraps one would take some of the stack: only one level is looked at.
    if argc as usize <= words || ASKING.replace(true) {
        return;
    }
    let (mut count, mut flags): (c_int, *mut c_int) = (0, std::ptr::null_mut());
    // SAFETY: the arguments behind the first words are valid strings; the callee writes count and flags.
    let keys = unsafe {
        let inner_argc = argc - words as c_int;
        api!(RedisModule_GetCommandKeysWithFlags)(context, argv.add(words), inner_argc, &raw mut count, &raw mut flags)
    };
    ASKING.set(false);
    if keys.is_null() {
        return;
    }
    for index in 0..count.max(0) as usize {
        // SAFETY: the callee returned that many positions and flags; the context asks for positions.
        unsafe { api!(RedisModule_KeyAtPosWithFlags)(context, *keys.add(index) + words as c_int, *flags.add(index)) };
    }
    for allocated in [keys, flags] {
        // SAFETY: allocated by the server for us, freed once; freeing null does nothing.
        unsafe { api!(RedisModule_Free)(allocated.cast()) };
    }
}

unsafe extern "C" fn trampoline<C: Command>(
    context: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the server gives `argc` strings that live during the command.
    let args: Vec<&[u8]> = (0..argc as usize).map(|index| unsafe { string_bytes(*argv.add(index)) }).collect();
    let invocation = Invocation { context, args, owed: Owed::one(), lifetime: PhantomData };
    // SAFETY: the context is that of this callback.
    if C::WRAPS > 0 && unsafe { api!(RedisModule_IsKeysPositionRequest)(context) } != 0 {
        // SAFETY: the server's arguments of this callback.
        unsafe { report_inner_keys(context, argv, argc, C::WRAPS) };
        invocation.owed.postpone();
        return raw::REDISMODULE_OK;
    }
    guarded(&name::<C>(), (), || {
        if invocation.args.len() < C::ARGS_MIN || invocation.args.len() > C::ARGS_MAX {
            invocation.reply().wrong_arity();
        } else {
            C::run(&invocation);
        }
    });
    invocation.owed.settle(context);
    raw::REDISMODULE_OK
}
