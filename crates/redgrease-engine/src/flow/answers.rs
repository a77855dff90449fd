//! Answers of the driver to questions.

use redgrease_core::frame::LogLevel;

use crate::asked::Asked;
use crate::engine::Engine;
use crate::flow::workers::Described;
use crate::input::Fact;
use crate::prelude::*;

impl Engine {
    /// A question was answered.
    pub(crate) fn answered(&mut self, asked: Asked, fact: Fact) {
        match (asked, fact) {
            (Asked::Protection, Fact::Protection(protection)) => self.facts.protection = protection,
            (Asked::CommandOfCall { call, argv, name, waited }, Fact::Command(facts)) => {
                self.command_of_call_known(call, (argv, name), waited, facts.map(Rc::new));
            }
            (Asked::CommandOfEvent { request, name }, Fact::Command(facts)) => {
                let facts = facts.map(Rc::new);
                if let Some(facts) = &facts {
                    self.facts.learn(name.as_bytes().to_ascii_lowercase(), facts);
                }
                self.command_of_event_known(request, name, facts);
            }
            (Asked::CommandOfHook { request, name }, Fact::Command(facts)) => {
                self.command_of_hook_known(request, name, facts.map(Rc::new));
            }
            (Asked::CommandOfRestoredHook { registration, name }, Fact::Command(facts)) => {
                self.command_of_restored_hook_known(registration, name, facts.map(|facts| facts.own.keys));
            }
            (Asked::TimeEventKey(new), Fact::Made(made)) => self.time_event_key_made(*new, made),
            (Asked::TimeEventIsDue(number), Fact::Flag(exists)) => self.call_time_event(number, exists),
            (Asked::UsersOfHook(request), Fact::Names(users)) => self.users_of_hook_known(request, &users),
            (Asked::UserOfHookedCall { client, caller, registration, argv }, Fact::Permission(permission)) => {
                self.user_of_hooked_call(client, &caller, registration, &argv, permission);
            }
            (Asked::RegisterPermission(request), Fact::Permission(permission)) => {
                self.register_permission(request, permission);
            }
            (Asked::KeyOfEvent { database, event, key }, Fact::Key { kind, .. }) => {
                self.key_changed_of_type(database, &event, &key, kind);
            }
            (Asked::StreamFound { registration, key, by_entry }, Fact::Key { kind, len }) => {
                self.found_stream_seen(registration, &key, by_entry, (kind, len));
            }
            (Asked::StreamReplaced { registration, key }, Fact::Key { kind, len }) => {
                self.replaced_stream_seen(registration, &key, (kind, len));
            }
            (Asked::DatabaseSize(execution), Fact::Number(size)) => self.database_size_known(execution, size),
            (Asked::ClientOfInstall(job), Fact::Flag(gone)) => self.client_of_install_seen(job, gone),
            (Asked::DirectoriesOfInstall { job, paths, queued }, Fact::Flag(exist)) => {
                self.directories_seen(job, paths, queued, exist);
            }
            (Asked::MemoryOfWorker(worker), Fact::Number(bytes)) => self.memory_seen(worker, bytes.unwrap_or(0)),
            (Asked::MemoryOfTree(worker), Fact::Number(bytes)) => self.total_memory_seen(worker, bytes.unwrap_or(0)),
            (Asked::ProgressOfWorker(worker), Fact::Progress { unfinished_bytes, stopped }) => {
                self.progress_seen(worker, unfinished_bytes, stopped);
            }
            (Asked::ProcessOfWorker { worker, looks }, Fact::Flag(gone)) => {
                self.process_looked_at(worker, looks, gone);
            }
            (Asked::Handshake { worker, pid, python, package, isolation }, Fact::Permission(result)) => {
                let described = Described { python: &python, package: &package, isolation: &isolation };
                self.handshake_checked(worker, pid, described, result);
            }
            (Asked::EntriesBehind(execution), Fact::Number(found)) => self.entries_behind_known(execution, found),
            (Asked::GroupsOfBatch { batch, ids }, Fact::Groups(groups)) => {
                self.groups_of_batch_known(batch, &ids, &groups);
            }
            (Asked::GroupsOfRelease { release, ids }, Fact::Groups(groups)) => {
                self.groups_of_release_known(release, &ids, &groups);
            }
            (asked, fact) => {
                self.log(LogLevel::Warning, format!("rg: INTERNAL the driver answered {asked:?} with {fact:?}"));
            }
        }
    }
}
