//! What the server tells clients about a command: `COMMAND DOCS`.

use std::ffi::{CStr, CString};
use std::ptr::null;

use crate::api::api;
use crate::load::Loader;
use crate::raw;

/// What an argument is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentKind {
    /// A value.
    Text,
    /// The token itself.
    Token,
    /// All of these, one after the other.
    Block(Vec<ArgumentInfo>),
    /// One of these.
    OneOf(Vec<ArgumentInfo>),
}

/// An argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentInfo {
    /// Its name.
    pub name: String,
    /// The word in front of it, or that it is.
    pub token: Option<String>,
    /// What it is.
    pub kind: ArgumentKind,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
}

/// A description of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandInfo {
    /// One line.
    pub summary: String,
    /// How its time grows.
    pub complexity: String,
    /// The version of the module that has it first.
    pub since: String,
    /// Its arguments.
    pub arguments: Vec<ArgumentInfo>,
}

/// Sizes of the structures below, which the server compares with its own.
static VERSION: Version = Version(raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
});

#[repr(transparent)]
struct Version(raw::RedisModuleCommandInfoVersion);

/// Texts and structures that must live during the call. The server copies all of them.
#[derive(Default)]
struct Kept {
    texts: Vec<CString>,
    lists: Vec<Vec<raw::RedisModuleCommandArg>>,
}

impl Kept {
    fn text(&mut self, text: &str) -> *const std::ffi::c_char {
        // Texts are ours and hold no NUL; one that did would be left out.
        let text = CString::new(text).unwrap_or_default();
        let start = text.as_ptr();
        self.texts.push(text);
        start
    }

    /// A list of arguments, with the entry of zeros that ends it.
    fn list(&mut self, arguments: &[ArgumentInfo]) -> *mut raw::RedisModuleCommandArg {
        let mut list: Vec<raw::RedisModuleCommandArg> = arguments.iter().map(|one| self.argument(one)).collect();
        list.push(raw::RedisModuleCommandArg {
            name: null(),
            type_: 0,
            key_spec_index: 0,
            token: null(),
            summary: null(),
            since: null(),
            flags: 0,
            deprecated_since: null(),
            subargs: std::ptr::null_mut(),
            display_text: null(),
        });
        let start = list.as_mut_ptr();
        self.lists.push(list);
        start
    }

    fn argument(&mut self, argument: &ArgumentInfo) -> raw::RedisModuleCommandArg {
        let (kind, subargs) = match &argument.kind {
            ArgumentKind::Text => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING, std::ptr::null_mut()),
            ArgumentKind::Token => {
                (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN, std::ptr::null_mut())
            }
            ArgumentKind::Block(inner) => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK, self.list(inner)),
            ArgumentKind::OneOf(inner) => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF, self.list(inner)),
        };
        let optional = if argument.optional { raw::REDISMODULE_CMD_ARG_OPTIONAL } else { 0 };
        let multiple = if argument.multiple { raw::REDISMODULE_CMD_ARG_MULTIPLE } else { 0 };
        raw::RedisModuleCommandArg {
            name: self.text(&argument.name),
            type_: kind,
            key_spec_index: -1,
            token: argument.token.as_ref().map_or(null(), |token| self.text(token)),
            summary: null(),
            since: null(),
            flags: optional | multiple,
            deprecated_since: null(),
            subargs,
            display_text: null(),
        }
    }
}

impl Loader<'_> {
    /// Describes a command of this module.
    ///
    /// # Errors
    /// The server refuses the description.
    pub fn describe(&self, command: &CStr, info: &CommandInfo) -> Result<(), String> {
        let (Some(get), Some(set)) = (api!(RedisModule_GetCommand), api!(RedisModule_SetCommandInfo)) else {
            return Ok(());
        };
        let mut kept = Kept::default();
        let described = raw::RedisModuleCommandInfo {
            version: &raw const VERSION.0,
            summary: kept.text(&info.summary),
            complexity: kept.text(&info.complexity),
            since: kept.text(&info.since),
            history: std::ptr::null_mut(),
            tips: null(),
            arity: 0,
            key_specs: std::ptr::null_mut(),
            args: if info.arguments.is_empty() { std::ptr::null_mut() } else { kept.list(&info.arguments) },
        };
        // SAFETY: during the load; the command was registered by this module, and everything that is referred to lives in
        // `kept` until the server has copied it.
        let accepted = unsafe {
            let found = get(self.raw_context(), command.as_ptr());
            !found.is_null() && set(found, &raw const described) == raw::REDISMODULE_OK
        };
        drop(kept);
        if accepted {
            Ok(())
        } else {
            Err(format!("the server refuses the description of {}", command.to_string_lossy()))
        }
    }
}
