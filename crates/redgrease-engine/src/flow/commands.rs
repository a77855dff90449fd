//! Commands of clients.

use redgrease_core::id::{ExecutionNo, Identifier, RegistrationNo, ShardId};
use redgrease_core::peer::PeerMessage;
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::cluster::changes::Then;
use crate::cluster::receiving::PeerCommand;
use crate::effect::{Answer, Effect};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::live::Waiter;
use crate::executions::outcome::Outcome;
use crate::flow::scripts::check_owner;
use crate::input::{Caller, Command, Inside};
use crate::limits::{ROWS_AT_ONCE, ROWS_PER_PIECE};
use crate::planted::Bug;
use crate::prelude::*;
use crate::registrations::dump::{self, Fields, Rows};

impl Engine {
    /// A command of a client.
    pub(crate) fn command(&mut self, client: Client, caller: &Caller, command: &Command<'_>) {
        match command {
            Command::PyExecute { arguments, new_id, tagged } => {
                self.py_execute(client, caller, (arguments, new_id), *tagged);
            }
            Command::Trigger { args, tagged } => self.trigger(client, caller, args, *tagged),
            Command::Hooked { args } => self.hooked(client, caller, args),
            Command::GetResults { execution, tagged, wait } => {
                self.get_results(client, caller, execution, *tagged, *wait);
            }
            Command::DumpExecutions => self.dump_executions(client),
            Command::DropExecution { execution } => self.drop_execution(client, caller, execution),
            Command::AbortExecution { execution } => self.abort_execution(client, caller, execution),
            Command::GetExecution { execution, scope } => self.get_execution(client, caller, execution, *scope),
            Command::DumpSessions(filter) => self.dump_sessions(client, filter),
            Command::DumpRequirements => self.dump_requirements(client),
            Command::ExportRequirement(name) => self.export_requirement(client, caller, name),
            Command::ImportRequirement(pieces) => self.import_requirement(client, caller, pieces),
            Command::Pause { registrations } => self.pause(client, caller, registrations),
            Command::Unpause { registrations } => self.unpause(client, caller, registrations),
            Command::Profile { session, order } => self.profile(client, caller, session, *order),
            Command::ClearStatistics => self.clear_statistics(client, caller),
            Command::ConfigGet { names } => self.config_get(client, names),
            Command::ConfigSet { words } => self.config_set(client, words),
            Command::DumpRegistrations => self.dump_registrations(client, caller),
            Command::Unregister { registration, abort_pending } => {
                self.unregister(client, caller, registration, *abort_pending);
            }
            Command::InfoCluster => self.info_cluster(client),
            Command::RefreshCluster => self.refresh_cluster(client),
            Command::SetCluster { args, from_shard } => self.set_cluster(client, args, *from_shard),
            Command::NetworkTest => self.network_test(client),
            Command::Hello => self.peer_hello(client),
            Command::PeerCommand { sender, run, function, payload, number } => {
                self.peer_command(client, caller, &PeerCommand { sender, run, function, payload, number });
            }
        }
    }

    /// The execution with that identifier, if it exists here.
    pub(crate) fn find_execution(&self, identifier: &[u8]) -> Option<ExecutionNo> {
        self.executions.find(Identifier::parse(identifier)?)
    }

    /// The registration with that identifier, if it exists here.
    pub(crate) fn find_registration(&self, identifier: &[u8]) -> Option<RegistrationNo> {
        self.registrations.find(Identifier::parse(identifier)?)
    }

    /// The outcome of an execution, if it has ended.
    fn final_outcome(&self, number: ExecutionNo, tagged: bool) -> Option<Outcome> {
        let execution = self.executions.get(number).filter(|execution| execution.status().is_final())?;
        Some(Outcome {
            status: execution.status(),
            results: execution.results.clone(),
            errors: execution.errors.clone(),
            style: if tagged { execution.style.tagged() } else { execution.style },
        })
    }

    fn get_results(&mut self, client: Client, caller: &Caller, identifier: &[u8], tagged: bool, wait: bool) {
        let Some(number) = self.find_execution(identifier) else {
            return self.refuse(client, Error::NoExecution);
        };
        if let Some(outcome) = self.final_outcome(number, tagged) {
            return self.answer(client, Answer::Run(outcome));
        }
        if !wait {
            return self.refuse(client, Error::StillRunning);
        }
        if caller.inside != Inside::Nothing {
            return self.refuse_to_wait(client, caller);
        }
        self.out.push(Effect::Block(client.number()));
        self.on_end(number, Waiter::Results { client, tagged });
    }

    fn dump_executions(&mut self, client: Client) {
        let rows = self.executions.iter().map(|(_, execution)| {
            Reply::Array(vec![
                Reply::bulk("executionId"),
                Reply::bulk(execution.id.to_string()),
                Reply::bulk("status"),
                Reply::bulk(execution.status().name()),
                Reply::bulk("registered"),
                Reply::Int(i64::from(execution.registration.is_some())),
            ])
        });
        let rows = Reply::Array(rows.collect());
        self.reply(client, rows);
    }

