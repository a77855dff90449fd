//! Permissions of users for keys and streams, and errors that name missing ones.

use redgrease_engine::registrations::registry::STREAM_GROUP;
use redgrease_ffi::CallOptions;
use redgrease_ffi::keyspace::Access;

use crate::driver::Driver;
use crate::error::Error;

/// Refuses a key that a user may not read.
pub fn check_read(driver: &Driver, user: &str, key: &[u8]) -> Result<(), Error> {
    if driver.server.may_access(user, key, Access::Read) {
        return Ok(());
    }
    if !driver.server.user_is_enabled(user) {
        return Err(Error::NoUser(user.to_owned()));
    }
    Err(missing(driver, user, Some((key, Access::Read)), b"get"))
}

/// Refuses a key that a user may not change.
pub fn check_write(driver: &Driver, user: &str, key: &[u8]) -> Result<(), Error> {
    if driver.server.may_access(user, key, Access::Write) {
        return Ok(());
    }
    Err(missing(driver, user, Some((key, Access::Write)), b"set"))
}

/// Refuses a command that a user may not run, with an error like the server's.
pub fn check_call(driver: &Driver, user: &str, argv: &[&[u8]]) -> Result<(), Error> {
    if driver.server.may_run(user, argv) {
        return Ok(());
    }
    if !driver.server.user_is_enabled(user) {
        return Err(Error::NoUser(user.to_owned()));
    }
    let command = String::from_utf8_lossy(argv.first().copied().unwrap_or_default()).to_lowercase();
    if driver.server.may_run(user, &argv[..1.min(argv.len())]) {
        return Err(Error::KeysDenied);
    }
    Err(Error::InnerDenied { user: user.to_owned(), command })
}

/// Enabled users who may not run a command.
pub fn users_without(driver: &Driver, command: &[u8]) -> Vec<String> {
    let Ok(reply) = driver.server.call(&[b"acl", b"users"], CallOptions::default()) else { return Vec::new() };
    let users = reply.view().elements().map(|user| String::from_utf8_lossy(user.bytes()).into_owned());
    users.filter(|user| driver.server.user_is_enabled(user) && !driver.server.may_run(user, &[command])).collect()
}

/// Refuses a stream that a user may not read through a group, acknowledge, or (`trim`) remove entries from.
pub fn check_consume(driver: &Driver, user: &str, key: &[u8], trim: bool) -> Result<(), Error> {
    let group = STREAM_GROUP.as_bytes();
    let needed: [&[&[u8]]; 4] = [
        &[b"xreadgroup", b"group", group, b"c", b"streams", key, b">"],
        &[b"xgroup", b"create", key, group, b"0"],
        &[b"xack", key, group, b"0-0"],
        &[b"xdel", key, b"0-0"],
    ];
    let needed = if trim { &needed[..] } else { &needed[..3] };
    match needed.iter().find(|argv| !driver.server.may_run(user, argv)) {
        Some(argv) => Err(missing(driver, user, Some((key, Access::Write)), argv[0])),
        None => Ok(()),
    }
}

/// The missing permission of a user who was refused: access to a key, or else running a command.
pub fn missing(driver: &Driver, user: &str, key: Option<(&[u8], Access)>, command: &[u8]) -> Error {
    let all: &[Access] =
        if let Some((_, Access::Read)) = key { &[Access::Read] } else { &[Access::Read, Access::Write] };
    if let Some((key, _)) = key
        && let Some(access) = all.iter().find(|access| !driver.server.may_access(user, key, **access))
    {
        let verb = if *access == Access::Read { "read" } else { "write" };
        return Error::KeyDenied { user: user.to_owned(), verb, key: String::from_utf8_lossy(key).into_owned() };
    }
    Error::CommandDenied { user: user.to_owned(), command: String::from_utf8_lossy(command).into_owned() }
}
