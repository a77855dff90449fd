//! Registrations in data files, and on replicas.
//!
//! Each change of the registrations is replicated as one command. A replica, and a server that loads, has the same
//! registrations, and builds their sessions again in workers; nothing fires there before it is a master and has loaded.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::{Database, Identifier, PlanNo, RegistrationNo, SessionNo, ShardId};
use redgrease_core::plan::{PlanSpec, Trigger};
use redgrease_core::policy::KeyRange;
use redgrease_core::saved::{ByteBuf, Change, SavedFunction, SavedRegistration, SavedSession};

use crate::asked::Asked;
use crate::cluster::versions::{Version, Versions};
use crate::effect::{Effect, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::prelude::*;
use crate::registrations::registry::Registration;
use crate::sessions::session::{Deaths, Place, Session};
use crate::sessions::stored::{Stored, StoredFunction};

impl Engine {
    /// All registrations, as they are saved; `None` if there is nothing to be saved.
    #[must_use]
    pub fn saved(&self) -> Option<Vec<u8>> {
        let is_empty = !self.sessions.iter().any(|(_, session)| session.registered);
        // What was seen of other shards matters without registrations, too: it says which were removed.
        let needed = !is_empty || self.topology.has_several();
        needed.then(|| self.all_saved().encode())
    }

    /// All registrations.
    pub(crate) fn all_saved(&self) -> Change {
        let registered = self.sessions.iter().filter(|(_, session)| session.registered);
        let active = registered.map(|(number, session)| self.saved_session(number, session));
        let sessions = active.chain(self.inactive.values().cloned()).collect();
        Change::All { sessions, next: self.registrations.next_number(), seen: self.versions.saved() }
    }

    pub(crate) fn saved_session(&self, number: SessionNo, session: &Session) -> SavedSession {
        let saved_plan = |plan: PlanNo| plan.in_data_of(number).0 as i64;
        let registrations = self.registrations.of_session(number).into_iter().filter_map(|number| {
            let registration = self.registrations.get(number)?;
            Some(SavedRegistration {
                number: registration.id.counter,
                shard: Some(registration.id.shard.to_string()),
                plan: saved_plan(registration.plan),
                database: registration.database.0.into(),
                spec: ByteBuf::from(registration.encoded.to_vec()),
                group: ByteBuf::from(registration.group.clone().into_bytes()),
            })
        });
        let stored = &session.stored;
        SavedSession {
            name: session.name.to_string(),
            description: session.description.clone().map(ByteBuf::from),
            user: session.user.to_string(),
            database: session.database.0.into(),
            source: ByteBuf::from(stored.source.clone()),
            function: stored.function.as_ref().map(|function| SavedFunction {
                plan: saved_plan(function.plan),
                spec: ByteBuf::from(function.spec.clone()),
                callbacks: ByteBuf::from(function.callbacks.clone()),
            }),
            functions: stored.functions.iter().cloned().map(ByteBuf::from).collect(),
            python: stored.python.clone(),
            requirements: stored.requirements.to_vec(),
            environment: stored.environment.to_string(),
            version: Some(session.version.saved()),
            registrations: registrations.collect(),
        }
    }

    /// Sends a session with its registrations to replicas, the append-only file and other shards.
    pub(crate) fn replicate_session(&mut self, number: SessionNo, replaced: Option<&str>) {
        if !self.makes_changes() {
            return;
        }
        let (version, after) = self.next_version();
        if let Some(session) = self.sessions.get_mut(number) {
            session.version = version;
        }
        let Some(session) = self.sessions.get(number).filter(|session| session.registered) else { return };
        let saved = self.saved_session(number, session);
        self.inactive.remove(&saved.name);
        let mut replaces = vec![saved.name.clone()];
        replaces.extend(replaced.map(str::to_owned));
        let change = Change::Session { session: saved, replaces, after };
        self.replicate(&change);
        self.share_change(&change);
    }

    /// The same, for the removal of a registration.
    pub(crate) fn replicate_removal(&mut self, id: Identifier, session: SessionNo) {
        if !self.makes_changes() {
            return;
        }
        let (version, after) = self.next_version();
        if let Some(session) = self.sessions.get_mut(session) {
            session.version = version;
        }
        let (registration, shard) = (id.counter, Some(id.shard.to_string()));
        let change = Change::Removed { registration, shard, version: Some(version.saved()), after };
        self.replicate(&change);
        self.share_change(&change);
        self.activate_waiting();
    }

    pub(crate) fn replicate(&mut self, change: &Change) {
        // What came from the master or from a file goes on as it came.
        if self.makes_changes() {
            self.out.push(Effect::Replicate(change.encode()));
        }
    }

    /// The append-only file is rewritten, and registrations are in no key: they are appended to the new file.
    pub(crate) fn file_is_rewritten(&mut self) {
        let wheels = self.saved_wheels();
        if !wheels.is_empty() {
            self.out.push(Effect::WheelsToFile(wheels));
        }
        if let Some(saved) = self.saved() {
            self.out.push(Effect::ReplicateToFile(saved));
        }
    }

    /// Data begins to be loaded: what it does not contain does not exist any more.
    pub(crate) fn loading_begins(&mut self) {
        let numbers: Vec<RegistrationNo> = self.registrations.iter().map(|(number, _)| number).collect();
        self.applying = true;
        for number in numbers {
            self.remove_registration(number, true);
        }
        self.forget_time_events();
        self.applying = false;
    }

    /// A change of the registrations that was saved, or that a master sent.
    pub(crate) fn apply(&mut self, change: Change) {
        self.applying = true;
        match change {
            Change::All { sessions, next, seen } => {
                let numbers: Vec<RegistrationNo> = self.registrations.iter().map(|(number, _)| number).collect();
                for number in numbers {
                    self.remove_registration(number, true);
                }
                self.registrations.skip_to(next);
                self.versions = Versions::of_saved(&seen);
                self.inactive.clear();
                for session in sessions {
                    if let Some(session) = self.settle_conflicts(session, &[]) {
                        self.restore_session(session);
                    }
                }
            }
            Change::Session { session, replaces, after } => {
                self.versions.saw_after(Version::of_saved(session.version.as_ref()), after);
                let old: Vec<SessionNo> = replaces.iter().filter_map(|name| self.sessions.named(name)).collect();
                let numbers: Vec<RegistrationNo> =
                    old.into_iter().flat_map(|session| self.registrations.of_session(session)).collect();
                for number in numbers {
                    // Calls that have not begun run, as on the shard where the change was made.
                    self.remove_registration(number, !self.is_called(number));
                }
                for name in &replaces {
                    self.inactive.remove(name);
                }
                if let Some(session) = self.settle_conflicts(session, &replaces) {
                    self.restore_session(session);
                }
            }
            Change::TimeEvent { database, key, event } => {
                self.restore_time_event(Database(database as u32), key.into_vec(), event, true);
            }
            Change::WheelPart { environment, file, offset, part } => {
                self.out.push(Effect::KeepPart { environment, file, offset, part: part.into_vec() });
            }
            Change::Wheels { environment, wheels, locked } => self.wheels_arrived(environment, wheels, locked),
            Change::Removed { registration, shard, version, after } => {
                self.versions.saw_after(Version::of_saved(version.as_ref()), after);
                let id = identifier(registration, shard.as_deref());
                if let Some(number) = self.registrations.find(id) {
                    let session = self.registrations.get(number).map(|registration| registration.session);
                    self.remove_registration(number, !self.is_called(number));
                    let version = Version::of_saved(version.as_ref());
                    if let Some(session) = session.and_then(|session| self.sessions.get_mut(session)) {
                        session.version = session.version.max(version);
                    }
                }
            }
        }
        self.applying = false;
        self.activate_waiting();
    }

    /// Creates a session with its registrations, and has it built in a worker.
    fn restore_session(&mut self, mut saved: SavedSession) {
        let registrations = core::mem::take(&mut saved.registrations);
        let number = self.add_saved_session(saved, true);
        let mut restored = Vec::new();
        for registration in registrations {
            match self.restore_registration(number, &registration) {
                Ok(number) => restored.push(number),
                Err(reason) => {
                    let id = identifier(registration.number, registration.shard.as_deref());
                    let text = format!("rg: registration {id} was saved and cannot be used: {reason}");
                    self.log(LogLevel::Warning, text);
                }
            }
        }
        if restored.is_empty() {
            self.sessions.remove(number);
            return;
        }
        self.follow_streams(&restored);
        self.prepare_session(number);
    }

    /// Adds a session without registrations.
    pub(crate) fn add_saved_session(&mut self, saved: SavedSession, registered: bool) -> SessionNo {
        let requirements: Rc<[String]> = saved.requirements.into();
        let stored = Stored {
            source: saved.source.into_vec(),
            function: None,
            functions: saved.functions.into_iter().map(ByteBuf::into_vec).collect(),
            python: saved.python,
            environment: saved.environment.into(),
            requirements,
        };
        let number = self.sessions.add(Session {
            name: saved.name.into(),
            description: saved.description.map(ByteBuf::into_vec),
            user: saved.user.into(),
            database: Database(saved.database as u32),
            stored,
            python: None,
            paths: Vec::new(),
            wheels: BTreeMap::new(),
            place: Place::Waiting,
            script: None,
            registered,
            unlinked: false,
            installed: false,
            live: 0,
            held: Vec::new(),
            deaths: Deaths::default(),
            version: Version::of_saved(saved.version.as_ref()),
        });
        if let (Some(session), Some(function)) = (self.sessions.get_mut(number), saved.function) {
            session.stored.function = Some(StoredFunction {
                plan: PlanNo(function.plan as u64).in_data_of(number),
                spec: function.spec.into_vec(),
                callbacks: function.callbacks.into_vec(),
            });
        }
        number
    }

    fn restore_registration(
        &mut self,
        session: SessionNo,
        saved: &SavedRegistration,
    ) -> Result<RegistrationNo, String> {
        let spec = PlanSpec::decode(&saved.spec).map_err(|error| error.to_string())?;
        let trigger = spec.trigger().map_err(|error| error.to_string())?;
        self.registrations.verify(&trigger, [], |_| false).map_err(|error| error.to_string())?;
        let id = identifier(saved.number, saved.shard.as_deref());
        if self.registrations.find(id).is_some() {
            return Err(Error::SavedTwice(id).into());
        }
        let number = self.registrations.number_of(id, self.topology.me);
        let commands: Vec<Vec<u8>> = match &trigger {
            Trigger::Hook { command, .. } => vec![command.clone()],
            Trigger::Keys { commands: Some(commands), .. } => commands.clone(),
            _ => Vec::new(),
        };
        let database = Database(saved.database as u32);
        let plan = PlanNo(saved.plan as u64).in_data_of(session);
        let mut registration = Registration::new(id, session, database, plan, spec, trigger);
        registration.encoded = saved.spec.as_slice().into();
        registration.group = String::from_utf8_lossy(&saved.group).into_owned();
        self.add_registration(number, registration);
        for name in commands {
            self.ask(Question::Command(name.clone()), Asked::CommandOfRestoredHook { registration: number, name });
        }
        Ok(number)
    }

    /// Where the keys of a hooked command are is known again.
    pub(crate) fn command_of_restored_hook_known(
        &mut self,
        number: RegistrationNo,
        name: Vec<u8>,
        range: Option<KeyRange>,
    ) {
        let Some(range) = range else {
            let text = String::from_utf8_lossy(&name).into_owned();
            return self.log(LogLevel::Warning, format!("rg: the command '{text}' was hooked and does not exist here"));
        };
        if let Some(registration) = self.registrations.get_mut(number) {
            registration.ranges.insert(name, range);
            let ranges = registration.ranges.clone();
            self.registrations.hooks.remove(number);
            self.add_hooks(number, &ranges);
        }
    }
}

/// The identifier of a saved registration.
fn identifier(counter: u64, shard: Option<&str>) -> Identifier {
    let shard = shard.and_then(|shard| ShardId::parse(shard.as_bytes())).unwrap_or_else(ShardId::standalone);
    Identifier { shard, counter }
}
