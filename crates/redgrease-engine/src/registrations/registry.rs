//! Registrations: plans that start an execution for each event.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::executions::execution::Status;
use crate::registrations::hooks::Hooks;
use crate::registrations::key_index::KeyIndex;
use redgrease_core::codec::KeyType;
use redgrease_core::id::{Database, ExecutionNo, Identifier, PlanNo, RegistrationNo, SessionNo, ShardId};
use redgrease_core::pattern::{KeyFilter, Literal};
use redgrease_core::plan::{Exchange, Mode, PlanSpec, Trigger};
use redgrease_core::policy::KeyRange;

/// What a script replaces when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// All registrations of a session.
    Session(SessionNo),
    /// One registration; others of its session stay.
    Registration(RegistrationNo),
}

/// Counts of the executions of a registration. Every triggered execution ends in exactly one of success, failure and
/// abort.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// Executions that were created or failed to be.
    pub triggered: u64,
    /// Ended without error.
    pub success: u64,
    /// Ended with at least one error.
    pub failures: u64,
    /// Aborted without error.
    pub aborted: u64,
    /// Duration of the last one, in milliseconds.
    pub last_run_ms: u64,
    /// Sum of all durations, in milliseconds.
    pub total_run_ms: u64,
    /// Lag of the last stream batch, in milliseconds.
    pub last_lag_ms: u64,
    /// Sum of all lags, in milliseconds.
    pub total_lag_ms: u64,
    /// First error of the last one that failed; none after a success.
    pub last_error: Option<Vec<u8>>,
}

impl Statistics {
    /// Counts an end.
    pub fn ended(&mut self, status: Status, first_error: Option<&[u8]>, run_ms: u64) {
        match (first_error, status) {
            (Some(error), _) => {
                self.failures += 1;
                self.last_error = Some(error.to_vec());
            }
            (None, Status::Aborted) => self.aborted += 1,
            (None, _) => {
                self.success += 1;
                self.last_error = None;
            }
        }
        self.last_run_ms = run_ms;
        self.total_run_ms += run_ms;
    }

    /// Counts the lag of a stream batch.
    pub fn lagged(&mut self, lag_ms: u64) {
        self.last_lag_ms = lag_ms;
        self.total_lag_ms += lag_ms;
    }

    fn mean(&self, total: u64) -> f64 {
        match self.success + self.failures + self.aborted {
            0 => 0.0,
            count => total as f64 / count as f64,
        }
    }

    /// Mean duration in milliseconds; 0 before the first end.
    #[must_use]
    pub fn mean_run_ms(&self) -> f64 {
        self.mean(self.total_run_ms)
    }

    /// Mean lag in milliseconds; 0 before the first end.
    #[must_use]
    pub fn mean_lag_ms(&self) -> f64 {
        self.mean(self.total_lag_ms)
    }
}

/// A stored plan.
#[derive(Debug)]
pub struct Registration {
    /// Its identifier, the same on all shards.
    pub id: Identifier,
    /// The session it belongs to.
    pub session: SessionNo,
    /// The database that it was registered in: it receives the events of this one and acts in it. (A command acts in the
    /// database of its caller.)
    pub database: Database,
    /// Its number in the session's worker.
    pub plan: PlanNo,
    /// The plan, shared with its executions.
    pub spec: Rc<PlanSpec>,
    /// Its trigger.
    pub trigger: Trigger,
    /// The consumer group of a stream registration; empty for others.
    pub group: String,
    /// Its records move to the shards of their keys, if there are several shards.
    pub(crate) moves: bool,
    /// The plan as it was encoded.
    pub(crate) encoded: Rc<[u8]>,
    /// Where the keys of its hooked commands are.
    pub(crate) ranges: BTreeMap<Vec<u8>, KeyRange>,
    /// Statistics and history.
    pub statistics: Statistics,
    finished: VecDeque<ExecutionNo>,
}

impl Registration {
    /// A registration without history.
    #[must_use]
    pub fn new(
        id: Identifier,
        session: SessionNo,
        database: Database,
        plan: PlanNo,
        spec: PlanSpec,
        trigger: Trigger,
    ) -> Registration {
        let moves = spec.lower().exchanges.iter().any(|(exchange, _)| *exchange != Exchange::Collect);
        Registration {
            moves,
            id,
            session,
            database,
            plan,
            spec: Rc::new(spec),
            trigger,
            group: String::new(),
            encoded: Rc::new([]),
            ranges: BTreeMap::new(),
            statistics: Statistics::default(),
            finished: VecDeque::new(),
        }
    }

