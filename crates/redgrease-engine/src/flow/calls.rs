//! Calls of user code: commands, actions, atomic blocks.

use redgrease_core::codec::Writer;
use redgrease_core::frame::{Call, ToWorker};
use redgrease_core::id::{RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::policy::{Around, CommandFacts, check_call};
use redgrease_core::slot::tag_of;

use crate::asked::Asked;
use crate::calls::caller::{Caller, PendingCall, Requester};
use crate::calls::deferred::{DeferredCall, Wanted};
use crate::calls::facts::only_reads;
use crate::calls::stack::{Atomic, Until};
use crate::effect::{Argv, Effect, Question, RunCommand};
use crate::engine::Engine;
use crate::error::Error;
use crate::events::sync::SyncRun;
use crate::id::{CommandNo, WaitNo};
use crate::input::Actor;
use crate::limits::DEFERRED_MS_MAX;
use crate::planted::Bug;
use crate::prelude::*;
use crate::sessions::session::Session;
use crate::step::Next;
use crate::workers::link::{Link, Process};

/// The shortest encoded value: the answer to calls without a result.
const NOTHING: [u8; 1] = [0];

/// The encoded form of a text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.str(text);
    writer.into_bytes()
}

impl Engine {
    /// Serves one call of a worker.
    pub(crate) fn call(&mut self, mut call: PendingCall, op: Call<'_>) {
        if call.caller.exec.is_some_and(|exec| !self.live.contains_key(&exec)) {
            // A thread or coroutine that outlives its execution is code of the session.
            call.caller.exec = None;
        }
        if !self.lives_in(call) {
            self.report_foreign(call.worker, call.caller);
            return self.answer_call(&call, Err(Error::NotInWorker.into()));
        }
        if let Some(exec) = call.caller.exec {
            self.executions.start(exec);
        }
        match op {
            Call::Execute { argv } => match self.hook_of_call(call, &argv) {
                Some(registration) => self.run_hook_for(call, registration, &Argv::new(&argv)),
                None => self.look_up(call, Argv::new(&argv), false),
            },
            Call::TimeEvent { plan, spec, blob, period_s, key } => {
                self.register_time_event(call, (plan, spec, blob), period_s, key);
            }
            Call::CallNext { args } => self.call_next(call, &args),
            Call::GetCommand => self.command_asked(call),
            Call::OverrideReply { value } => self.override_reply(call, value),
            Call::AtomicEnter => self.atomic_asked(call),
            Call::AtomicExit => {
                if let Some(atomic) = self.stack.atomic.as_mut().filter(|atomic| atomic.call.caller == call.caller) {
                    atomic.left = true;
                }
                self.answer_call(&call, Ok(NOTHING.to_vec()));
            }
            Call::Results { execution } => self.results_asked(call, execution),
            Call::Run { plan, spec, blob } => self.run_action(Requester::Call(call), plan, spec, blob),
            Call::Register { plan, spec, blob } => self.register_action(Requester::Call(call), plan, spec, blob),
            Call::ConfigGet { key } => {
                let value = self.config_value(key);
                self.answer_call(&call, Ok(value));
            }
            Call::HashTag => {
                let tag = self.hash_tag();
                self.answer_call(&call, Ok(text(&tag)));
            }
        }
    }

    /// A text that belongs to the first slot of this shard.
    fn hash_tag(&mut self) -> String {
        let slot = self.topology.first_slot();
        match &self.cluster.tag {
            Some((known, tag)) if *known == slot => tag.clone(),
            _ => {
                let tag = tag_of(slot);
                self.cluster.tag = Some((slot, tag.clone()));
                tag
            }
        }
    }

    /// Answers a call.
    pub(crate) fn answer_call(&mut self, call: &PendingCall, result: Result<Vec<u8>, String>) {
        let result = match &result {
            Ok(value) => Ok(value.as_slice()),
            Err(text) => Err(text.as_str()),
        };
        self.send(call.worker, &ToWorker::Reply { call: call.call, result });
    }

    fn config_value(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        match self.config.extra.get(key) {
            Some(value) => writer.raw(value),
            None => writer.none(),
        }
        writer.into_bytes()
    }

    /// Whether a caller is genuine: an execution or session in that worker.
    fn lives_in(&self, call: PendingCall) -> bool {
        let Caller { exec, session } = call.caller;
        let here = |session: SessionNo| self.sessions.get(session).and_then(Session::worker) == Some(call.worker);
        match exec.map(|exec| self.live.get(&exec)) {
            None => here(session),
            Some(Some(live)) => live.worker == Some(call.worker) && live.session == session && here(session),
            Some(None) => false,
        }
    }

    /// Whether the caller's code may still be running.
    pub(crate) fn runs(&self, caller: Caller) -> bool {
        match caller.exec {
            Some(exec) => self.live.contains_key(&exec),
            None => self.sessions.get(caller.session).is_some_and(|session| session.script.is_some()),
        }
    }

