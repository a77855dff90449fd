//! What users may do beside running commands: registering for keys, and ending what belongs to others.

use redgrease_core::plan::Trigger;
use redgrease_core::registration::STREAM_GROUP;
use redgrease_ffi::keyspace::Access;

use crate::engine::Engine;

/// Permission for this command is the right to end what belongs to others.
const ADMINISTER: &[u8] = b"rg.administer";

impl Engine {
    /// Refuses a registration for keys that its user may not read, or for streams that it may not consume. A filter that
    /// begins with `*` names no key: each key is checked when it is read.
    pub fn check_trigger(&self, user: &str, trigger: &Trigger) -> Result<(), String> {
        match trigger {
            Trigger::Keys { filter, .. } => match filter.fixed().as_deref() {
                Some(key) if !self.server.may_access(user, key, Access::Read) => {
                    Err(self.missing_permission(user, Some((key, Access::Read)), b"get"))
                }
                _ => Ok(()),
            },
            Trigger::Stream { filter, trim, .. } => {
                let name = filter.fixed();
                let Some(key) = name.as_deref() else { return Ok(()) };
                let group = STREAM_GROUP.as_bytes();
                let needed: [&[&[u8]]; 4] = [
                    &[b"xreadgroup", b"group", group, b"c", b"streams", key, b">"],
                    &[b"xgroup", b"create", key, group, b"0"],
                    &[b"xack", key, group, b"0-0"],
                    &[b"xdel", key, b"0-0"],
                ];
                let needed = if *trim { &needed[..] } else { &needed[..3] };
                match needed.iter().find(|argv| !self.server.may_run(user, argv)) {
                    Some(argv) => Err(self.missing_permission(user, Some((key, Access::Write)), argv[0])),
                    None => Ok(()),
                }
            }
            Trigger::Command { .. } => Ok(()),
        }
    }

    /// Refuses what a caller wants to do to something that belongs to another user, unless it may administer. A caller
    /// without a user is the server itself.
    pub fn check_owner(&self, caller: Option<&str>, owner: Option<&str>, what: &str) -> Result<(), String> {
        let (Some(caller), Some(owner)) = (caller, owner) else { return Ok(()) };
        if caller == owner || self.server.may_run(caller, &[ADMINISTER]) {
            return Ok(());
        }
        Err(format!(
            "NOPERM the user '{caller}' may not {what} of the user '{owner}': that needs permission for RG.ADMINISTER \
             (category @admin)"
        ))
    }
}