    /// Records a finished execution; returns the oldest ones, which are removed if it has more than `max`.
    /// `max` 0: no limit.
    pub fn keep_finished(&mut self, execution: ExecutionNo, max: usize) -> Vec<ExecutionNo> {
        self.finished.push_back(execution);
        let excess = if max == 0 { 0 } else { self.finished.len().saturating_sub(max) };
        self.finished.drain(..excess).collect()
    }

    /// The executions that are kept.
    pub fn finished(&self) -> impl Iterator<Item = ExecutionNo> {
        self.finished.iter().copied()
    }
}

/// The consumer group of RedisGears. The name must stay: data files of existing servers contain it.
pub const STREAM_GROUP: &str = "__gears_consumer_group__";

/// Whether some key may match both filters. May return true if there is none.
fn may_overlap(one: &KeyFilter, other: &KeyFilter) -> bool {
    match (one.literal(), other.literal()) {
        (Literal::Name(one), Literal::Name(other)) => one == other,
        (Literal::Name(name), Literal::Prefix(_)) => other.matches(name),
        (Literal::Prefix(_), Literal::Name(name)) => one.matches(name),
        (Literal::Prefix(one), Literal::Prefix(other)) => one.starts_with(other) || other.starts_with(one),
    }
}

/// Why a registration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// Another session has a command of that name.
    #[error("trigger already registered")]
    TriggerTaken,
    /// The same script registered it before.
    #[error("trigger already registered in this session")]
    TriggerTakenInSession,
}

/// All registrations of this shard, in the order of their numbers.
#[derive(Debug, Default)]
pub struct Registrations {
    next: u64,
    all: BTreeMap<RegistrationNo, Registration>,
    by_id: BTreeMap<Identifier, RegistrationNo>,
    commands: BTreeMap<Vec<u8>, RegistrationNo>,
    keys: KeyIndex,
    streams: KeyIndex,
    /// The hooks of commands.
    pub(crate) hooks: Hooks,
    sync_events: usize,
}

fn hears_events_in_sync(registration: &Registration) -> bool {
    let of_call = matches!(registration.trigger, Trigger::Command { .. } | Trigger::Hook { .. });
    registration.spec.mode == Mode::Sync && !of_call
}

impl Registrations {
    /// Takes a number. Every builder takes one and every registration another, as clients of RedisGears expect.
    pub fn take_number(&mut self) -> RegistrationNo {
        let number = RegistrationNo(self.next);
        self.next += 1;
        number
    }

