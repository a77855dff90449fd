//! Commands of clients that functions replace (hooks), or whose clients wait for the functions of their events.

use redgrease_core::codec::Writer;
use redgrease_core::id::{ExecutionNo, RegistrationNo};
use redgrease_core::plan::{Mode, Trigger};
use redgrease_core::policy::check_hook;
use redgrease_core::render::{Answers, Reply, Style, one_line, records};

use crate::asked::{Asked, RegisterRequest};
use crate::calls::caller::PendingCall;
use crate::clients::Client;
use crate::effect::{Answer, Argv, Effect, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::events::interceptions::Intercepted;
use crate::events::pending::KeyEvent;
use crate::executions::live::{Source, Waiter};
use crate::executions::outcome::Outcome;
use crate::input::{Actor, Caller, Inside, UserName};
use crate::prelude::*;
use crate::registrations::hooks::{HookedCall, Keys, Kind};
use crate::step::Next;

impl Engine {
    /// Whether a call of a client is one that the engine handles: called for each command.
    #[must_use]
    pub fn hooks_call(&self, args: &[&[u8]]) -> bool {
        self.registrations.hooks.is_hooked(args)
    }

    /// A client called a command that is hooked.
    pub(crate) fn hooked(&mut self, client: Client, caller: &Caller, args: &[&[u8]]) {
        match self.registrations.hooks.function(args, None) {
            Some(registration) => {
                let Some(user) = caller.user.clone() else {
                    return self.replace_call(client, caller, registration, args);
                };
                let asked =
                    Asked::UserOfHookedCall { client, caller: caller.clone(), registration, argv: Argv::new(args) };
                self.ask(Question::MayRun { user, argv: Argv::new(args) }, asked);
            }
            None => self.intercept(client, caller, args),
        }
    }

    /// Whether the user may call the command is now known.
    pub(crate) fn user_of_hooked_call(
        &mut self,
        client: Client,
        caller: &Caller,
        registration: RegistrationNo,
        argv: &Argv,
        permission: Result<(), String>,
    ) {
        match permission {
            Ok(()) => self.replace_call(client, caller, registration, &argv.args()),
            Err(reason) => self.reply(client, Reply::Error(one_line(reason.as_bytes()))),
        }
    }

    /// Runs a function instead of a command of a client.
    fn replace_call(&mut self, client: Client, caller: &Caller, registration: RegistrationNo, args: &[&[u8]]) {
        let hooked = HookedCall {
            registration,
            name: args.first().copied().unwrap_or_default().to_vec(),
            actor: Actor { user: actor_name(caller), database: caller.database },
        };
        self.trigger_registration(client, caller, registration, args, (false, Some(hooked)));
    }

    /// Runs a command of a client, and waits for the functions of the events that it fires.
    fn intercept(&mut self, client: Client, caller: &Caller, args: &[&[u8]]) {
        let number = self.interceptions.counter.next();
        let (client_no, argv) = (client.number(), Argv::new(args));
        let intercepted = Intercepted {
            client,
            argv: argv.clone(),
            registrations: self.registrations.hooks.events(args),
            can_wait: caller.inside == Inside::Nothing,
            done: false,
            blocked: false,
            events: Vec::new(),
            running: BTreeSet::new(),
            reply: None,
        };
        let before = self.interceptions.current.replace(number);
        self.interceptions.all.insert(number, intercepted);
        let actor = Actor { user: actor_name(caller), database: caller.database };
        self.out.push(Effect::RunForClient { client: client_no, argv, actor });
        self.then(Next::CommandIntercepted { number, before });
    }

    /// The command of a client has ended: the sync functions of its events run.
    pub(crate) fn command_intercepted(&mut self, number: u64, before: Option<u64>) {
        self.interceptions.current = before;
        let Some(intercepted) = self.interceptions.all.get_mut(&number) else { return };
        intercepted.done = true;
        for event in core::mem::take(&mut intercepted.events) {
            self.then(Next::RunIntercepted { event, number });
        }
        self.then(Next::AnswerIntercepted(number));
    }

    /// An event of a registration with the option `commands`: it counts only if a client of these commands fired it.
    /// Returns whether it was taken.
    pub(crate) fn intercepted_event(&mut self, registration: RegistrationNo, mode: Mode, event: KeyEvent) {
        let Some(number) = self.interceptions.current else { return };
        let Some(intercepted) = self.interceptions.all.get_mut(&number) else { return };
        if mode == Mode::Sync {
            return intercepted.events.push(event);
        }
        let can_wait = intercepted.can_wait;
        let Some(execution) = self.event_execution(event) else { return };
        if can_wait {
            self.wait_for_intercepted(number, execution);
        }
        self.fired.push_back(execution);
        let _ = registration;
    }

    /// Runs a sync function of an event.
    pub(crate) fn run_intercepted(&mut self, event: KeyEvent, number: u64) {
        let Some(execution) = self.event_execution(event) else { return };
        let can_wait = self.interceptions.all.get(&number).is_some_and(|intercepted| intercepted.can_wait);
        self.wait_for_intercepted(number, execution);
        self.sync.keys_running += 1;
        self.run_sync(execution, !can_wait);
        self.then(Next::SyncKeyEnded);
    }

    fn wait_for_intercepted(&mut self, number: u64, execution: ExecutionNo) {
        if let Some(intercepted) = self.interceptions.all.get_mut(&number) {
            intercepted.running.insert(execution);
        }
        if let Some(live) = self.live.get_mut(&execution) {
            live.intercepts = Some(number);
        }
    }

    /// An execution that a client waits for has ended.
    pub(crate) fn intercepted_ended(&mut self, number: u64, execution: ExecutionNo) {
        if let Some(intercepted) = self.interceptions.all.get_mut(&number) {
            intercepted.running.remove(&execution);
            if intercepted.blocked {
                self.answer_intercepted(number);
            }
        }
    }

    /// Answers a client if all that it waits for has ended; else it is blocked.
    pub(crate) fn answer_intercepted(&mut self, number: u64) {
        let Some(intercepted) = self.interceptions.all.get_mut(&number) else { return };
        if !intercepted.running.is_empty() && intercepted.can_wait {
            if !core::mem::replace(&mut intercepted.blocked, true) {
                self.out.push(Effect::Block(intercepted.client.number()));
            }
            return;
        }
        let Some(Intercepted { client, reply, .. }) = self.interceptions.all.remove(&number) else { return };
        match reply {
            Some(reply) => self.reply(client, reply),
            None => self.answer(client, Answer::OwnReply),
        }
    }

    /// `get_command()`.
    pub(crate) fn command_asked(&mut self, call: PendingCall) {
        let number = call.caller.exec.and_then(|exec| self.live.get(&exec)?.intercepts);
        let answer = match number.and_then(|number| self.interceptions.all.get(&number)) {
            None => Err(Error::NoCommand.into()),
            Some(intercepted) => {
                let args = intercepted.argv.args();
                let mut writer = Writer::new();
                writer.list(args.len());
                args.iter().for_each(|arg| writer.raw(arg));
                Ok(writer.into_bytes())
            }
        };
        self.answer_call(&call, answer);
    }

    /// `override_reply(value)`.
    pub(crate) fn override_reply(&mut self, call: PendingCall, value: &[u8]) {
        let number = call.caller.exec.and_then(|exec| self.live.get(&exec)?.intercepts);
        let intercepted = number.and_then(|number| self.interceptions.all.get_mut(&number));
        let answer = match (intercepted, records(value, Style::Compat, Answers::Trigger)) {
            (None, _) => Err(Error::NoCommand.into()),
            (Some(intercepted), _) if intercepted.reply.is_some() => Err(Error::RepliedTwice.into()),
            (Some(_), Err(error)) => Err(error.to_string()),
            (Some(intercepted), Ok(mut replies)) => {
                intercepted.reply = replies.pop();
                Ok(vec![0])
            }
        };
        self.answer_call(&call, answer);
    }

    /// `call_next(args...)`.
    pub(crate) fn call_next(&mut self, call: PendingCall, args: &[&[u8]]) {
        let live = call.caller.exec.and_then(|exec| self.live.get(&exec));
        let Some(hooked) = live.and_then(|live| live.hooked.as_ref()) else {
            return self.answer_call(&call, Err(Error::NotHooked.into()));
        };
        let mut argv: Vec<&[u8]> = vec![&hooked.name];
        argv.extend_from_slice(args);
        let argv = Argv::new(&argv);
        let below = Some(hooked.registration);
        match self.registrations.hooks.function(&argv.args(), below) {
            Some(next) => self.run_hook_for(call, next, &argv),
            None => self.look_up(PendingCall { as_client: true, ..call }, argv, false),
        }
    }

    /// Runs the function that replaces a command of user code; its result is the answer.
    pub(crate) fn run_hook_for(&mut self, call: PendingCall, registration: RegistrationNo, argv: &Argv) {
        let Some((mode, session)) = self.registrations.get(registration).map(|found| (found.spec.mode, found.session))
        else {
            return self.answer_call(&call, Err(Error::TriggerGone.into()));
        };
        if mode != Mode::Sync {
            return self.answer_call(&call, Err(Error::TriggerNotHere.into()));
        }
        if let Some(reason) = self.why_down(session) {
            return self.answer_call(&call, Err(reason));
        }
        let actor = match self.actor_of_call(call) {
            Ok(actor) => actor,
            Err(error) => return self.answer_call(&call, Err(error.into())),
        };
        let args = argv.args();
        let name = args.first().copied().unwrap_or_default().to_vec();
        self.count_triggered(registration);
        let source = Source::arguments(&args);
        let Some(execution) = self.new_triggered(registration, Some(actor.database), source, false) else {
            return self.answer_call(&call, Err(Error::TriggerGone.into()));
        };
        if let Some(live) = self.live.get_mut(&execution) {
            live.hooked = Some(Box::new(HookedCall { registration, name, actor }));
        }
        self.drop_at_end(execution);
        self.on_end(execution, Waiter::HookOf(call));
        let waits = self.stack.serves(call.caller);
        self.run_sync(execution, waits);
    }

    /// The result of a hook for user code.
    pub(crate) fn answer_hook_of(&mut self, call: &PendingCall, outcome: &Outcome) {
        let answer = outcome.single().map(<[u8]>::to_vec);
        self.answer_call(call, answer);
    }

    /// The next check of a registration: whether its commands can be hooked.
    pub(crate) fn check_hooks(&mut self, mut request: Box<RegisterRequest>) {
        let (names, by_key, event): (Vec<Vec<u8>>, bool, bool) = match &request.trigger {
            Trigger::Hook { command, key_prefix, .. } => (vec![command.clone()], key_prefix.is_some(), false),
            Trigger::Keys { commands: Some(commands), .. } => (commands.clone(), true, true),
            _ => return self.register_now(*request),
        };
        for name in names {
            let text = String::from_utf8_lossy(&name).into_owned();
            let Some(facts) = request.facts.get(&text) else {
                return self.ask(Question::Command(name), Asked::CommandOfHook { request, name: text });
            };
            match check_hook(facts.as_deref(), by_key, event) {
                Ok(range) => {
                    request.ranges.insert(name, range);
                }
                Err(refusal) => return self.refuse_plan(request.requester, &refusal.to_string()),
            }
        }
        if let Trigger::Hook { command, .. } = &request.trigger
            && let Some(error) = self.not_sync_before(&request, command)
        {
            return self.refuse_plan(request.requester, &error.to_string());
        }
        self.ask(Question::UsersWithout(INNER_HOOK.to_vec()), Asked::UsersOfHook(request));
    }

    /// The server's description of a command that is to be hooked is known.
    pub(crate) fn command_of_hook_known(
        &mut self,
        mut request: Box<RegisterRequest>,
        name: String,
        facts: Option<Rc<redgrease_core::policy::CommandFacts>>,
    ) {
        request.facts.insert(name, facts);
        self.check_hooks(request);
    }

    /// The error of a hook in front of one that is not sync.
    fn not_sync_before(&self, request: &RegisterRequest, command: &[u8]) -> Option<Error> {
        let script = self.sessions.get(request.requester.caller().session).and_then(|session| session.script.as_ref());
        let pending = script.map(|script| script.pending.as_slice()).unwrap_or_default();
        let same_session = pending.iter().any(|(_, registration)| {
            let same = matches!(&registration.trigger, Trigger::Hook { command: other, .. } if other == command);
            same && registration.spec.mode != Mode::Sync
        });
        if same_session {
            return Some(Error::HookNotSyncInSession);
        }
        let replaced = script.and_then(|script| script.replaces);
        let other = self.registrations.hooks.functions(command).any(|number| {
            self.registrations
                .get(number)
                .is_some_and(|found| found.spec.mode != Mode::Sync && !self.registrations.is_replaced(number, replaced))
        });
        other.then_some(Error::HookNotSync)
    }

    /// Users that lack permission for the inner command of hooks.
    pub(crate) fn users_of_hook_known(&mut self, request: Box<RegisterRequest>, users: &[String]) {
        if users.is_empty() {
            return self.register_now(*request);
        }
        let users = users.join(", ");
        if self.config.hooks_without_permission {
            let text = format!(
                "rg: a command is hooked, and these users cannot call it: {users} (no permission for rg.innerhook)"
            );
            self.log(redgrease_core::frame::LogLevel::Warning, text);
            return self.register_now(*request);
        }
        self.refuse_plan(request.requester, &Error::UsersWithoutHook(users).to_string());
    }

    /// Adds the hooks of a registration, and has the server report the calls of commands.
    pub(crate) fn add_hooks(
        &mut self,
        number: RegistrationNo,
        ranges: &BTreeMap<Vec<u8>, redgrease_core::policy::KeyRange>,
    ) {
        let Some(registration) = self.registrations.get(number) else { return };
        let (commands, kind, keys) = match &registration.trigger {
            Trigger::Hook { command, key_prefix, .. } => {
                let keys = key_prefix.clone().map_or(Keys::Any, Keys::Prefix);
                (vec![command.clone()], Kind::Function, keys)
            }
            Trigger::Keys { commands: Some(commands), filter, .. } => {
                (commands.clone(), Kind::Events, Keys::Filter(filter.clone()))
            }
            _ => return,
        };
        for command in commands {
            let range = ranges.get(&command).copied().unwrap_or_default();
            self.registrations.hooks.add(&command, number, kind, keys.clone(), range);
        }
        self.watch_hooks();
    }

    /// The server reports calls only while there is a hook.
    pub(crate) fn watch_hooks(&mut self) {
        let wanted = !self.registrations.hooks.is_empty();
        if core::mem::replace(&mut self.watching_hooks, wanted) != wanted {
            self.out.push(Effect::WatchHooks(wanted));
        }
    }
}

/// The command that the server runs for hooked ones.
const INNER_HOOK: &[u8] = b"rg.innerhook";

/// The name of the user of a client; a client without one is the server itself.
fn actor_name(caller: &Caller) -> UserName {
    caller.user.clone().unwrap_or_else(|| "default".into())
}