    fn drop_execution(&mut self, client: Client, caller: &Caller, identifier: &[u8]) {
        let Some(number) = self.find_execution(identifier) else {
            return self.refuse(client, Error::NoExecution);
        };
        if let Err(reason) = self.check_execution(caller, number, "drop the execution") {
            return self.refuse(client, reason);
        }
        let Some(execution) = self.executions.get(number).map(|execution| execution.id) else { return };
        if let Err(error) = self.executions.drop_finished(number) {
            return self.refuse(client, error.to_string());
        }
        let others: Vec<ShardId> = self.topology.others().map(|shard| shard.id).collect();
        for shard in others {
            self.send_to(shard, &PeerMessage::Drop { execution });
        }
        self.reply(client, Reply::Simple("OK".into()));
    }

    fn abort_execution(&mut self, client: Client, caller: &Caller, identifier: &[u8]) {
        let Some(number) = self.find_execution(identifier) else {
            return self.refuse(client, Error::NothingToAbort);
        };
        if let Err(reason) = self.check_execution(caller, number, "abort the execution") {
            return self.refuse(client, reason);
        }
        if self.executions.get(number).is_some_and(|execution| execution.status().is_final()) {
            return self.reply(client, Reply::Simple("OK".into()));
        }
        if caller.inside != Inside::Nothing {
            return self.refuse_to_wait(client, caller);
        }
        self.out.push(Effect::Block(client.number()));
        self.on_end(number, Waiter::End(client));
        if let Some(shared) = self.live.get_mut(&number).and_then(|live| live.shared.as_mut())
            && !shared.is_initiator()
        {
            // Its initiator learns that the part has failed, and ends the others.
            shared.failed = true;
        }
        self.abort(number);
    }

    /// Refuses an operation on an execution of another user, unless the caller may administer.
    fn check_execution(&self, caller: &Caller, number: ExecutionNo, what: &'static str) -> Result<(), Error> {
        let owner = self.executions.get(number).and_then(|execution| execution.owner.as_deref());
        check_owner(caller, owner, what)
    }

    /// Refuses a command that would have to wait where its caller cannot be blocked, in the server's words.
    pub(crate) fn refuse_to_wait(&mut self, client: Client, caller: &Caller) {
        let text = match caller.inside {
            Inside::Transaction => Error::WaitInTransaction,
            Inside::Script => Error::WaitInScript,
            Inside::Unblockable | Inside::Nothing => Error::WaitNotAllowed,
        };
        self.refuse(client, text);
    }

    fn unregister(&mut self, client: Client, caller: &Caller, identifier: &[u8], abort_pending: bool) {
        let number = self.find_registration(identifier);
        let found = number.and_then(|number| Some((number, self.registrations.get(number)?.session)));
        let Some((number, session)) = found else {
            return self.refuse(client, Error::NotRegistered);
        };
        let owner = self.sessions.get(session).map(|session| Rc::clone(&session.user));
        if let Err(reason) = check_owner(caller, owner.as_deref(), "unregister the function") {
            return self.refuse(client, reason);
        }
        if self.at.server.refuses_writes() {
            return self.refuse(client, Error::RegistrationsOfReplica);
        }
        self.remove_registration(number, abort_pending);
        if caller.inside == Inside::Nothing && self.topology.has_several() {
            self.out.push(Effect::Block(client.number()));
            return self.when_applied(Then::AnswerOk(client));
        }
        self.reply(client, Reply::Simple("OK".into()));
    }

    /// Answers `RG.DUMPREGISTRATIONS`: at once, or in slices if there are many rows and the client can be blocked.
    fn dump_registrations(&mut self, client: Client, caller: &Caller) {
        let mut rows = Rows::new(&self.registrations);
        if rows.len() > ROWS_AT_ONCE && caller.inside == Inside::Nothing {
            self.out.push(Effect::Block(client.number()));
            return self.rows.push_back((client, rows));
        }
        let mut all = Vec::with_capacity(rows.len());
        while let Some(row) = self.next_row(&mut rows) {
            all.push(row);
        }
        self.reply(client, Reply::Array(all));
    }

    fn next_row(&self, rows: &mut Rows) -> Option<Reply> {
        let number = rows.next(&self.registrations)?;
        let registration = self.registrations.get(number)?;
        let session = self.sessions.get(registration.session);
        let status = self.stream_status(number);
        let fields = if self.config.short_replies { Fields::RedGrease03 } else { Fields::All };
        let named = rows.of_session(registration.session);
        Some(dump::row(registration, session, named, status, fields))
    }

    /// Writes some rows of the reply whose turn it is.
    pub(crate) fn write_rows(&mut self) {
        let Some((client, mut rows)) = self.rows.pop_front() else { return };
        for _ in 0..ROWS_PER_PIECE {
            match self.next_row(&mut rows) {
                Some(row) => self.out.push(Effect::Row { client: client.number(), row }),
                None if self.planted(Bug::RowsNotEnded) => return,
                None => return self.out.push(Effect::EndRows(client.number())),
            }
        }
        self.rows.push_back((client, rows));
    }
}