    /// Whether the server may not replicate now and the caller can wait. A caller for which the main thread waits cannot.
    fn must_defer(&self, caller: Caller) -> bool {
        !self.stack.serves(caller) && (self.at.server.paused || !self.deferred.is_empty())
    }

    fn defer(&mut self, call: PendingCall, wanted: Wanted) {
        let deadline_ms = self.now_ms() + DEFERRED_MS_MAX;
        if let Err(error) = self.deferred.push(DeferredCall { call, wanted, deadline_ms }) {
            self.answer_call(&call, Err(error.into()));
        }
    }

    /// Serves a waiting call if possible, or fails it at its deadline.
    pub(crate) fn retry_deferred(&mut self) {
        let paused = self.at.server.paused;
        if !self.deferred.is_due(paused, self.now_ms()) {
            return;
        }
        let Some(DeferredCall { call, wanted, .. }) = self.deferred.pop() else { return };
        if self.planted(Bug::DeferredCallForgotten) {
            return;
        }
        if !self.lives_in(call) {
            return self.answer_call(&call, Err(Error::CallerEnded.into()));
        }
        if paused {
            return self.answer_call(&call, Err(Error::PausedTooLong.into()));
        }
        match wanted {
            Wanted::Execute(argv) => self.look_up(call, argv, true),
            Wanted::Atomic => self.enter_atomic(call),
        }
    }

    /// Obtains the server's description of a command, then continues with it. `waited`: it does not queue again.
    pub(crate) fn look_up(&mut self, call: PendingCall, argv: Argv, waited: bool) {
        let name = argv.args().first().map(|name| name.to_ascii_lowercase());
        match name.as_ref().map(|name| self.facts.of(name)) {
            None => self.run_command(call, argv, None, waited),
            Some(Some(facts)) => self.run_command(call, argv, Some(facts), waited),
            Some(None) => {
                let name = name.unwrap_or_default();
                self.ask(Question::Command(name.clone()), Asked::CommandOfCall { call, argv, name, waited });
            }
        }
    }

    /// The server's description of a command is known.
    pub(crate) fn command_of_call_known(
        &mut self,
        call: PendingCall,
        (argv, name): (Argv, Vec<u8>),
        waited: bool,
        facts: Option<Rc<CommandFacts>>,
    ) {
        if let Some(facts) = &facts {
            self.facts.learn(name, facts);
        }
        self.run_command(call, argv, facts, waited);
    }

    fn run_command(&mut self, call: PendingCall, argv: Argv, facts: Option<Rc<CommandFacts>>, waited: bool) {
        let reads = only_reads(facts.as_deref(), &argv.args());
        if !reads && !waited && self.must_defer(call.caller) {
            return self.defer(call, Wanted::Execute(argv));
        }
        match self.admit(call, &argv, facts.as_deref(), reads) {
            Ok((actor, write_refusal)) => {
                let command = self.stack.begin_command(call);
                let replicate = !self.at.server.paused;
                self.out.push(Effect::Run(RunCommand { command, argv, actor, replicate, reads, write_refusal }));
            }
            Err(text) => self.answer_call(&call, Err(text)),
        }
    }

    /// The user and the database of a command, and why it may not write, if so.
    fn admit(
        &self,
        call: PendingCall,
        argv: &Argv,
        facts: Option<&CommandFacts>,
        reads: bool,
    ) -> Result<(Actor, Option<String>), String> {
        let actor = self.actor_of_call(call)?;
        let around = self.around(call.caller);
        check_call(&argv.args(), facts, around, self.facts.protection).map_err(|refusal| refusal.to_string())?;
        // A command that is not known to be read-only may replicate (a script, say), which would end the server.
        if self.at.server.paused && !reads {
            return Err(Error::PausedInSync.into());
        }
        let refusal = self.at.server.refuses_writes().then(|| Error::WriteOnReplica.to_string());
        Ok((actor, refusal))
    }

    /// The user and the database that a call acts as.
    pub(crate) fn actor_of_call(&self, call: PendingCall) -> Result<Actor, Error> {
        let live = call.caller.exec.and_then(|exec| self.live.get(&exec));
        if let Some(hooked) = live.and_then(|live| live.hooked.as_ref()).filter(|_| call.as_client) {
            return Ok(hooked.actor.clone());
        }
        let user = self.user_of(call.caller).ok_or(Error::CallerUnknown)?;
        Ok(Actor { user, database: self.database_of(call.caller) })
    }

    /// The function that replaces a command of user code. Functions that replace commands use the real ones.
    fn hook_of_call(&self, call: PendingCall, argv: &[&[u8]]) -> Option<RegistrationNo> {
        if self.registrations.hooks.is_empty() {
            return None;
        }
        let live = call.caller.exec.and_then(|exec| self.live.get(&exec));
        if live.is_some_and(|live| live.hooked.is_some()) {
            return None;
        }
        self.registrations.hooks.function(argv, None)
    }

