//! Answers to the engine's questions.

use std::path::Path;

use redgrease_core::id::WorkerNo;
use redgrease_engine::Fact;
use redgrease_engine::effect::Question;
use redgrease_ffi::keyspace::Access;

use super::{facts, permissions, record, streams};
use crate::driver::Driver;
use crate::memory;

/// Answers a question.
pub fn answer(driver: &Driver, question: Question) -> Fact {
    match question {
        Question::Command(name) => Fact::Command(facts::of_command(driver, &name)),
        Question::Protection => Fact::Protection(facts::protection(driver)),
        Question::Key { database, key } => {
            let (kind, len) = driver.key_kind(database, &key);
            Fact::Key { kind: record::key_type(kind), len: len as u64 }
        }
        Question::MayRun { user, argv } => {
            Fact::Permission(permissions::check_call(driver, &user, &argv.args()).map_err(String::from))
        }
        Question::MakeTimeEventKey { user, database, key, value } => {
            let permitted = user.map_or(Ok(()), |user| permissions::check_write(driver, &user, &key));
            Fact::Made(match permitted {
                Ok(()) => Ok(driver.server.make_value_key(database.0, &key, &value)),
                Err(error) => Err(error.to_string()),
            })
        }
        Question::HasTimeEventKey { database, key, value } => {
            Fact::Flag(driver.server.has_value_key(database.0, &key, &value))
        }
        Question::UsersWithout(command) => Fact::Names(permissions::users_without(driver, &command)),
        Question::MayRead { user, key } => {
            Fact::Permission(match driver.server.may_access(&user, &key, Access::Read) {
                true => Ok(()),
                false => Err(permissions::missing(driver, &user, Some((&key, Access::Read)), b"get").into()),
            })
        }
        Question::MayConsume { user, key, trim } => {
            Fact::Permission(permissions::check_consume(driver, &user, &key, trim).map_err(String::from))
        }
        Question::DatabaseSize(database) => Fact::Number(facts::database_size(driver, database)),
        Question::ClientIsGone(client) => Fact::Flag(driver.clients.is_gone(client)),
        Question::DirectoriesExist(paths) => Fact::Flag(paths.iter().all(|path| Path::new(path).is_dir())),
        Question::ResidentBytes(worker) => {
            Fact::Number(pid(driver, worker).map(|pid| memory::resident_and_peak_bytes(pid).0))
        }
        Question::TotalBytes(worker) => {
            let worker = driver.workers.get(worker);
            Fact::Number(worker.map(|worker| memory::tree_resident_bytes(worker.process.supervisor_pid())))
        }
        Question::Progress(worker) => {
            let worker = driver.workers.get(worker);
            Fact::Progress {
                unfinished_bytes: worker.as_ref().map_or(0, |worker| worker.connection.unfinished_bytes() as u64),
                stopped: worker.is_some_and(|worker| memory::is_stopped(worker.process.pid())),
            }
        }
        Question::ProcessIsGone(worker) => Fact::Flag(pid(driver, worker).is_none_or(memory::is_gone)),
        Question::AdoptProcess { worker, pid } => Fact::Permission(match driver.workers.get(worker) {
            Some(worker) => worker.process.adopt(pid),
            None => Err("its process is gone".to_owned()),
        }),
        Question::EntriesAfter { database, stream, after, max } => {
            Fact::Number(streams::entries_after(driver, database, &stream, after, max))
        }
        Question::Groups { database, stream, groups, first, last } => {
            Fact::Groups(streams::group_progress(driver, database, &stream, &groups, (first, last)))
        }
    }
}

fn pid(driver: &Driver, worker: WorkerNo) -> Option<u32> {
    driver.workers.get(worker).map(|worker| worker.process.pid())
}