    /// The number that is taken next.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Numbers below this one are not taken any more.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Whether `trigger` may be added by a script of which `pending` are already accepted, when the registrations in
    /// `replaced` go away with it.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn verify<'a>(
        &self,
        trigger: &Trigger,
        pending: impl IntoIterator<Item = &'a Trigger>,
        replaced: impl Fn(RegistrationNo) -> bool,
    ) -> Result<(), RegisterError> {
        let Trigger::Command { name, .. } = trigger else { return Ok(()) };
        let same = |other: &Trigger| matches!(other, Trigger::Command { name: other, .. } if other == name);
        if pending.into_iter().any(same) {
            return Err(RegisterError::TriggerTakenInSession);
        }
        match self.commands.get(name) {
            Some(holder) if !replaced(*holder) => Err(RegisterError::TriggerTaken),
            _ => Ok(()),
        }
    }

    /// Adds a verified registration.
    pub fn add(&mut self, number: RegistrationNo, registration: Registration) {
        match &registration.trigger {
            Trigger::Keys { filter, .. } => self.keys.add(number, filter),
            Trigger::Stream { filter, .. } => self.streams.add(number, filter),
            Trigger::Command { name, .. } => {
                self.commands.insert(name.clone(), number);
            }
            Trigger::Hook { .. } => {}
        }
        self.sync_events += usize::from(hears_events_in_sync(&registration));
        self.by_id.insert(registration.id, number);
        self.all.insert(number, registration);
    }

    /// Removes a registration.
    pub fn remove(&mut self, number: RegistrationNo) -> Option<Registration> {
        let registration = self.all.remove(&number)?;
        self.by_id.remove(&registration.id);
        self.hooks.remove(number);
        self.sync_events -= usize::from(hears_events_in_sync(&registration));
        match &registration.trigger {
            Trigger::Keys { filter, .. } => self.keys.remove(number, filter),
            Trigger::Stream { filter, .. } => self.streams.remove(number, filter),
            Trigger::Command { name, .. } => {
                if self.commands.get(name) == Some(&number) {
                    self.commands.remove(name);
                }
            }
            Trigger::Hook { .. } => {}
        }
        Some(registration)
    }

    /// The registration with that number.
    #[must_use]
    pub fn get(&self, number: RegistrationNo) -> Option<&Registration> {
        self.all.get(&number)
    }

    /// The registration with that identifier.
    #[must_use]
    pub fn find(&self, id: Identifier) -> Option<RegistrationNo> {
        self.by_id.get(&id).copied()
    }

    /// The number of a registration that was made elsewhere or loaded: that of its identifier if this shard made it.
    pub fn number_of(&mut self, id: Identifier, shard: ShardId) -> RegistrationNo {
        let number = RegistrationNo(id.counter);
        if id.shard == shard && !self.all.contains_key(&number) {
            self.skip_to(id.counter.saturating_add(1));
            return number;
        }
        self.take_number()
    }

    /// This shard has another id from now on: it has made registrations with it before, perhaps.
    pub fn shard_changed(&mut self, shard: ShardId) {
        let mine = self.by_id.keys().filter(|id| id.shard == shard).map(|id| id.counter.saturating_add(1)).max();
        self.skip_to(mine.unwrap_or_default());
    }

    /// The registration with that number.
    pub fn get_mut(&mut self, number: RegistrationNo) -> Option<&mut Registration> {
        self.all.get_mut(&number)
    }

    /// The command registration with that name.
    #[must_use]
    pub fn command(&self, name: &[u8]) -> Option<RegistrationNo> {
        self.commands.get(name).copied()
    }

    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (RegistrationNo, &Registration)> {
        self.all.iter().map(|(number, registration)| (*number, registration))
    }

    /// All, to be changed, in the order of their numbers. Triggers must stay as they are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (RegistrationNo, &mut Registration)> {
        self.all.iter_mut().map(|(number, registration)| (*number, registration))
    }

    /// Number of registrations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any registration wants keyspace events.
    #[must_use]
    pub fn wants_events(&self) -> bool {
        !self.keys.is_empty() || !self.streams.is_empty()
    }

    /// Whether any of them runs its functions after the command that fired them.
    #[must_use]
    pub fn wants_sync_events(&self) -> bool {
        self.sync_events > 0
    }

    /// Whether the change of a key may concern a registration; quick where it does not.
    #[must_use]
    pub fn may_want(&self, key: &[u8]) -> bool {
        let matches = |number: RegistrationNo| match self.all.get(&number).map(|found| &found.trigger) {
            Some(Trigger::Keys { filter, .. }) => filter.matches(key),
            _ => false,
        };
        self.keys.has_candidates(key) && (!self.keys.is_small() || self.keys.iter().any(matches))
    }

    /// Whether a registration that may want a key filters by its type.
    #[must_use]
    pub fn wants_type(&self, key: &[u8]) -> bool {
        let filters = |number: &RegistrationNo| {
            matches!(self.all.get(number).map(|found| &found.trigger), Some(Trigger::Keys { key_types: Some(_), .. }))
        };
        self.keys.candidates(key).iter().any(filters)
    }

    /// KeysReader registrations that match an event, in the order of registration.
    pub fn for_event(
        &self,
        database: Database,
        event: &str,
        key: &[u8],
        key_type: KeyType,
    ) -> Vec<(RegistrationNo, Mode)> {
        let mut matching = Vec::new();
        for number in self.keys.candidates(key).iter() {
            let Some(registration) = self.all.get(number).filter(|found| found.database == database) else { continue };
            let Trigger::Keys { filter, event_types, key_types, .. } = &registration.trigger else { continue };
            let event_fits =
                event_types.as_ref().is_none_or(|events| events.iter().any(|name| name.eq_ignore_ascii_case(event)));
            if !event_fits || !filter.matches(key) {
                continue;
            }
            // A deleted key has no type to filter by.
            let type_fits = |types: &Vec<KeyType>| key_type == KeyType::Empty || types.contains(&key_type);
            if !key_types.as_ref().is_none_or(type_fits) {
                continue;
            }
            matching.push((*number, registration.spec.mode));
        }
        matching
    }

    /// StreamReader registrations that watch a key, in the order of registration.
    pub fn for_stream(&self, database: Database, key: &[u8]) -> Vec<RegistrationNo> {
        let watches = |number: &&RegistrationNo| {
            self.all.get(number).is_some_and(|registration| {
                registration.database == database
                    && matches!(&registration.trigger, Trigger::Stream { filter, .. } if filter.matches(key))
            })
        };
        self.streams.candidates(key).iter().filter(watches).copied().collect()
    }

    /// The consumer group of a stream registration that is about to be added: that of RedisGears, unless a live
    /// registration that may watch the same streams has it, so that a recreated registration resumes where it
    /// stopped. Others get their own group, named after `own`.
    #[must_use]
    pub fn stream_group(&self, database: Database, filter: &KeyFilter, own: impl FnOnce() -> String) -> String {
        let has_it = |number: &RegistrationNo| {
            self.all.get(number).is_some_and(|found| {
                let Trigger::Stream { filter: other, .. } = &found.trigger else { return false };
                found.database == database && found.group == STREAM_GROUP && may_overlap(filter, other)
            })
        };
        if self.streams.iter().any(|number| has_it(&number)) {
            format!("{STREAM_GROUP}:{}", own())
        } else {
            STREAM_GROUP.to_owned()
        }
    }

    /// The consumer group that a registration takes over from the replaced ones: that of one for the same streams, unless
    /// it is among those that are `taken`.
    #[must_use]
    pub fn group_to_resume(
        &self,
        replaced: Replaced,
        database: Database,
        filter: &KeyFilter,
        taken: &[String],
    ) -> Option<String> {
        self.streams.iter().filter(|number| self.is_replaced(*number, Some(replaced))).find_map(|number| {
            let found = self.all.get(&number)?;
            let Trigger::Stream { filter: other, .. } = &found.trigger else { return None };
            let same = found.database == database && filter == other;
            (same && !taken.contains(&found.group)).then(|| found.group.clone())
        })
    }

    /// Whether a registration is among those that a script replaces.
    #[must_use]
    pub fn is_replaced(&self, number: RegistrationNo, replaced: Option<Replaced>) -> bool {
        match replaced {
            None => false,
            Some(Replaced::Registration(only)) => number == only,
            Some(Replaced::Session(session)) => self.all.get(&number).is_some_and(|found| found.session == session),
        }
    }

    /// The registrations that a script replaces, in the order of their numbers.
    #[must_use]
    pub fn replaced(&self, replaced: Replaced) -> Vec<RegistrationNo> {
        self.all.keys().copied().filter(|number| self.is_replaced(*number, Some(replaced))).collect()
    }

    /// Registrations of a session, in the order of their numbers.
    #[must_use]
    pub fn of_session(&self, session: SessionNo) -> Vec<RegistrationNo> {
        self.all.iter().filter(|(_, registration)| registration.session == session).map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use redgrease_core::plan::FailurePolicy;

    fn spec() -> PlanSpec {
        use redgrease_core::codec::Value;
        let fields = [("reader", "CommandReader"), ("mode", "sync"), ("reply", "plain")];
        let mut pairs: Vec<_> = fields.iter().map(|(name, text)| (Value::text(*name), Value::text(*text))).collect();
        pairs.push((Value::text("desc"), Value::None));
        pairs.push((Value::text("steps"), Value::List(vec![])));
        pairs.push((Value::text("args"), Value::Dict(vec![])));
        PlanSpec::decode(&Value::Dict(pairs).encode()).unwrap()
    }

    fn command(name: &str) -> Trigger {
        Trigger::Command { name: name.into(), in_order: false }
    }

    fn keys(filter: &str, events: Option<&[&str]>, types: Option<&[KeyType]>) -> Trigger {
        Trigger::Keys {
            filter: KeyFilter::new(filter).unwrap(),
            event_types: events.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            key_types: types.map(<[KeyType]>::to_vec),
            read_value: true,
            commands: None,
        }
    }

    fn stream(filter: &str) -> Trigger {
        Trigger::Stream {
            filter: KeyFilter::new(filter).unwrap(),
            batch: 1,
            duration_ms: 0,
            on_failed: FailurePolicy::Continue,
            retry_interval_s: 0,
            trim: true,
        }
    }

    fn id(number: RegistrationNo) -> Identifier {
        Identifier { shard: ShardId::standalone(), counter: number.0 }
    }

    fn add(registrations: &mut Registrations, trigger: Trigger) -> RegistrationNo {
        let number = registrations.take_number();
        registrations.add(number, Registration::new(id(number), SessionNo(1), Database(0), PlanNo(1), spec(), trigger));
        number
    }

    #[test]
    fn a_trigger_name_is_taken_once_unless_its_holder_is_replaced() {
        let mut registrations = Registrations::default();
        let holder = add(&mut registrations, command("t"));
        let verify = |pending: &[Trigger], replaced: Option<RegistrationNo>| {
            registrations.verify(&command("t"), pending, |number| Some(number) == replaced)
        };
        assert_eq!(verify(&[], None), Err(RegisterError::TriggerTaken));
        assert_eq!(verify(&[], Some(holder)), Ok(()));
        assert_eq!(verify(&[command("t")], Some(holder)), Err(RegisterError::TriggerTakenInSession));
    }

    #[test]
    fn removing_an_old_holder_leaves_the_new_one_in_place() {
        let mut registrations = Registrations::default();
        let old = add(&mut registrations, command("t"));
        let new = add(&mut registrations, command("t"));
        registrations.remove(old);
        assert_eq!(registrations.command(b"t"), Some(new));
        registrations.remove(new);
        assert_eq!(registrations.command(b"t"), None);
    }

    #[test]
    fn events_are_filtered_by_key_event_and_type() {
        let mut registrations = Registrations::default();
        let all = add(&mut registrations, keys("*", None, None));
        let sets = add(&mut registrations, keys("a*", Some(&["set"]), None));
        let hashes = add(&mut registrations, keys("a*", None, Some(&[KeyType::Hash])));
        let strings = add(&mut registrations, keys("a*", None, Some(&[KeyType::String])));
        let fired = |event: &str, key: &str, kind: KeyType| {
            let found = registrations.for_event(Database(0), event, key.as_bytes(), kind);
            found.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
        };
        assert_eq!(fired("SET", "a1", KeyType::String), [all, sets, strings]);
        assert_eq!(fired("hset", "a1", KeyType::Hash), [all, hashes]);
        assert_eq!(fired("set", "b", KeyType::String), [all]);
        assert_eq!(fired("del", "a1", KeyType::Empty), [all, hashes, strings]);
    }

    #[test]
    fn events_and_streams_belong_to_the_database_of_the_registration() {
        let mut registrations = Registrations::default();
        let mut in_database = |database: u32, trigger: Trigger| {
            let number = registrations.take_number();
            let registration =
                Registration::new(id(number), SessionNo(1), Database(database), PlanNo(1), spec(), trigger);
            registrations.add(number, registration);
            number
        };
        let stream = || stream("s*");
        let (keys_0, keys_3) = (in_database(0, keys("*", None, None)), in_database(3, keys("*", None, None)));
        let (stream_0, stream_3) = (in_database(0, stream()), in_database(3, stream()));
        for (database, keys, stream) in [(0, vec![keys_0], vec![stream_0]), (3, vec![keys_3], vec![stream_3])] {
            let found = registrations.for_event(Database(database), "set", b"k", KeyType::String);
            assert_eq!(found.into_iter().map(|(number, _)| number).collect::<Vec<_>>(), keys);
            assert_eq!(registrations.for_stream(Database(database), b"s"), stream);
        }
        assert!(registrations.for_event(Database(1), "set", b"k", KeyType::String).is_empty());
        assert!(registrations.for_stream(Database(1), b"s").is_empty());
    }

    #[test]
    fn a_script_replaces_a_session_or_one_registration() {
        let mut registrations = Registrations::default();
        let mut add = |session| {
            let number = registrations.take_number();
            let trigger = keys("*", None, None);
            registrations.add(
                number,
                Registration::new(id(number), SessionNo(session), Database(0), PlanNo(1), spec(), trigger),
            );
            number
        };
        let (first, second, other) = (add(1), add(1), add(2));
        assert_eq!(registrations.replaced(Replaced::Session(SessionNo(1))), [first, second]);
        assert_eq!(registrations.replaced(Replaced::Registration(second)), [second]);
        assert!(!registrations.is_replaced(other, Some(Replaced::Session(SessionNo(1)))));
        assert!(!registrations.is_replaced(first, None));
        registrations.remove(second);
        assert_eq!(registrations.replaced(Replaced::Registration(second)), []);
    }

    #[test]
    fn the_first_registration_on_a_stream_has_the_known_group_and_others_their_own() {
        let mut registrations = Registrations::default();
        let mut add = |session: u64, database: u32, filter: &str| {
            let number = registrations.take_number();
            let mut registration = Registration::new(
                id(number),
                SessionNo(session),
                Database(database),
                PlanNo(1),
                spec(),
                stream(filter),
            );
            let own = || format!("own-{number}");
            registration.group = registrations.stream_group(Database(database), &KeyFilter::new(filter).unwrap(), own);
            let group = registration.group.clone();
            registrations.add(number, registration);
            group
        };
        let own = |number: u64| format!("{STREAM_GROUP}:own-{number}");
        assert_eq!(add(1, 0, "s:*"), STREAM_GROUP);
        assert_eq!(add(2, 0, "s:1"), own(1));
        assert_eq!(add(3, 0, "*"), own(2));
        assert_eq!(add(4, 0, "t"), STREAM_GROUP);
        assert_eq!(add(5, 0, "t"), own(4));
        assert_eq!(add(6, 3, "t"), STREAM_GROUP);
        let resumed = |session, filter: &str, taken: &[String]| {
            let (replaced, filter) = (Replaced::Session(SessionNo(session)), KeyFilter::new(filter).unwrap());
            registrations.group_to_resume(replaced, Database(0), &filter, taken)
        };
        assert_eq!(resumed(5, "t", &[]), Some(own(4)));
        assert_eq!(resumed(5, "t", &[own(4)]), None);
        assert_eq!(resumed(5, "u", &[]), None);
        assert_eq!(resumed(6, "t", &[]), None);
        // The holder is removed: the next one resumes, the others keep their groups.
        registrations.remove(RegistrationNo(0));
        let group =
            |filter: &str| registrations.stream_group(Database(0), &KeyFilter::new(filter).unwrap(), || "x".into());
        assert_eq!(group("s:*"), STREAM_GROUP);
        assert_eq!(group("*"), format!("{STREAM_GROUP}:x"));
    }

    #[test]
    fn filters_overlap_when_a_key_may_pass_both() {
        let table = [
            ("a", "a", true),
            ("a", "b", false),
            ("a*", "ab", true),
            ("ab*", "a", false),
            ("a*", "ab*", true),
            ("a*", "b*", false),
            ("*", "b", true),
            ("*x", "b*", true),
            ("a?c", "abc", true),
        ];
        for (one, other, expected) in table {
            let filter = |text: &str| KeyFilter::new(text).unwrap();
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(may_overlap(&filter(one), &filter(other)), expected, "{one} and {other}");
            }
        }
    }

    #[test]
    fn every_end_is_counted_once_and_means_are_never_nan() {
        let mut statistics = Statistics::default();
        assert_eq!(statistics.mean_run_ms(), 0.0);
        statistics.ended(Status::Done, None, 4);
        statistics.ended(Status::Done, Some(b"boom"), 2);
        statistics.ended(Status::Aborted, None, 0);
        statistics.ended(Status::Aborted, Some(b"late"), 0);
        assert_eq!((statistics.success, statistics.failures, statistics.aborted), (1, 2, 1));
        assert_eq!(statistics.last_error.as_deref(), Some(b"late".as_slice()));
        assert_eq!(statistics.mean_run_ms(), 1.5);
        statistics.ended(Status::Done, None, 0);
        assert_eq!(statistics.last_error, None);
    }

    #[test]
    fn finished_executions_are_kept_up_to_a_number() {
        let mut registration =
            Registration::new(id(RegistrationNo(1)), SessionNo(1), Database(0), PlanNo(1), spec(), command("t"));
        assert!(registration.keep_finished(ExecutionNo(1), 2).is_empty());
        assert!(registration.keep_finished(ExecutionNo(2), 2).is_empty());
        assert_eq!(registration.keep_finished(ExecutionNo(3), 2), [ExecutionNo(1)]);
        assert!(registration.keep_finished(ExecutionNo(4), 0).is_empty());
    }
}