    /// The context in which the code of a caller runs.
    fn around(&self, caller: Caller) -> Around {
        match () {
            () if self.at.server.script => Around::Script,
            () if self.at.server.transaction => Around::Transaction,
            () if self.stack.atomic.is_some_and(|atomic| atomic.call.caller == caller) => Around::Atomic,
            () if self.stack.serves(caller) => Around::Command,
            () => Around::Nothing,
        }
    }

    /// A command of a function has ended: executions that it triggered run first, so that their effects are logged
    /// after the command's own; then the function gets the reply.
    pub(crate) fn command_done(&mut self, command: CommandNo, result: Result<Vec<u8>, String>) {
        let Some(running) = self.stack.end_command(command) else { return };
        if running.runs.is_empty() {
            return self.answer_call(&running.call, result);
        }
        for run in running.runs {
            self.then(Next::RunSync(run));
        }
        self.then(Next::AnswerCall { call: running.call, result });
    }

    fn atomic_asked(&mut self, call: PendingCall) {
        if self.must_defer(call.caller) {
            return self.defer(call, Wanted::Atomic);
        }
        self.enter_atomic(call);
    }

    /// Enters an atomic block: an internal command runs it, so that its effects are one unit of replication.
    fn enter_atomic(&mut self, call: PendingCall) {
        if self.stack.serves(call.caller) {
            // The main thread already serves only this caller.
            return self.answer_call(&call, Ok(NOTHING.to_vec()));
        }
        if self.stack.atomic.is_some() {
            return self.answer_call(&call, Err(Error::AlreadyAtomic.into()));
        }
        self.stack.atomic = Some(Atomic { call, entered: false, left: false });
        self.out.push(Effect::EnterAtomic(self.database_of(call.caller)));
    }

    /// The command that runs the block has begun: its code continues, and the main thread waits for its end.
    pub(crate) fn atomic_entered(&mut self) {
        let Some(atomic) = self.stack.atomic.as_mut().filter(|atomic| !atomic.entered) else { return };
        atomic.entered = true;
        let call = atomic.call;
        let deadline_ms = self.now_ms().saturating_add(self.config.sync_time_max.as_millis() as u64);
        let wait = self.stack.wait(call.worker, call.caller, Until::AtomicLeft, deadline_ms);
        self.answer_call(&call, Ok(NOTHING.to_vec()));
        self.out.push(Effect::Serve { wait, worker: call.worker });
    }

    /// The command that runs the block has ended.
    pub(crate) fn atomic_ended(&mut self, result: Result<(), String>) {
        if self.planted(Bug::AtomicNotLeft) && result.is_ok() {
            return;
        }
        let Some(atomic) = self.stack.atomic.take() else { return };
        // A block that was entered has been answered, and the command can still fail.
        if let Err(text) = result
            && !atomic.entered
        {
            self.answer_call(&atomic.call, Err(text));
        }
    }

    /// A wait has ended. If its condition is not met, its worker has ended or must be ended.
    pub(crate) fn served(&mut self, number: WaitNo) {
        let Some(wait) = self.stack.get(number).copied() else { return };
        let has_come = self.has_come(wait.until, wait.caller);
        self.stack.end_wait(number);
        if !has_come {
            self.end_ended(wait.worker);
        }
        self.go_on_after_wait(wait.worker);
    }

    /// The main thread no longer waits for a worker: handles frames that it sent meanwhile, and its end.
    pub(crate) fn go_on_after_wait(&mut self, worker: WorkerNo) {
        if self.stack.waits_for(worker) || self.planted(Bug::KeptFramesForgotten) {
            return;
        }
        if self.workers.links.get(&worker).is_some_and(Link::has_frames) {
            // The kept frames are handled in the next slice.
            self.frames_wait(worker);
        } else if !self.planted(Bug::EndedWorkerForgotten) {
            // Its process may have ended during the wait.
            self.end_ended(worker);
        }
    }

    /// Sync executions that were triggered by a command of a function are not run.
    pub(crate) fn give_up_runs(&mut self, runs: &[SyncRun]) {
        for run in runs {
            if let SyncRun::Key(event) = run {
                self.count_aborted(event.registration);
            }
        }
    }

    /// The condition of a wait was not met in time: only the end of the worker ends the wait.
    pub(crate) fn wait_expired(&mut self, number: WaitNo) {
        let Some(wait) = self.stack.get(number).copied() else { return };
        let closed = self.workers.links.get(&wait.worker).map(|link| link.process.clone());
        let limit = self.config.sync_time_max.as_millis();
        let reason = match closed {
            Some(Process::Closed { .. }) => "was killed: it closed its connection to the server".to_owned(),
            _ => format!("was killed: the server waited longer than SyncMaxTime ({limit} ms)"),
        };
        self.end_worker(wait.worker, reason);
    }

    /// Queues a sync execution to run after the command of a function; returns it if no such command is running.
    pub(crate) fn run_after_own_command(&mut self, run: SyncRun) -> Option<SyncRun> {
        match self.stack.command() {
            Some(running) => {
                running.runs.push(run);
                None
            }
            None => Some(run),
        }
    }
}
