//! Errors of the driver, worded for a client or for the author of a function.
//!
//! The codes are those of [`redgrease_core::error_code::CODES`]; errors of the server are passed on as they are.

use thiserror::Error;

/// An error of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A command's name contains a NUL.
    #[error("ERR the command's name holds a NUL")]
    BadName,
    /// A function acts as a user that was deleted.
    #[error("NOPERM the user '{0}' on whose behalf the function runs does not exist any more, or is disabled")]
    NoUser(String),
    /// There is no such database.
    #[error("ERR the server has no database {0}")]
    NoDatabase(u32),
    /// The server did not run a command, and gave no reason.
    #[error("ERR Failed executing command")]
    NotRun,
    /// A command on a cluster has keys that are not in one slot.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    SeveralSlots,
    /// The same, for a command of a reader.
    #[error("ERR the server did not run a command of the reader")]
    NotRead,
    /// A function's user may not run a command; `reason` is the server's text.
    #[error("NOPERM the user '{user}' {reason}")]
    Denied {
        /// The user.
        user: String,
        /// The server's text.
        reason: String,
    },
    /// A user lacks permission for a key.
    #[error("NOPERM the user '{user}' has no permission to {verb} the key '{key}'")]
    KeyDenied {
        /// The user.
        user: String,
        /// `read` or `write`.
        verb: &'static str,
        /// The key.
        key: String,
    },
    /// A user may not run a command that a reader needs.
    #[error("NOPERM the user '{user}' has no permission to run the command '{command}', which a reader needs")]
    CommandDenied {
        /// The user.
        user: String,
        /// The command.
        command: String,
    },
    /// A user may not use a key of a hooked command, in the server's words.
    #[error("NOPERM No permissions to access a key")]
    KeysDenied,
    /// A user may not run the command that `RG.WITHCODEC` names, in the server's words.
    #[error("NOPERM User {user} has no permissions to run the '{command}' command")]
    InnerDenied {
        /// The user.
        user: String,
        /// The command.
        command: String,
    },
    /// Clients are paused.
    #[error("PAUSED clients are paused")]
    Paused,
    /// A reply is too long for a function.
    #[error("ERR the command's reply of {len} bytes is longer than {max}: ask for less")]
    ReplyTooBig {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A value is too long for a record.
    #[error(
        "RECORDTOOBIG the value of key '{key}' has {len} bytes, more than MaxRecordBytes ({max}): raise it, or use \
         readValue=False and read parts with execute()"
    )]
    ValueTooBig {
        /// The key.
        key: String,
        /// Its length.
        len: usize,
        /// `MaxRecordBytes`.
        max: usize,
    },
    /// An entry of a stream is too long for a record.
    #[error("RECORDTOOBIG entry {id} of stream '{stream}' has {len} bytes, more than MaxRecordBytes ({max}): raise it")]
    EntryTooBig {
        /// The entry.
        id: String,
        /// The stream.
        stream: String,
        /// Its length.
        len: usize,
        /// `MaxRecordBytes`.
        max: usize,
    },
    /// The atomic block's command was not run.
    #[error("ERR the atomic block could not be entered")]
    NoAtomic,
    /// The internal command of atomic blocks was called by a client.
    #[error("ERR RG.INNERATOMIC is internal: use 'with atomic():' in a function")]
    AtomicIsInternal,
    /// The internal command of registrations was called by a client.
    #[error("ERR RG.INNERREGISTER is internal: masters send it to their replicas")]
    ChangeIsInternal,
    /// The internal command of hooks was called without a command.
    #[error("ERR RG.INNERHOOK is internal: call the command itself")]
    HookIsInternal,
    /// A client announced a version of the codec that is not known.
    #[error("ERR codec version '{seen}' is not known: this server speaks {known}")]
    UnknownCodec {
        /// The announced version.
        seen: String,
        /// The supported version.
        known: u64,
    },
    /// `RG.WITHCODEC` names a command that does not support it.
    #[error("ERR RG.WITHCODEC does not know the command '{0}'")]
    NoTaggedReply(String),
    /// An option of `RG.PYDUMPSESSIONS` is unknown.
    #[error("Unknown option {0}")]
    UnknownOption(String),
    /// The second word of `RG.PYPROFILE` is unknown.
    #[error("Wrong subcommand given to RG.PYPROFILE")]
    UnknownProfile,
    /// A client cannot be blocked.
    #[error("ERR the caller can not be blocked")]
    NotBlockable,
    /// The server's `SCAN` returned something other than a cursor and keys.
    #[error("INTERNAL the server's SCAN answered something unknown")]
    UnknownScan,
    /// A group is not read in slices.
    #[error("INTERNAL entries of a group are not read in slices of this kind")]
    GroupInSlices,
    /// The module is not started.
    #[error("INTERNAL the engine is not there")]
    NoEngine,
    /// A command was handled and not answered.
    #[error("INTERNAL the engine did not answer the command")]
    NoAnswer,
}

impl From<Error> for String {
    fn from(error: Error) -> String {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::error_code::code_of;

    #[test]
    fn each_error_begins_with_a_code_of_the_table_or_with_err() {
        let text = || "x".to_owned();
        let expected = [
            (Error::NoUser(text()), Some("NOPERM")),
            (Error::Denied { user: text(), reason: text() }, Some("NOPERM")),
            (Error::KeyDenied { user: text(), verb: "read", key: text() }, Some("NOPERM")),
            (Error::CommandDenied { user: text(), command: text() }, Some("NOPERM")),
            (Error::InnerDenied { user: text(), command: text() }, Some("NOPERM")),
            (Error::Paused, Some("PAUSED")),
            (Error::ValueTooBig { key: text(), len: 2, max: 1 }, Some("RECORDTOOBIG")),
            (Error::EntryTooBig { id: text(), stream: text(), len: 2, max: 1 }, Some("RECORDTOOBIG")),
            (Error::UnknownScan, Some("INTERNAL")),
            (Error::GroupInSlices, Some("INTERNAL")),
            (Error::NoEngine, Some("INTERNAL")),
            (Error::NoAnswer, Some("INTERNAL")),
            (Error::BadName, None),
            (Error::NoDatabase(1), None),
            (Error::UnknownCodec { seen: text(), known: 1 }, None),
        ];
        for (error, code) in expected {
            let text = error.to_string();
            assert_eq!(code_of(&text).map(|entry| entry.code), code, "{text}");
            assert!(code.is_some() || text.starts_with("ERR "), "{text}");
        }
    }
}
