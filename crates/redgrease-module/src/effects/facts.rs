//! Information about the server's commands, options and databases.

use redgrease_core::id::Database;
use redgrease_core::policy::{CommandFacts, Facts, KeyRange, Protection};
use redgrease_ffi::CallOptions;
use redgrease_ffi::call::ReplyView;

use super::own_command::look_up;
use crate::driver::Driver;

/// The server's description of the command with this (lower-case) name; `None` if it does not exist.
pub fn of_command(driver: &Driver, name: &[u8]) -> Option<CommandFacts> {
    let reply = driver.server.call(&[b"command", b"info", name], CallOptions::default()).ok()?;
    let row = reply.view().element(0)?;
    let own = of_row(name, row)?;
    let subcommands = row.element(9).into_iter().flat_map(|rows| rows.elements()).filter_map(|row| {
        let full = row.element(0)?.bytes();
        let word = full.split(|byte| *byte == b'|').nth(1)?;
        Some((word.to_ascii_lowercase(), of_row(name, row)?))
    });
    Some(CommandFacts { own, subcommands: subcommands.collect() })
}

/// The facts in a row of `COMMAND INFO`.
fn of_row(name: &[u8], row: ReplyView<'_>) -> Option<Facts> {
    let (flags, categories) = (row.element(2)?, row.element(6)?);
    let number = |index| row.element(index).map_or(0, |element| element.int());
    let keys = KeyRange { first: number(3), last: number(4), step: number(5) };
    let flags = flags.elements().map(|flag| flag.bytes());
    Some(Facts { keys, ..Facts::new(name, flags, categories.elements().map(|name| name.bytes())) })
}

/// The server's options that protect commands.
pub fn protection(driver: &Driver) -> Protection {
    let enabled = |option: &[u8]| {
        let reply = driver.server.call(&[b"config", b"get", option], CallOptions::default()).ok();
        reply.is_some_and(|reply| reply.view().element(1).is_some_and(|value| value.bytes() == b"yes"))
    };
    Protection { debug_enabled: enabled(b"enable-debug-command"), module_enabled: enabled(b"enable-module-command") }
}

/// Number of keys of a database; `None` if some of them may have expired, which the server counts until it removes them.
pub fn database_size(driver: &Driver, database: Database) -> Option<u64> {
    let keyspace = look_up(driver, database, &[b"info", b"keyspace"]).ok()?;
    if has_expiring_keys(keyspace.view().bytes()) {
        return None;
    }
    u64::try_from(look_up(driver, database, &[b"dbsize"]).ok()?.view().int()).ok()
}

/// Whether a database has keys with an expiry, according to the section `keyspace` of the server's `INFO`.
fn has_expiring_keys(keyspace: &[u8]) -> bool {
    let fields = keyspace.split(|byte| matches!(byte, b',' | b':' | b'\r' | b'\n'));
    fields.filter_map(|field| field.strip_prefix(b"expires=")).any(|number| number != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_expire_are_seen_in_the_keyspace_section() {
        let info = |expires: &str| {
            format!("# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ndb7:keys=12,{expires},avg_ttl=0\r\n")
        };
        assert!(has_expiring_keys(info("expires=1").as_bytes()));
        assert!(!has_expiring_keys(info("expires=0").as_bytes()));
        assert!(!has_expiring_keys(b"# Keyspace\r\n"));
    }
}
