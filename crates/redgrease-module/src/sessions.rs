//! Sessions: what one `RG.PYEXECUTE` made, from its script to its last registration.

use std::rc::Rc;

use redgrease_core::command::PyExecute;
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::ToWorker;
use redgrease_core::id::{Database, ExecutionNo, PlanNo, RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::plan::{Mode, Trigger};
use redgrease_core::pool::Owner;
use redgrease_core::registration::Registration;
use redgrease_ffi::{BlockedClient, CallOptions, Invocation, LogLevel};

use crate::engine::{Engine, UserName, engine};
use crate::reply;
use crate::runs::Outcome;
use crate::supervisor::Chain;
use crate::worker::Worker;

/// Sessions that may wait for a worker.
const WAITING_MAX: usize = 10_000;

/// The longest time that a script waits for a worker, in milliseconds.
const WAITING_MS_MAX: u64 = 60_000;

/// Registrations of one session.
const REGISTRATIONS_MAX: usize = 10_000;

/// Executions of one session that have not ended.
const LIVE_MAX: usize = 100_000;

/// Pause before a session with registrations asks for a worker again, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// Time that more than one idle worker is kept, in milliseconds.
const IDLE_MS: u64 = 3000;

/// Deaths of a session's worker in a row after which it is not rebuilt any more.
const DEATHS_MAX: u32 = 5;

/// A script that has not ended.
pub struct Script {
    source: Vec<u8>,
    client: BlockedClient,
    unblocking: bool,
    tagged: bool,
    run: Option<ExecutionNo>,
    pending: Vec<(RegistrationNo, Registration)>,
    replaces: Option<SessionNo>,
}

/// A session.
pub struct Session {
    /// Its id, as users see it.
    pub name: String,
    /// Free text.
    pub description: Option<Vec<u8>>,
    /// Whom its scripts and registered functions act as.
    pub user: UserName,
    /// The database of the client that ran its script: what the script does outside of executions is done there.
    pub database: Database,
    /// Requirements as given.
    pub requirements: Vec<String>,
    /// What workers of this session must share: the set of requirements.
    pub environment: String,
    /// Where the requirements are installed.
    pub paths: Vec<String>,
    /// Its worker.
    pub worker: Option<WorkerNo>,
    /// It owns registrations.
    pub registered: bool,
    /// Its executions that have not ended.
    pub live: usize,
    /// Executions that wait until it has a worker again.
    pub held: Vec<ExecutionNo>,
    /// Why it cannot be rebuilt.
    pub broken: Option<String>,
    script: Option<Script>,
    blobs: Vec<Vec<u8>>,
    restoring: bool,
    /// Deaths of its worker since the last execution that ended by itself.
    pub deaths: u32,
}

impl Session {
    /// Whether its script is still running.
    pub fn runs_script(&self) -> bool {
        self.script.is_some()
    }

    /// Whether the client that waits for its script has left.
    pub fn client_is_gone(&self) -> bool {
        self.script.as_ref().is_some_and(|script| script.client.is_gone())
    }

    /// Whose workers may serve it.
    pub fn owner(&self) -> Owner {
        Owner { user: self.user.to_string(), environment: self.environment.clone() }
    }

    /// Whether its functions can be run now.
    pub fn is_up(&self) -> bool {
        self.worker.is_some() && !self.restoring
    }
}

impl Engine {
    /// `RG.PYEXECUTE`.
    pub fn py_execute(&self, invocation: &Invocation<'_>, command: &PyExecute<'_>, tagged: bool) {
        let client = invocation.reply();
        if let Err(reason) = self.accept_script(invocation.user().as_deref(), command) {
            return client.error(&reason);
        }
        let Some(blocked) = invocation.block() else {
            return client.error("Can not run gears inside a multi exec, lua, or when blocking is not allowed");
        };
        let number = self.new_session_number();
        let name = command.id.map_or_else(|| random_id(number), str::to_owned);
        let replaces = command.replace_with.map(|old| String::from_utf8_lossy(old).into_owned());
        let replaces =
            replaces.or_else(|| command.upgrade.then(|| name.clone())).and_then(|old| self.session_named(&old));
        let user: UserName = invocation.user().unwrap_or_else(|| "default".to_owned()).into();
        let requirements: Vec<String> =
            command.requirements.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        let session = Session {
            name,
            description: command.description.map(<[u8]>::to_vec),
            user,
            database: Database(invocation.database()),
            environment: crate::requirements::environment(&requirements),
            requirements,
            paths: Vec::new(),
            worker: None,
            registered: false,
            live: 0,
            held: Vec::new(),
            broken: None,
            script: Some(Script {
                source: command.script.to_vec(),
                client: blocked,
                unblocking: command.unblocking,
                tagged,
                run: None,
                pending: Vec::new(),
                replaces,
            }),
            blobs: Vec::new(),
            restoring: false,
            deaths: 0,
        };
        let environment = session.environment.clone();
        let requirements = session.requirements.clone();
        self.sessions.borrow_mut().insert(number, session);
        if environment.is_empty() {
            self.want_worker(number);
        } else {
            self.install_requirements(number, &environment, &requirements, command.force_reinstall);
        }
    }

    fn accept_script(&self, caller: Option<&str>, command: &PyExecute<'_>) -> Result<(), String> {
        if let Err(reason) = &self.python {
            return Err(format!("NOPYTHON {reason}"));
        }
        if let Some(id) = command.id
            && self.session_named(id).is_some()
        {
            if let Some(old) = command.replace_with {
                let old = String::from_utf8_lossy(old);
                return Err(format!("Can not replace an existing session {id} with {old}"));
            }
            if !command.upgrade {
                return Err(format!("Session {id} already exists"));
            }
        }
        if let Some(old) = command.replace_with {
            let old = String::from_utf8_lossy(old);
            if self.session_named(&old).is_none() {
                return Err(format!("Can not replace with {old}, session does not exists."));
            }
        }
        let replaced = command.replace_with.map(|old| String::from_utf8_lossy(old).into_owned());
        let replaced = replaced.or_else(|| command.id.filter(|_| command.upgrade).map(str::to_owned));
        if let Some(replaced) = replaced.and_then(|name| self.session_named(&name)) {
            let owner = self.sessions.borrow().get(&replaced).map(|session| Rc::clone(&session.user));
            self.check_owner(caller, owner.as_deref(), "replace the session")?;
        }
        Ok(())
    }

    /// The session with that id, among those that own registrations.
    fn session_named(&self, name: &str) -> Option<SessionNo> {
        let sessions = self.sessions.borrow();
        sessions.iter().find(|(_, session)| session.registered && session.name == name).map(|(number, _)| *number)
    }

    /// The requirements of a session are installed, or are not available.
    pub fn installed(&self, number: SessionNo, result: Result<Vec<String>, String>) {
        match result {
            Ok(paths) => {
                if let Some(session) = self.sessions.borrow_mut().get_mut(&number) {
                    session.paths = paths;
                }
                self.want_worker(number);
            }
            Err(reason) => self.session_without_worker(number, &reason),
        }
    }

    /// Puts a session into the queue for workers.
    fn want_worker(&self, number: SessionNo) {
        if self.waiting.borrow().len() >= WAITING_MAX {
            return self.session_without_worker(
                number,
                &format!("WORKERBUSY more than {WAITING_MAX} scripts wait for a worker"),
            );
        }
        self.waiting.borrow_mut().push_back(number);
        self.serve_waiting();
        if !self.waiting.borrow().contains(&number) {
            return;
        }
        self.server.after_ms(WAITING_MS_MAX, move || {
            let Some(engine) = engine() else { return };
            let before = engine.waiting.borrow().len();
            engine.waiting.borrow_mut().retain(|other| *other != number);
            if engine.waiting.borrow().len() < before {
                let reason = engine.start_error.borrow().clone().unwrap_or_else(|| {
                    format!(
                        "WORKERBUSY no worker became free within {WAITING_MS_MAX} ms: all of MaxWorkers ({}) serve other \
                         users, other requirements or registrations; raise it or unregister what is not needed",
                        engine.config.workers_max
                    )
                });
                engine.session_without_worker(number, &reason);
            }
        });
    }

    /// A session gets no worker: its script fails, its registrations are reported as broken.
    pub fn session_without_worker(&self, number: SessionNo, reason: &str) {
        let script = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get_mut(&number) else { return };
            session.script.take()
        };
        match script {
            Some(script) => {
                self.fail_script(script, reason);
                self.sessions.borrow_mut().remove(&number);
            }
            None => {
                // Registrations stay: the session goes on waiting, what waited with it does not.
                self.release_held(number, Some(reason));
                self.want_worker_again(number);
            }
        }
    }

    /// A session with registrations asks for a worker again after a while, for ever: its registrations are not lost.
    fn want_worker_again(&self, number: SessionNo) {
        self.server.after_ms(AGAIN_MS, move || {
            let Some(engine) = engine() else { return };
            let wants = engine
                .sessions
                .borrow()
                .get(&number)
                .is_some_and(|session| session.registered && session.worker.is_none() && session.broken.is_none());
            if wants && !engine.waiting.borrow().contains(&number) {
                engine.want_worker(number);
            }
        });
    }

    /// Executions that waited for a worker: sent on, or ended with an error if there will be none.
    fn release_held(&self, number: SessionNo, reason: Option<&str>) {
        let (held, broken) = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get_mut(&number) else { return };
            (std::mem::take(&mut session.held), reason.map(str::to_owned).or_else(|| session.broken.clone()))
        };
        for execution in held {
            match &broken {
                Some(reason) => self.end_with_error(execution, reason),
                None => self.enqueue(execution),
            }
        }
    }

    fn fail_script(&self, script: Script, reason: &str) {
        if let Some(execution) = script.run {
            self.discard(execution);
        }
        let reason = reason.to_owned();
        script.client.answer(move |client| reply::user_error(client, reason.as_bytes()));
    }

    /// A session was given a worker: its script, or what it registered, goes there.
    pub fn session_got_worker(&self, number: SessionNo, worker_number: WorkerNo) {
        let Some(worker) = self.worker(worker_number) else { return };
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&number) else { return };
        session.worker = Some(worker_number);
        *worker.session_name.borrow_mut() = session.name.clone();
        let paths = session.paths.iter().map(String::as_str).collect();
        self.limit_script(number);
        if let Some(script) = &session.script {
            self.send(
                &worker,
                &ToWorker::Script {
                    request: number.0,
                    session: number.0,
                    name: &session.name,
                    source: &script.source,
                    paths,
                    traceback: self.config.traceback,
                },
            );
        } else {
            session.restoring = true;
            let blobs = session.blobs.iter().map(Vec::as_slice).collect();
            self.send(
                &worker,
                &ToWorker::Restore { request: number.0, session: number.0, name: &session.name, blobs, paths },
            );
        }
    }

    /// A script that runs too long is ended with its worker: nothing else could end it.
    fn limit_script(&self, number: SessionNo) {
        let limit = self.config.script_time_max.as_millis() as u64;
        self.server.after_ms(limit, move || {
            let Some(engine) = engine() else { return };
            let worker = match engine.sessions.borrow().get(&number) {
                Some(session) if session.script.is_some() || session.restoring => session.worker,
                _ => None,
            };
            if let Some(worker) = worker.and_then(|worker| engine.worker(worker)) {
                let reason = format!("was killed: a script ran longer than ScriptMaxTime ({limit} ms)");
                engine.end_worker(&worker, Some(&reason));
            }
        });
    }

    /// A script, or the rebuilding of a session, ended in its worker.
    pub fn script_done(&self, worker: &Rc<Worker>, number: SessionNo, error: Option<&str>, blob: &[u8]) {
        let error = error.map(|error| String::from_utf8_lossy(&cut_error(error.as_bytes())).into_owned());
        let error = error.as_deref();
        let script = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get_mut(&number).filter(|session| session.worker == Some(worker.number))
            else {
                return;
            };
            if session.restoring {
                session.restoring = false;
                session.broken = error.map(|error| format!("BROKEN the session could not be rebuilt: {error}"));
                None
            } else if session.script.is_some() {
                session.script.take()
            } else {
                return;
            }
        };
        let Some(mut script) = script else { return self.rebuilt(worker, number) };
        if let Some(error) = error {
            self.fail_script(script, error);
            return self.end_session(number);
        }
        let run = script.run.take();
        if script.pending.is_empty() {
            match run {
                None => {
                    script.client.answer(|client| client.simple("OK"));
                    self.end_session_if_unused(number);
                }
                Some(execution) => {
                    self.begin_run(execution, script);
                    self.end_session_if_unused(number);
                }
            }
            return;
        }
        if let Err(reason) = self.verify_again(&script) {
            script.run = run;
            self.fail_script(script, &reason);
            return self.end_session(number);
        }
        self.register_all(worker, number, script, blob);
        if let Some(execution) = run {
            self.begin(execution);
        }
    }

    fn rebuilt(&self, worker: &Rc<Worker>, number: SessionNo) {
        let broken = self.sessions.borrow().get(&number).and_then(|session| session.broken.clone());
        if let Some(reason) = &broken {
            self.server.log(LogLevel::Warning, &format!("rg: {reason}"));
        } else {
            self.server.log(
                LogLevel::Notice,
                &format!("rg: session rebuilt in worker {} (pid {})", worker.number, worker.pid()),
            );
            let registrations = self.registrations.borrow().of_session(number);
            self.announce(worker, &registrations);
            self.streams_revived(&registrations);
        }
        self.release_held(number, None);
    }

    fn announce(&self, worker: &Worker, registrations: &[RegistrationNo]) {
        let plans: Vec<PlanNo> =
            registrations.iter().filter_map(|number| Some(self.registrations.borrow().get(*number)?.plan)).collect();
        for plan in plans {
            self.send(worker, &ToWorker::Registered { plan: plan.0 });
        }
    }

    fn begin_run(&self, execution: ExecutionNo, script: Script) {
        if !self.live.borrow().contains_key(&execution) {
            // Aborted while the script was still running.
            let outcome = self.executions.borrow_mut().take(execution).map(|execution| Outcome {
                status: execution.status(),
                style: execution.style,
                results: execution.results,
                errors: execution.errors,
            });
            return script.client.answer(move |client| match &outcome {
                Some(outcome) => reply::outcome(client, outcome),
                None => client.error("ERR the execution was aborted"),
            });
        }
        if script.unblocking {
            let id = self.shard.identifier(execution.0);
            script.client.answer(move |client| client.bulk(id.as_bytes()));
        } else {
            let mut client = script.client;
            client.measure_start();
            self.drop_at_end(execution);
            self.on_end(execution, move |_, outcome| {
                client.answer(move |client| reply::outcome(client, &outcome));
            });
        }
        self.begin(execution);
    }

    /// Another script may have taken a name since this one asked.
    fn verify_again(&self, script: &Script) -> Result<(), String> {
        let registrations = self.registrations.borrow();
        let replaced = |number| {
            script.replaces.is_some() && registrations.get(number).map(|found| found.session) == script.replaces
        };
        script.pending.iter().try_for_each(|(_, registration)| {
            registrations.verify(&registration.trigger, [], replaced).map_err(|error| error.to_string())
        })
    }

    /// The registration operation (`EXE-REGOP-01`): the old session goes and the new one comes in one step.
    fn register_all(&self, worker: &Rc<Worker>, number: SessionNo, script: Script, blob: &[u8]) {
        self.executions.borrow_mut().skip_number();
        let mut script = script;
        if let Some(old) = script.replaces {
            self.resume_groups(old, &mut script.pending);
            let registrations = self.registrations.borrow().of_session(old);
            for registration in registrations {
                self.remove_registration(registration, true);
            }
        }
        let numbers: Vec<RegistrationNo> = script.pending.iter().map(|(number, _)| *number).collect();
        if let Some(session) = self.sessions.borrow_mut().get_mut(&number) {
            session.registered = true;
            session.blobs.push(blob.to_vec());
        }
        for (registration_number, registration) in script.pending {
            self.add_registration(registration_number, registration);
        }
        self.announce(worker, &numbers);
        self.streams_registered(&numbers);
        script.client.answer(|client| client.simple("OK"));
    }

    /// The `run` action of a script or function.
    pub fn run_action(&self, worker: &Rc<Worker>, caller: Chain, plan: PlanNo, spec: &[u8]) -> Result<String, String> {
        let spec = self.plan(spec)?;
        let reader = spec.run_reader().map_err(|error| error.to_string())?;
        if spec.mode == Mode::Sync {
            return Err("unknown execution mode".into());
        }
        self.refuse_all_shards(spec.mode)?;
        let (user, style) = {
            let sessions = self.sessions.borrow();
            let session = sessions.get(&caller.session).ok_or("NOSESSION the session has ended")?;
            if session.worker != Some(worker.number) {
                return Err("NOSESSION the session lives in another worker".into());
            }
            let tagged = session.script.as_ref().is_some_and(|script| script.tagged);
            if session.live >= LIVE_MAX {
                return Err(format!("TOOMANY more than {LIVE_MAX} executions of the session have not ended"));
            }
            if session.script.as_ref().is_some_and(|script| script.run.is_some()) && caller.exec.is_none() {
                return Err("Can not run more then 1 executions in a single script".into());
            }
            (Rc::clone(&session.user), if tagged { spec.style.tagged() } else { spec.style })
        };
        let user = caller.exec.and_then(|exec| Some(Rc::clone(&self.live.borrow().get(&exec)?.user))).unwrap_or(user);
        self.registrations.borrow_mut().take_number();
        let database = self.database_of(caller);
        let execution = self.new_run(caller.session, plan, spec, reader, (user, database), style);
        let mut of_script = false;
        if caller.exec.is_none()
            && let Some(session) = self.sessions.borrow_mut().get_mut(&caller.session)
            && let Some(script) = &mut session.script
        {
            script.run = Some(execution);
            of_script = true;
        }
        if !of_script {
            self.drop_at_end(execution);
            self.begin(execution);
        }
        Ok(self.shard.identifier(execution.0))
    }

    /// The `register` action of a script or function.
    pub fn register_action(
        &self,
        worker: &Rc<Worker>,
        caller: Chain,
        plan: PlanNo,
        spec: &[u8],
        blob: &[u8],
    ) -> Result<String, String> {
        let spec = self.plan(spec)?;
        let trigger = spec.trigger().map_err(|error| error.to_string())?;
        if !matches!(trigger, Trigger::Command { .. }) {
            self.refuse_all_shards(spec.mode)?;
        }
        let facts = |name: &str| self.command_facts(&[name.as_bytes()]);
        let reads = |name: &str| facts(name).is_some_and(|facts| facts.of_call(&[name.as_bytes()]).reads);
        spec.check_events(&trigger, |name| facts(name).is_some(), reads).map_err(|error| error.to_string())?;
        let database = self.database_of(caller);
        if let Some(user) = self.user_of(caller) {
            self.check_trigger(&user, &trigger)?;
        }
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get_mut(&caller.session).ok_or("NOSESSION the session has ended")?;
        if session.worker != Some(worker.number) {
            return Err("NOSESSION the session lives in another worker".into());
        }
        {
            let registrations = self.registrations.borrow();
            let script = session.script.as_ref();
            let count = script.map_or(session.blobs.len(), |script| script.pending.len());
            if count >= REGISTRATIONS_MAX {
                return Err(format!("TOOMANY a session has at most {REGISTRATIONS_MAX} registrations"));
            }
            let pending = script
                .into_iter()
                .flat_map(|script| script.pending.iter().map(|(_, registration)| &registration.trigger));
            let old = script.and_then(|script| script.replaces);
            let replaced =
                |number| old.is_some() && registrations.get(number).map(|registration| registration.session) == old;
            registrations.verify(&trigger, pending, replaced).map_err(|error| error.to_string())?;
        }
        let number = {
            let mut registrations = self.registrations.borrow_mut();
            registrations.take_number();
            registrations.take_number()
        };
        let registration = Registration::new(caller.session, database, plan, spec, trigger);
        let identifier = self.shard.identifier(number.0);
        if let Some(script) = &mut session.script {
            script.pending.push((number, registration));
            return Ok(identifier);
        }
        session.registered = true;
        session.blobs.push(blob.to_vec());
        drop(sessions);
        self.executions.borrow_mut().skip_number();
        self.add_registration(number, registration);
        self.announce(worker, &[number]);
        self.streams_registered(&[number]);
        Ok(identifier)
    }

    /// Whether this server is one of several shards of a cluster.
    pub fn has_other_shards(&self) -> bool {
        let size = || {
            let reply = self.server.call(&[b"cluster", b"info"], CallOptions::default()).ok()?;
            let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
            text.lines().find_map(|line| line.strip_prefix("cluster_size:")?.parse::<u64>().ok())
        };
        self.server.flags().cluster() && size().is_none_or(|size| size > 1)
    }

    /// Refuses what is meant for all shards where there are others: an answer for one part of the data would look like
    /// an answer for all of it.
    fn refuse_all_shards(&self, mode: Mode) -> Result<(), String> {
        if mode != Mode::Async || !self.has_other_shards() {
            return Ok(());
        }
        Err("CLUSTERMODE functions over all shards of a cluster are not available in this version: use \
             mode='async_local' on each shard and combine the results"
            .into())
    }

    /// Stream registrations that replace those of a session go on where these stopped.
    fn resume_groups(&self, replaced: SessionNo, pending: &mut [(RegistrationNo, Registration)]) {
        let mut taken = Vec::new();
        for (_, registration) in pending {
            let Trigger::Stream { filter, .. } = &registration.trigger else { continue };
            let registrations = self.registrations.borrow();
            let resumed = registrations.group_to_resume(replaced, registration.database, filter, &taken);
            if let Some(group) = resumed {
                taken.push(group.clone());
                registration.group = group;
            }
        }
    }

    fn add_registration(&self, number: RegistrationNo, mut registration: Registration) {
        if let Trigger::Stream { filter, .. } = &registration.trigger
            && registration.group.is_empty()
        {
            let own = || format!("{}:{}", self.shard.identifier(number.0), self.run_id);
            registration.group = self.registrations.borrow().stream_group(registration.database, filter, own);
        }
        self.registrations.borrow_mut().add(number, registration);
        if self.registrations.borrow().wants_sync_events()
            && let Err(reason) = self.server.watch_commands(crate::events::command_begins)
        {
            self.server.log(LogLevel::Warning, &format!("rg: {reason}"));
        }
        if self.registrations.borrow().wants_events()
            && !self.subscribed.replace(true)
            && let Err(reason) =
                self.server.subscribe_keyspace(crate::events::key_changed, crate::events::stream_changed)
        {
            self.server.log(LogLevel::Warning, &format!("rg: {reason}"));
        }
    }

    /// Takes a registration out. What its events fired and has not begun is aborted: nothing fires after the reply.
    /// Triggers that clients wait for are run, unless `abort_triggers`.
    pub fn remove_registration(&self, number: RegistrationNo, abort_triggers: bool) {
        let command = match self.registrations.borrow().get(number).map(|registration| &registration.trigger) {
            Some(Trigger::Command { .. }) => true,
            Some(_) => false,
            None => return,
        };
        // First of all, so that no end of an execution starts another one.
        let streams = self.streams.borrow_mut().remove(&number);
        if abort_triggers || !command {
            self.abort_pending(number);
        }
        let Some(registration) = self.registrations.borrow_mut().remove(number) else { return };
        if !self.registrations.borrow().wants_sync_events() {
            self.server.unwatch_commands();
        }
        for execution in registration.finished() {
            let _ = self.executions.borrow_mut().drop_finished(execution);
        }
        if let Some(streams) = streams {
            self.stream_unregistered(&streams.source);
        }
        let session = registration.session;
        let last = self.registrations.borrow().of_session(session).is_empty();
        if last && let Some(session) = self.sessions.borrow_mut().get_mut(&session) {
            session.registered = false;
        }
        let worker = self.sessions.borrow().get(&session).and_then(|session| session.worker);
        if !last
            && let Some(worker) = worker.and_then(|worker| self.worker(worker))
            && !self.plan_in_use(registration.plan)
        {
            self.send(&worker, &ToWorker::ForgetPlans { plans: vec![registration.plan.0] });
        }
        if last {
            self.end_session_if_unused(session);
        }
    }

    /// An execution of a session began or ended.
    pub fn session_use(&self, number: SessionNo, change: isize) {
        if let Some(session) = self.sessions.borrow_mut().get_mut(&number) {
            session.live = session.live.saturating_add_signed(change);
        }
        if change < 0 {
            self.end_session_if_unused(number);
        }
    }

    fn end_session_if_unused(&self, number: SessionNo) {
        let unused = self
            .sessions
            .borrow()
            .get(&number)
            .is_some_and(|session| session.live == 0 && !session.registered && session.script.is_none());
        if unused {
            self.end_session(number);
        }
    }

    /// Forgets a session; its worker goes back to the pool.
    fn end_session(&self, number: SessionNo) {
        let Some(session) = self.sessions.borrow_mut().remove(&number) else { return };
        self.waiting.borrow_mut().retain(|other| *other != number);
        let Some(worker) = session.worker.and_then(|worker| self.worker(worker)) else { return };
        self.finish_output(&worker);
        self.send(&worker, &ToWorker::ForgetSession { session: number.0 });
        let retired = self.pool.borrow_mut().release(number, self.now_ms()).is_some();
        let unused = self.pool.borrow().is_unused(worker.number);
        let grown =
            unused && crate::memory::resident_and_peak_bytes(worker.pid()).0 > self.config.worker_idle_bytes_max;
        if retired || grown {
            self.dismiss(&worker);
        }
        if !self.waiting.borrow().is_empty() || retired || grown {
            self.serve_waiting();
        }
        self.trim_later();
    }

    /// Looks a while later whether there are more idle workers than are needed.
    fn trim_later(&self) {
        if self.pool.borrow().spare_count() <= 1 || self.trimming.replace(true) {
            return;
        }
        self.server.after_ms(IDLE_MS, || {
            let Some(engine) = engine() else { return };
            engine.trimming.set(false);
            loop {
                let superfluous = engine.pool.borrow().superfluous(engine.now_ms(), IDLE_MS);
                let Some(worker) = superfluous.and_then(|number| engine.worker(number)) else { break };
                engine.dismiss(&worker);
            }
            engine.serve_waiting();
            engine.trim_later();
        });
    }

    /// The sessions of a worker that is gone: scripts fail, sessions with registrations are rebuilt elsewhere.
    pub fn sessions_lost(&self, sessions: &[SessionNo], head: &str) {
        for number in sessions {
            let script = {
                let mut sessions = self.sessions.borrow_mut();
                let Some(session) = sessions.get_mut(number) else { continue };
                session.worker = None;
                session.restoring = false;
                session.script.take()
            };
            if let Some(script) = script {
                self.fail_script(script, &format!("WORKERDIED {head} while it ran the script"));
                self.sessions.borrow_mut().remove(number);
                continue;
            }
            let rebuild = {
                let mut sessions = self.sessions.borrow_mut();
                let Some(session) = sessions.get_mut(number) else { continue };
                session.deaths += 1;
                if session.registered && session.deaths > DEATHS_MAX {
                    session.broken = Some(format!(
                        "WORKERDOWN the session's worker died {DEATHS_MAX} times without finishing an execution, last: {head}"
                    ));
                }
                if !session.registered {
                    // What was not sent to the worker has nowhere to go.
                    session.broken = Some(format!("WORKERDIED {head} before the execution began"));
                }
                session.registered && session.broken.is_none()
            };
            if rebuild {
                self.want_worker(*number);
            } else {
                self.release_held(*number, None);
                self.end_session_if_unused(*number);
            }
        }
    }
}

/// Forty hexadecimal digits.
pub fn random_id(number: SessionNo) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let digits = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(number.0);
        hasher.finish()
    };
    let mut text = format!("{:016x}{:016x}{:016x}", digits(), digits(), digits());
    text.truncate(40);
    text
}
