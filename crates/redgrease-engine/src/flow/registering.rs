//! The `run` and `register` actions: of scripts and functions, and of clients that send a function.

use core::cell::RefCell;

use redgrease_core::id::{Database, ExecutionNo, Identifier, PlanNo};
use redgrease_core::plan::{Mode, PlanSpec, Trigger};

use crate::asked::{Asked, RegisterRequest, RunRequest};
use crate::calls::caller::{Caller, Requester};
use crate::effect::Question;
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::calls::text;
use crate::input::UserName;
use crate::limits::{LIVE_PER_SESSION_MAX, REGISTRATIONS_PER_SESSION_MAX, WORKER_AGAIN_MS};
use crate::prelude::*;
use crate::registrations::registry::Registration;
use crate::sessions::session::Session;
use redgrease_core::policy::CommandFacts;

impl Engine {
    /// The `run` action.
    pub(crate) fn run_action(&mut self, requester: Requester, plan: PlanNo, spec: &[u8], pickle: &[u8]) {
        let request = PlanSpec::decode(spec).map_err(|error| error.to_string()).and_then(|spec| {
            let reader = spec.run_reader().map_err(|error| error.to_string())?;
            if !spec.mode.can_run() {
                return Err(Error::UnknownMode.into());
            }
            Ok(RunRequest { requester, plan, spec, reader })
        });
        match request {
            Ok(request) => self.run_or_refuse(request, (spec, pickle)),
            Err(reason) => self.refuse_plan(requester, &reason),
        }
    }

    /// `written` is the encoded plan, and its pickle.
    fn run_or_refuse(&mut self, request: RunRequest, written: (&[u8], &[u8])) {
        let requester = request.requester;
        match self.run_now(request, written) {
            Ok(execution) => self.accept_plan(requester, &self.execution_id(execution).to_string()),
            Err(reason) => self.refuse_plan(requester, &reason),
        }
    }

    fn run_now(&mut self, request: RunRequest, (encoded, pickle): (&[u8], &[u8])) -> Result<ExecutionNo, String> {
        let RunRequest { requester, plan, spec, reader } = request;
        let caller = requester.caller();
        let session = self.session_of(requester)?;
        let tagged = session.script.as_ref().is_some_and(|script| script.tagged);
        if session.live >= LIVE_PER_SESSION_MAX {
            return Err(Error::TooManyExecutions.into());
        }
        if session.script.as_ref().is_some_and(|script| script.run.is_some()) && caller.exec.is_none() {
            return Err(Error::SecondRun.into());
        }
        // User code gets its results as the objects that they are.
        let style =
            if tagged || caller.exec.is_some() || session.script.is_none() { spec.style.tagged() } else { spec.style };
        let user = self.user_of(caller).ok_or(Error::SessionEnded)?;
        let database = self.database_of(caller);
        let for_all = spec.mode == Mode::Async && self.topology.has_several();
        let job = match for_all {
            true => Some(self.job_of_run(requester, plan, encoded, pickle)?),
            false => None,
        };
        self.registrations.take_number();
        let execution = self.new_run((caller.session, plan), spec, reader, (user, database), style);
        if let Some(job) = job {
            self.share_execution(execution, job);
        }
        if caller.exec.is_none()
            && let Some(script) = self.sessions.get_mut(caller.session).and_then(|session| session.script.as_mut())
        {
            script.run = Some(execution);
        } else {
            self.drop_at_end(execution);
            if let Some(live) = self.live.get_mut(&execution) {
                live.nested = true;
            }
            self.begin(execution);
        }
        Ok(execution)
    }

    /// The `register` action.
    pub(crate) fn register_action(&mut self, requester: Requester, plan: PlanNo, spec: &[u8], blob: &[u8]) {
        let encoded = spec;
        let request = PlanSpec::decode(spec).map_err(|error| error.to_string()).and_then(|spec| {
            let trigger = spec.trigger().map_err(|error| error.to_string())?;
            let blob = blob.to_vec();
            Ok(Box::new(RegisterRequest {
                requester,
                plan,
                spec,
                trigger,
                encoded: encoded.into(),
                blob,
                facts: BTreeMap::new(),
                ranges: BTreeMap::new(),
            }))
        });
        match request {
            Ok(request) => self.check_events(request),
            Err(reason) => self.refuse_plan(requester, &reason),
        }
    }

    /// The server's description of a command with the name of an event is known.
    pub(crate) fn command_of_event_known(
        &mut self,
        mut request: Box<RegisterRequest>,
        name: String,
        facts: Option<Rc<CommandFacts>>,
    ) {
        request.facts.insert(name, facts);
        self.check_events(request);
    }

    /// Refuses events that never fire; this needs the server's description of commands that have their names.
    fn check_events(&mut self, request: Box<RegisterRequest>) {
        // The rules may refer to any command: unknown ones are requested one by one, and the check is repeated.
        let missing = RefCell::new(None);
        let facts = |name: &str| {
            let known = self.facts.of(name.as_bytes());
            let known = known.map(Some).or_else(|| request.facts.get(name).cloned());
            known.unwrap_or_else(|| {
                missing.borrow_mut().get_or_insert_with(|| name.to_owned());
                None
            })
        };
        let reads = |name: &str| facts(name).is_some_and(|facts| facts.of_call(&[name.as_bytes()]).reads);
        let checked = request.spec.check_events(&request.trigger, |name| facts(name).is_some(), reads);
        if let Some(name) = missing.into_inner() {
            let about = Question::Command(name.as_bytes().to_ascii_lowercase());
            return self.ask(about, Asked::CommandOfEvent { request, name });
        }
        match checked {
            Ok(()) => self.check_permission(request),
            Err(error) => self.refuse_plan(request.requester, &error.to_string()),
        }
    }

