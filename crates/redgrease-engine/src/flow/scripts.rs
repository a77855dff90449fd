//! Scripts and sessions: from `RG.PYEXECUTE` to the end of the session's last execution or registration.

use redgrease_core::command::{Action, Function, PyExecute};
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{LogLevel, ToWorker};
use redgrease_core::id::{ExecutionNo, PlanNo, RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::plan::Trigger;
use redgrease_core::python::PythonVersion;
use redgrease_core::render::{Reply, one_line};

use crate::asked::Asked;
use crate::calls::caller::Requester;
use crate::clients::Client;
use crate::cluster::changes::Then;
use crate::cluster::versions::Version;
use crate::effect::{Answer, Effect, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::live::Waiter;
use crate::input::{Caller, Inside};
use crate::limits::{
    PAUSED_RETRY_MS, REQUIREMENTS_AGAIN_MS, WAITING_SESSIONS_MAX, WORKER_AGAIN_MS, WORKER_WAIT_MS_MAX,
};
use crate::planted::Bug;
use crate::prelude::*;
use crate::registrations::registry::{Registration, Replaced};
use crate::sessions::script::{Replacing, Script};
use crate::sessions::session::{Deaths, Place, Session};
use crate::sessions::stored::{REINSTALLED, Stored, StoredFunction, environment, is_reinstalled};
use crate::timers::Timer;

/// The plan of a client's function has the number of its session and this bit; workers number theirs without it.
const PLAN_OF_SESSION: u64 = 1 << 63;

impl Engine {
    /// `RG.PYEXECUTE`.
    pub(crate) fn py_execute(
        &mut self,
        client: Client,
        caller: &Caller,
        (command, new_id): (&PyExecute<'_>, &str),
        tagged: bool,
    ) {
        if caller.inside != Inside::Nothing {
            return self.refuse(client, Error::ScriptNotHere);
        }
        if self.at.server.refuses_writes() {
            return self.refuse(client, Error::ScriptOnReplica);
        }
        if let Err(reason) = &self.runtime {
            return self.refuse(client, Error::NoRuntime(reason.clone()));
        }
        let replacing = Replacing {
            caller: caller.clone(),
            id: command.id.map(str::to_owned),
            upgrade: command.upgrade,
            replace_with: command.replace_with.map(|old| String::from_utf8_lossy(old).into_owned()),
        };
        let replaces = match self.replaced_by(&replacing) {
            Ok(replaces) => replaces,
            Err(reason) => return self.refuse(client, reason),
        };
        self.out.push(Effect::Block(client.number()));
        let user = caller.user.clone().unwrap_or_else(|| "default".into());
        let requirements: Rc<[String]> =
            command.requirements.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        let mut environment = environment(&requirements);
        if command.force_reinstall && !environment.is_empty() {
            environment = format!("{environment}\n{REINSTALLED}{new_id}");
        }
        let stored = Stored {
            source: command.script.to_vec(),
            python: command.python.map(|version| version.to_string()).unwrap_or_default(),
            environment: environment.into(),
            requirements,
            ..Stored::default()
        };
        let script = Script {
            client,
            unblocking: command.unblocking,
            tagged,
            run: None,
            pending: Vec::new(),
            replacing,
            replaces,
            force_reinstall: command.force_reinstall,
        };
        let number = self.sessions.add(Session {
            name: command.id.unwrap_or(new_id).into(),
            description: command.description.map(<[u8]>::to_vec),
            user,
            database: caller.database,
            stored,
            python: None,
            paths: Vec::new(),
            wheels: BTreeMap::new(),
            place: Place::Waiting,
            script: Some(script),
            registered: false,
            unlinked: false,
            installed: false,
            live: 0,
            held: Vec::new(),
            deaths: Deaths::default(),
            version: Version::none(),
        });
        let Some(Function { action, plan: spec, callbacks }) = command.function else {
            return self.prepare_session(number);
        };
        let plan = PlanNo(PLAN_OF_SESSION | number.0);
        if let Some(session) = self.sessions.get_mut(number) {
            let (spec, callbacks) = (spec.to_vec(), callbacks.to_vec());
            session.stored.function = Some(StoredFunction { plan, spec, callbacks });
        }
        match action {
            Action::Run => self.run_action(Requester::Client(number), plan, spec, callbacks),
            Action::Register => self.register_action(Requester::Client(number), plan, spec, &[]),
        }
    }

    /// A session that needs a worker gets its interpreter and its requirements first.
    pub(crate) fn prepare_session(&mut self, number: SessionNo) {
        if self.choose_interpreter(number) {
            self.prepare_requirements(number);
        }
    }

    fn prepare_requirements(&mut self, number: SessionNo) {
        let Some(session) = self.sessions.get(number) else { return };
        if session.stored.environment.is_empty() {
            self.want_worker(number);
        } else {
            let force = session.script.as_ref().is_some_and(|script| script.force_reinstall);
            self.look_for_requirements(number, force);
        }
    }

    /// The action of a client's function is allowed: a plan with native steps only starts at once, any
    /// other waits for a worker.
    pub(crate) fn function_accepted(&mut self, number: SessionNo) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let run = session.script.as_ref().and_then(|script| script.run);
        let native = run.and_then(|run| self.live.get(&run)?.native.as_ref());
        if native.is_none_or(|native| native.next_step().is_some()) {
            return self.prepare_session(number);
        }
        if let (Some(run), Some(script)) = (run, session.script.take()) {
            self.answer_at_end(run, script);
            self.begin(run);
        }
    }

    /// What a script replaces of what exists now.
    fn replaced_by(&self, replacing: &Replacing) -> Result<Option<Replaced>, Error> {
        let Replacing { caller, id, upgrade, replace_with } = replacing;
        let same = id.as_deref().and_then(|id| self.sessions.named(id));
        if let (Some(id), Some(_)) = (id, same) {
            if let Some(old) = replace_with {
                return Err(Error::ReplaceExisting { id: id.clone(), old: old.clone() });
            }
            if !upgrade {
                return Err(Error::SessionExists(id.clone()));
            }
        }
        let replaced = match replace_with {
            Some(old) => Some(self.session_or_registration(old).ok_or_else(|| Error::NothingToReplace(old.clone()))?),
            None => same.map(|session| (Replaced::Session(session), session)),
        };
        let Some((replaced, session)) = replaced else { return Ok(None) };
        let owner = self.sessions.get(session).map(|session| Rc::clone(&session.user));
        check_owner(caller, owner.as_deref(), "replace the session")?;
        Ok(Some(replaced))
    }

    /// What `REPLACE_WITH` names, a session or else a registration, and the session.
    fn session_or_registration(&self, name: &str) -> Option<(Replaced, SessionNo)> {
        if let Some(session) = self.sessions.named(name) {
            return Some((Replaced::Session(session), session));
        }
        let number = self.find_registration(name.as_bytes())?;
        Some((Replaced::Registration(number), self.registrations.get(number)?.session))
    }

    /// The requirements of a session are present, or are not available.
    pub(crate) fn requirements_known(&mut self, number: SessionNo, result: Result<Vec<String>, String>) {
        match result {
            Ok(paths) => {
                let environment = self.sessions.get(number).map(|session| Rc::clone(&session.stored.environment));
                let known = environment.and_then(|environment| self.installs.known(&environment));
                let wheels = known.map(|known| known.wheels_of.clone()).unwrap_or_default();
                if let Some(session) = self.sessions.get_mut(number) {
                    (session.paths, session.wheels) = (paths, wheels);
                    self.want_worker(number);
                }
            }
            Err(reason) => self.session_without_worker(number, &reason, REQUIREMENTS_AGAIN_MS),
        }
    }

    /// Adds a session to the queue for workers.
    pub(crate) fn want_worker(&mut self, number: SessionNo) {
        if self.sessions.waiting.len() >= WAITING_SESSIONS_MAX {
            return self.session_without_worker(number, &Error::TooManyWait.to_string(), WORKER_AGAIN_MS);
        }
        self.sessions.waiting.push_back(number);
        self.serve_waiting();
        if self.sessions.waiting.contains(&number) {
            self.after_ms(WORKER_WAIT_MS_MAX, Timer::WorkerWait(number));
        }
    }

    /// A session has waited too long for a worker.
    pub(crate) fn worker_wait_expired(&mut self, number: SessionNo) {
        if !self.sessions.waiting.contains(&number) {
            return;
        }
        self.sessions.waiting.retain(|other| *other != number);
        let workers_max = self.config.workers_max;
        let start_error = self.workers.start_error.clone();
        let reason = start_error.unwrap_or_else(|| Error::NoWorkerFree { workers_max }.into());
        self.session_without_worker(number, &reason, WORKER_AGAIN_MS);
    }

    /// A session gets no worker: its script fails, its registrations stay and wait for the next attempt.
    pub(crate) fn session_without_worker(&mut self, number: SessionNo, reason: &str, again_ms: u64) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        match session.script.take() {
            Some(script) => {
                self.fail_script(script, reason);
                self.sessions.remove(number);
            }
            None => {
                self.release_held(number, Some(reason));
                self.after_ms(again_ms, Timer::WorkerAgain(number));
            }
        }
    }

    /// A session with registrations requests a worker again, indefinitely: its registrations are not lost. So does one whose
    /// registrations were removed while executions wait.
    pub(crate) fn want_worker_again(&mut self, number: SessionNo) {
        let has_time_events = self.time_events.of_session(number);
        let wants = |session: &Session| {
            let needed = session.registered || has_time_events || !session.held.is_empty();
            needed && session.place == Place::Waiting
        };
        if self.sessions.get(number).is_some_and(wants) && !self.sessions.waiting.contains(&number) {
            self.prepare_session(number);
        }
    }

    /// Executions that waited for a worker: sent, or ended with an error if there will be none.
    fn release_held(&mut self, number: SessionNo, reason: Option<&str>) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let mut held = core::mem::take(&mut session.held);
        let broken = reason.or_else(|| session.broken()).map(str::to_owned);
        if self.planted(Bug::HeldExecutionForgotten) {
            held.pop();
        }
        if self.planted(Bug::HeldExecutionsReversed) {
            held.reverse();
        }
        for execution in held {
            match &broken {
                Some(reason) => self.end_with_error(execution, reason),
                None => self.enqueue(execution),
            }
        }
    }

    fn fail_script(&mut self, script: Script, reason: &str) {
        if let Some(execution) = script.run {
            self.discard(execution);
            // The script of a function may have ended before, with no client to notify.
            let _ = self.executions.take(execution);
        }
        self.reply(script.client, Reply::Error(one_line(reason.as_bytes())));
    }

    /// A session got a worker, which runs its script or rebuilds its registrations.
    pub(crate) fn session_got_worker(&mut self, number: SessionNo, worker: WorkerNo) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let runs_script = session.script.is_some();
        let wanted = session.wanted_python();
        let tagged = session.script.as_ref().is_some_and(|script| script.tagged);
        let present = self.workers.links.get(&worker).map(|link| link.python.clone()).unwrap_or_default();
        if let Some(wanted) = wanted.filter(|wanted| PythonVersion::parse(&present) != Some(*wanted)) {
            return self.other_interpreter(number, worker, wanted);
        }
        let Some(session) = self.sessions.get_mut(number) else { return };
        session.place = if runs_script { Place::Running(worker) } else { Place::Restoring(worker) };
        // Removed while the frame is written, and put back.
        let (stored, paths) = (core::mem::take(&mut session.stored), core::mem::take(&mut session.paths));
        let name = Rc::clone(&session.name);
        if let Some(link) = self.workers.links.get_mut(&worker) {
            link.session_name = Rc::clone(&name);
        }
        let frame_paths = paths.iter().map(String::as_str).collect();
        let traceback = self.config.traceback;
        let request = number.0;
        let function = stored.function.as_ref().map(StoredFunction::in_frame);
        let frame = match function {
            Some(function) if runs_script => {
                ToWorker::Load { request, session: number, name: &name, function, paths: frame_paths, traceback }
            }
            None if runs_script => {
                let source = &stored.source;
                let paths = frame_paths;
                ToWorker::Script { request, session: number, name: &name, source, paths, traceback, tagged }
            }
            _ => {
                let blobs = stored.functions.iter().map(Vec::as_slice).collect();
                ToWorker::Restore { request, session: number, name: &name, function, blobs, paths: frame_paths }
            }
        };
        self.send(worker, &frame);
        let run = self.sessions.get_mut(number).and_then(|session| {
            (session.stored, session.paths) = (stored, paths);
            session.script.as_ref()?.run
        });
        self.after_ms(self.config.script_time_max.as_millis() as u64, Timer::ScriptLimit(number));
        if let Some(run) = run {
            // The run of a function: it does not wait until the function is loaded.
            self.begin(run);
        }
    }

    /// A session cannot be built in its worker.
    pub(crate) fn session_is_broken(&mut self, number: SessionNo, worker: WorkerNo, error: Error) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        session.place = Place::Broken { reason: error.into(), worker: Some(worker) };
        self.rebuilt(worker, number);
    }

    /// A script that runs too long is ended together with its worker: there is no other way.
    pub(crate) fn script_limit_reached(&mut self, number: SessionNo) {
        let Some(session) = self.sessions.get(number) else { return };
        let (Place::Running(worker) | Place::Restoring(worker)) = session.place else { return };
        if session.place == Place::Running(worker) && session.script.is_none() {
            return;
        }
        let limit = self.config.script_time_max.as_millis();
        self.end_worker(worker, format!("was killed: a script ran longer than ScriptMaxTime ({limit} ms)"));
    }

    /// A script, or the rebuilding of a session, ended in its worker.
    pub(crate) fn script_done(&mut self, worker: WorkerNo, number: SessionNo, error: Option<&str>, blob: &[u8]) {
        let error = error.map(|error| String::from_utf8_lossy(&cut_error(error.as_bytes())).into_owned());
        let Some(session) = self.sessions.get_mut(number) else { return };
        if session.place == Place::Restoring(worker) {
            session.place = match error {
                None => Place::Up(worker),
                Some(error) => Place::Broken { reason: Error::Broken(error).into(), worker: Some(worker) },
            };
            return self.rebuilt(worker, number);
        }
        if session.place != Place::Running(worker) {
            return;
        }
        let Some(mut script) = session.script.take() else { return };
        let runs_already = session.stored.function.is_some();
        session.place = Place::Up(worker);
        if let Some(error) = error {
            self.fail_script(script, &error);
            return self.end_session(number);
        }
        let run = script.run.take();
        if !script.pending.is_empty() && self.at.server.paused {
            // Registering is replicated: it waits until clients are no longer paused.
            script.run = run;
            session.script = Some(script);
            session.place = Place::Running(worker);
            let (blob, error) = (blob.to_vec(), None);
            return self.after_ms(PAUSED_RETRY_MS, Timer::ScriptDone { worker, session: number, error, blob });
        }
        if script.pending.is_empty() {
            match run {
                None => self.reply(script.client, Reply::Simple("OK".into())),
                Some(execution) => {
                    self.answer_at_end(execution, script);
                    if !runs_already {
                        self.begin(execution);
                    }
                }
            }
            return self.end_session_if_unused(number);
        }
        // The server may have become a replica in the meantime: it has the registrations of its master.
        let refusal = self.at.server.refuses_writes().then(|| Error::RegistrationsOfReplica.to_string());
        if let Err(reason) = refusal.map_or_else(|| self.verify_again(&mut script), Err) {
            script.run = run;
            self.fail_script(script, &reason);
            return self.end_session(number);
        }
        self.register_all(worker, number, script, blob);
        if let Some(execution) = run {
            self.begin(execution);
        }
    }

    fn rebuilt(&mut self, worker: WorkerNo, number: SessionNo) {
        let broken = self.sessions.get(number).and_then(Session::broken).map(str::to_owned);
        if let Some(reason) = broken {
            self.log(LogLevel::Warning, format!("rg: {reason}"));
        } else {
            let pid = self.workers.links.get(&worker).map_or(0, |link| link.pid);
            // Sessions of executions that other shards began come and go.
            let level = match self.sessions.get(number) {
                Some(session) if session.registered => LogLevel::Notice,
                _ => LogLevel::Debug,
            };
            self.log(level, format!("rg: session rebuilt in worker {worker} (pid {pid})"));
            let registrations = self.registrations.of_session(number);
            self.announce(worker, &registrations);
            self.follow_again(&registrations);
        }
        self.release_held(number, None);
    }

    /// The only action of a script or function is an execution: the client gets its results, or its id.
    fn answer_at_end(&mut self, execution: ExecutionNo, script: Script) {
        if !self.live.contains_key(&execution) {
            // Aborted while the script was still running or waiting.
            let outcome = self.executions.take(execution).map(Self::outcome_of);
            return match outcome {
                Some(outcome) => self.answer(script.client, Answer::Run(outcome)),
                None => self.refuse(script.client, Error::WasAborted),
            };
        }
        if script.unblocking {
            let id = self.execution_id(execution).to_string();
            self.reply(script.client, Reply::bulk(id));
        } else {
            self.out.push(Effect::Measure(script.client.number()));
            self.drop_at_end(execution);
            self.on_end(execution, Waiter::Results { client: script.client, tagged: false });
        }
    }

    /// Another script or another shard may have taken a name in the meantime, or replaced what this script replaces.
    fn verify_again(&self, script: &mut Script) -> Result<(), String> {
        script.replaces = self.replaced_by(&script.replacing)?;
        let replaced = |number| self.registrations.is_replaced(number, script.replaces);
        script.pending.iter().try_for_each(|(_, registration)| {
            self.registrations.verify(&registration.trigger, [], replaced).map_err(|error| error.to_string())
        })
    }

    /// The old registrations are replaced by the new ones in one step.
    fn register_all(&mut self, worker: WorkerNo, number: SessionNo, mut script: Script, blob: &[u8]) {
        self.executions.skip_number();
        let mut replaced = None;
        let was_applying = self.applying;
        if let Some(Replaced::Session(old)) = script.replaces {
            // Replicas and files remove the session's registrations when they get the new session.
            replaced = self.sessions.get(old).map(|session| Box::new(self.saved_session(old, session)));
            self.applying = true;
        }
        if let Some(old) = script.replaces {
            self.resume_groups(old, &mut script.pending);
            for registration in self.registrations.replaced(old) {
                // Calls that have not begun run: their clients wait for the old function or for the new one.
                self.remove_registration(registration, !self.is_called(registration));
            }
        }
        self.applying = was_applying;
        let numbers: Vec<RegistrationNo> = script.pending.iter().map(|(number, _)| *number).collect();
        self.store_functions(Some(worker), number, blob);
        for (registration_number, registration) in script.pending {
            self.add_registration(registration_number, registration);
        }
        self.announce(worker, &numbers);
        self.follow_streams(&numbers);
        self.replicate_session(number, replaced.as_ref().map(|session| session.name.as_str()));
        let version = self.sessions.get(number).map_or_else(Version::none, |session| session.version);
        self.when_applied(Then::AnswerScript { client: script.client, session: number, version, replaced });
    }

    /// Whether clients wait for what a registration runs.
    pub(crate) fn is_called(&self, number: RegistrationNo) -> bool {
        let called = |found: &Registration| matches!(found.trigger, Trigger::Command { .. } | Trigger::Hook { .. });
        self.registrations.get(number).is_some_and(called)
    }

    /// A session owns registrations from now on: what is needed to rebuild them is kept.
    pub(crate) fn store_functions(&mut self, worker: Option<WorkerNo>, number: SessionNo, blob: &[u8]) {
        let link = worker.and_then(|worker| self.workers.links.get(&worker));
        let python = link.map(|link| link.python.clone()).unwrap_or_default();
        if let Some(session) = self.sessions.get_mut(number) {
            session.registered = true;
            session.stored.python = python;
            if !blob.is_empty() {
                session.stored.functions.push(blob.to_vec());
            }
        }
    }

    /// An execution of a session began.
    pub(crate) fn session_used(&mut self, number: SessionNo) {
        if let Some(session) = self.sessions.get_mut(number) {
            session.live += 1;
        }
    }

    /// An execution of a session ended.
    pub(crate) fn session_released(&mut self, number: SessionNo) {
        if let Some(session) = self.sessions.get_mut(number) {
            session.live = session.live.saturating_sub(1);
        }
        self.end_session_if_unused(number);
    }

    pub(crate) fn end_session_if_unused(&mut self, number: SessionNo) {
        if self.sessions.get(number).is_some_and(Session::is_unused) && !self.time_events.of_session(number) {
            self.end_session(number);
        }
    }

    /// Removes a session; its worker returns to the pool.
    fn end_session(&mut self, number: SessionNo) {
        let Some(session) = self.sessions.remove(number) else { return };
        if session.unlinked || is_reinstalled(&session.stored.environment) {
            self.requirements_released(&session.stored.environment);
        }
        let Some(worker) = session.worker().filter(|worker| self.workers.links.contains_key(worker)) else { return };
        self.out.push(Effect::DrainOutput { worker, session: session.name });
        self.send(worker, &ToWorker::ForgetSession { session: number });
        if self.planted(Bug::LeaseKept) {
            return;
        }
        if self.workers.pool.release(number, self.now_ms()).is_some() {
            self.retire(worker);
        } else if self.workers.pool.is_unused(worker) {
            // Its memory is checked before another session gets it.
            return self.ask(Question::ResidentBytes(worker), Asked::MemoryOfWorker(worker));
        }
        self.serve_waiting();
        self.trim_later();
    }

    /// The sessions of a worker that has ended: scripts fail, sessions with registrations are rebuilt elsewhere.
    /// Only `suspects` may have caused it.
    pub(crate) fn sessions_lost(&mut self, sessions: &[SessionNo], suspects: &BTreeSet<SessionNo>, head: &str) {
        let now_ms = self.now_ms();
        for number in sessions {
            let Some(session) = self.sessions.get_mut(*number) else { continue };
            let was_broken = matches!(session.place, Place::Broken { .. });
            if let Place::Broken { worker, .. } = &mut session.place {
                *worker = None;
            } else {
                session.place = Place::Waiting;
            }
            if let Some(script) = session.script.take() {
                self.fail_script(script, &Error::DiedInScript(head.to_owned()).to_string());
                if !self.planted(Bug::SessionLeaked) {
                    self.sessions.remove(*number);
                }
                continue;
            }
            let has_time_events = self.time_events.of_session(*number);
            let Some(session) = self.sessions.get_mut(*number) else { continue };
            let too_many = suspects.contains(number) && session.deaths.too_many_with_one_at(now_ms);
            let broken: Option<Error> = match () {
                // Executions that were not sent to the worker cannot run anywhere else.
                () if !session.registered && !has_time_events => Some(Error::DiedBefore(head.to_owned())),
                () if too_many => Some(Error::DiedTooOften(head.to_owned())),
                () => None,
            };
            let rebuild = broken.is_none() && !was_broken;
            if let Some(reason) = broken {
                session.place = Place::Broken { reason: reason.into(), worker: None };
            }
            if rebuild {
                for execution in core::mem::take(&mut session.held) {
                    self.move_execution(execution, head);
                }
                self.want_worker(*number);
            } else {
                self.release_held(*number, None);
                self.end_session_if_unused(*number);
            }
        }
    }
}

/// Refuses an operation on an object of another user, unless the caller may administer. A caller without a
/// user is the server itself.
pub(crate) fn check_owner(caller: &Caller, owner: Option<&str>, what: &'static str) -> Result<(), Error> {
    let (Some(user), Some(owner)) = (caller.user.as_deref(), owner) else { return Ok(()) };
    if user == owner || caller.administers {
        return Ok(());
    }
    Err(Error::NotOwner { user: user.to_owned(), what, owner: owner.to_owned() })
}
