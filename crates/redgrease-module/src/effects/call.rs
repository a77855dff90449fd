//! Commands of functions, and the command that makes an atomic block one unit of replication.

use redgrease_core::codec::{DEPTH_MAX, Writer};
use redgrease_core::id::Database;
use redgrease_core::slot::slot_of;
use redgrease_engine::effect::{Argv, RunCommand};
use redgrease_engine::id::ClientNo;
use redgrease_engine::input::Actor;
use redgrease_ffi::call::{CallError, ReplyKind, ReplyView};
use redgrease_ffi::{CallOptions, CallReply};

use super::own_command::DENIED_BEFORE_7_2;
use crate::driver::Driver;
use crate::error::Error;

/// The internal command that makes an atomic block one unit of replication.
const ATOMIC_COMMAND: &[u8] = b"rg.inneratomic";

/// The longest reply of a command that is passed to a function, in bytes.
const REPLY_BYTES_MAX: usize = 400 << 20;

/// The server's error text for the option that denies writes.
const WRITE_DENIED: (&str, &str) = ("ERR Write command '", "was called while write is not allowed");

/// Refuses a command on a cluster whose keys are in several slots. The server would, too; but Valkey 9.1 then refuses all
/// commands of modules, until it is started again: its client for them keeps the mark of the refused one.
fn check_slots(driver: &Driver, argv: &[&[u8]]) -> Result<(), Error> {
    // Two keys, and the name.
    if argv.len() < 3 || !driver.server.flags().cluster() {
        return Ok(());
    }
    let mut slots = driver.server.keys_of(argv).into_iter().filter_map(|key| argv.get(key)).map(|key| slot_of(key));
    let first = slots.next();
    if slots.all(|slot| Some(slot) == first) { Ok(()) } else { Err(Error::SeveralSlots) }
}

/// Runs a command of a function; the reply comes encoded.
pub fn run(driver: &Driver, run: &RunCommand) -> Result<Vec<u8>, String> {
    check_slots(driver, &run.argv.args())?;
    let refusal = match &run.write_refusal {
        Some(refusal) => Some(refusal.clone()),
        None if run.reads => None,
        None => driver.server.write_refusal(),
    };
    let options = CallOptions {
        database: run.actor.database.0,
        user: Some(&run.actor.user),
        replicate: run.replicate,
        deny_oom: true,
        deny_write: refusal.is_some(),
        resp3: false,
    };
    let reply = driver.server.call(&run.argv.args(), options).map_err(not_run)?;
    let view = reply.view();
    if view.kind() != ReplyKind::Error {
        return Ok(encode(&reply)?);
    }
    let text = String::from_utf8_lossy(view.bytes()).into_owned();
    if let Some(reason) = text.strip_prefix(DENIED_BEFORE_7_2) {
        return Err(Error::Denied { user: run.actor.user.to_string(), reason: reason.to_owned() }.into());
    }
    Err(match refusal {
        Some(refusal) if text.starts_with(WRITE_DENIED.0) && text.contains(WRITE_DENIED.1) => refusal,
        _ => text,
    })
}

/// Runs a command for a client, as its user; the reply is of the client's version of the protocol.
pub fn run_for_client(driver: &Driver, client: ClientNo, argv: &Argv, actor: &Actor) -> Result<CallReply, String> {
    check_slots(driver, &argv.args())?;
    let options = CallOptions {
        database: actor.database.0,
        user: Some(&actor.user),
        replicate: !driver.server.must_not_replicate(),
        deny_oom: true,
        deny_write: false,
        resp3: driver.clients.speaks_resp3(client),
    };
    driver.server.call(&argv.args(), options).map_err(|error| String::from(not_run(error)))
}

fn not_run(error: CallError) -> Error {
    match error {
        CallError::BadName => Error::BadName,
        CallError::NoUser(user) => Error::NoUser(user),
        CallError::NoDatabase(database) => Error::NoDatabase(database),
        CallError::Refused => Error::NotRun,
    }
}

/// Runs the command inside of which the atomic block is served.
pub fn enter_atomic(driver: &Driver, database: Database) -> Result<(), String> {
    let options = CallOptions { database: database.0, replicate: true, ..CallOptions::default() };
    match driver.server.call(&[ATOMIC_COMMAND], options) {
        Ok(reply) if reply.view().kind() == ReplyKind::Error => {
            Err(String::from_utf8_lossy(reply.view().bytes()).into_owned())
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Error::NoAtomic.into()),
    }
}

/// The encoded form of a reply.
fn encode(reply: &CallReply) -> Result<Vec<u8>, Error> {
    let len = reply.wire().len();
    if len > REPLY_BYTES_MAX {
        return Err(Error::ReplyTooBig { len, max: REPLY_BYTES_MAX });
    }
    let mut writer = Writer::new();
    encode_view(&mut writer, reply.view(), 0);
    Ok(writer.into_bytes())
}

fn encode_view(writer: &mut Writer, view: ReplyView<'_>, depth: usize) {
    match view.kind() {
        ReplyKind::String => writer.raw(view.bytes()),
        ReplyKind::Error => writer.error(view.bytes()),
        ReplyKind::Int => writer.int(view.int()),
        ReplyKind::Array(len) if depth < DEPTH_MAX => {
            writer.list(len);
            for element in view.elements() {
                encode_view(writer, element, depth + 1);
            }
        }
        ReplyKind::Array(_) | ReplyKind::Null | ReplyKind::Other => writer.none(),
    }
}