    /// Refuses a registration for keys that its user may not read, or for streams that it may not consume. A filter with a
    /// pattern names no key: each key is checked when it is read.
    fn check_permission(&mut self, request: Box<RegisterRequest>) {
        let Some(user) = self.user_of(request.requester.caller()) else { return self.check_hooks(request) };
        let about = match &request.trigger {
            Trigger::Keys { filter, .. } => filter.fixed().map(|key| Question::MayRead { user, key: key.to_vec() }),
            Trigger::Stream { filter, trim, .. } => {
                filter.fixed().map(|key| Question::MayConsume { user, key: key.to_vec(), trim: *trim })
            }
            Trigger::Command { .. } | Trigger::Hook { .. } => None,
        };
        match about {
            Some(about) => self.ask(about, Asked::RegisterPermission(request)),
            None => self.check_hooks(request),
        }
    }

    /// Whether the user may use the key is now known.
    pub(crate) fn register_permission(&mut self, request: Box<RegisterRequest>, permission: Result<(), String>) {
        match permission {
            Ok(()) => self.check_hooks(request),
            Err(reason) => self.refuse_plan(request.requester, &reason),
        }
    }

    pub(crate) fn register_now(&mut self, request: RegisterRequest) {
        let requester = request.requester;
        match self.register(request) {
            Ok(id) => self.accept_plan(requester, &id),
            Err(reason) => self.refuse_plan(requester, &reason),
        }
    }

    fn register(&mut self, request: RegisterRequest) -> Result<String, String> {
        let RegisterRequest { requester, plan, spec, trigger, encoded, blob, ranges, .. } = request;
        let number = requester.caller().session;
        let database = self.database_of(requester.caller());
        let session = self.session_of(requester)?;
        let worker = session.worker();
        let script = session.script.as_ref();
        if self.at.server.refuses_writes() {
            return Err(Error::RegistrationsOfReplica.into());
        }
        if script.is_none() && self.at.server.paused {
            return Err(Error::Paused.into());
        }
        let count = script.map_or(session.stored.functions.len(), |script| script.pending.len());
        if count >= REGISTRATIONS_PER_SESSION_MAX {
            return Err(Error::TooManyRegistrations.into());
        }
        let pending =
            script.into_iter().flat_map(|script| script.pending.iter().map(|(_, registration)| &registration.trigger));
        let old = script.and_then(|script| script.replaces);
        let replaced = |number| self.registrations.is_replaced(number, old);
        self.registrations.verify(&trigger, pending, replaced).map_err(|error| error.to_string())?;
        self.registrations.take_number();
        let registration_number = self.registrations.take_number();
        let id = Identifier { shard: self.shard, counter: registration_number.0 };
        let mut registration = Registration::new(id, number, database, plan, spec, trigger);
        registration.ranges = ranges;
        registration.encoded = encoded;
        let identifier = id.to_string();
        if let Some(script) = self.sessions.get_mut(number).and_then(|session| session.script.as_mut()) {
            script.pending.push((registration_number, registration));
            return Ok(identifier);
        }
        self.store_functions(worker, number, &blob);
        self.executions.skip_number();
        self.add_registration(registration_number, registration);
        if let Some(worker) = worker {
            self.announce(worker, &[registration_number]);
        }
        self.follow_streams(&[registration_number]);
        self.replicate_session(number, None);
        Ok(identifier)
    }

    /// The session of a plan, if the request comes from its worker.
    fn session_of(&self, requester: Requester) -> Result<&Session, Error> {
        let session = self.sessions.get(requester.caller().session).ok_or(Error::SessionEnded)?;
        match requester {
            Requester::Call(call) if session.worker() != Some(call.worker) => Err(Error::SessionElsewhere),
            _ => Ok(session),
        }
    }

    /// A plan was accepted; `id` is that of its execution or registration.
    fn accept_plan(&mut self, requester: Requester, id: &str) {
        match requester {
            Requester::Call(call) => self.answer_call(&call, Ok(text(id))),
            Requester::Client(session) => self.function_accepted(session),
        }
    }

    pub(crate) fn refuse_plan(&mut self, requester: Requester, reason: &str) {
        match requester {
            Requester::Call(call) => self.answer_call(&call, Err(reason.to_owned())),
            Requester::Client(session) => self.session_without_worker(session, reason, WORKER_AGAIN_MS),
        }
    }

    /// The user that a caller acts as.
    pub(crate) fn user_of(&self, caller: Caller) -> Option<UserName> {
        let of_execution = caller.exec.and_then(|exec| Some(Rc::clone(&self.live.get(&exec)?.user)));
        of_execution.or_else(|| Some(Rc::clone(&self.sessions.get(caller.session)?.user)))
    }

    /// The database of a caller: that of its execution, or of the client that ran its script.
    pub(crate) fn database_of(&self, caller: Caller) -> Database {
        let of_execution = caller.exec.and_then(|exec| Some(self.live.get(&exec)?.database));
        let of_script = || Some(self.sessions.get(caller.session)?.database);
        of_execution.or_else(of_script).unwrap_or_default()
    }
}
