//! Checks for requirements and installations that wait or run: one of each kind at a time, users in turn.

use redgrease_core::id::SessionNo;

use crate::id::{Counter, InstallNo};
use crate::input::Installed;
use crate::limits::{INSTALLS_MAX, SATISFIED_MAX};
use crate::prelude::*;
use crate::requirements::fair::FairQueue;

/// What waits for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A session.
    Session(SessionNo),
    /// An import of wheels, by its number.
    Import(u64),
}

/// A check or an installation.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What waits for it.
    pub(crate) owner: Owner,
    /// The set of requirements.
    pub(crate) environment: Rc<str>,
    /// The requirements as given.
    pub(crate) requirements: Rc<[String]>,
    /// Install them again if they are present.
    pub(crate) force: bool,
    /// Only check whether they are present.
    pub(crate) check: bool,
}

/// A set of requirements that was present at the last check.
#[derive(Debug)]
pub(crate) struct Known {
    /// Where it is.
    pub(crate) installed: Installed,
    /// The files of the wheels that each requirement needs.
    pub(crate) wheels_of: BTreeMap<String, Vec<String>>,
    /// The sessions that used it have ended: it is about to be removed.
    released: bool,
}

#[derive(Debug)]
struct Lane {
    waiting: FairQueue<Job>,
    running: Option<(InstallNo, Job)>,
}

impl Lane {
    fn new() -> Lane {
        Lane { waiting: FairQueue::new(INSTALLS_MAX), running: None }
    }
}

/// The jobs: checks do not wait for installations.
#[derive(Debug)]
pub(crate) struct Installs {
    looks: Lane,
    installs: Lane,
    counter: Counter,
    satisfied: BTreeMap<Rc<str>, Known>,
}

impl Installs {
    /// Nothing waits.
    pub(crate) fn new() -> Installs {
        Installs { looks: Lane::new(), installs: Lane::new(), counter: Counter::default(), satisfied: BTreeMap::new() }
    }

    fn lane(&mut self, check: bool) -> &mut Lane {
        if check { &mut self.looks } else { &mut self.installs }
    }

    /// Queues a job of a user; `false` when too many wait.
    pub(crate) fn push(&mut self, user: &str, job: Job) -> bool {
        self.lane(job.check).waiting.push(user, job)
    }

    /// The next job, if nothing of its kind runs.
    pub(crate) fn next(&mut self, check: bool) -> Option<Job> {
        let lane = self.lane(check);
        if lane.running.is_some() { None } else { lane.waiting.pop() }
    }

    /// Whether a job of that kind could begin.
    pub(crate) fn is_free(&self, check: bool) -> bool {
        let lane = if check { &self.looks } else { &self.installs };
        lane.running.is_none()
    }

    /// A job begins; returns its number.
    pub(crate) fn begin(&mut self, job: Job) -> InstallNo {
        let number = InstallNo(self.counter.next());
        let check = job.check;
        self.lane(check).running = Some((number, job));
        number
    }

    /// A job has ended.
    pub(crate) fn end(&mut self, number: InstallNo) -> Option<Job> {
        [&mut self.looks, &mut self.installs]
            .into_iter()
            .find_map(|lane| lane.running.take_if(|(running, _)| *running == number))
            .map(|(_, job)| job)
    }

    /// Takes out the jobs of an owner that wait; returns whether there were any.
    pub(crate) fn forget(&mut self, owner: Owner) -> bool {
        let taken = |lane: &mut Lane| lane.waiting.retain(|job| job.owner != owner);
        taken(&mut self.looks) + taken(&mut self.installs) > 0
    }

    /// A set of requirements that was present at the last check.
    pub(crate) fn known(&self, environment: &str) -> Option<&Known> {
        self.satisfied.get(environment)
    }

    /// All that are not about to be removed.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Rc<str>, &Known)> {
        self.satisfied.iter().filter(|(_, known)| !known.released)
    }

    /// A set is used.
    pub(crate) fn keep(&mut self, environment: &str) {
        if let Some(known) = self.satisfied.get_mut(environment) {
            known.released = false;
        }
    }

    /// The last session that used a set has ended.
    pub(crate) fn release(&mut self, environment: &str) {
        if let Some(known) = self.satisfied.get_mut(environment) {
            known.released = true;
        }
    }

    /// Forgets a set; returns whether it was released and nothing works on it.
    pub(crate) fn remove(&mut self, environment: &str) -> bool {
        let works = |lane: &Lane| {
            let running = lane.running.as_ref().is_some_and(|(_, job)| *job.environment == *environment);
            running || lane.waiting.iter().any(|job| *job.environment == *environment)
        };
        let released = self.satisfied.get(environment).is_some_and(|known| known.released);
        if !released || works(&self.looks) || works(&self.installs) {
            return false;
        }
        self.satisfied.remove(environment);
        true
    }

    /// Stores where a set of requirements is.
    pub(crate) fn learn(&mut self, environment: &Rc<str>, requirements: &[String], installed: Installed) {
        if self.satisfied.len() >= SATISFIED_MAX && !self.satisfied.contains_key(environment) {
            return;
        }
        let files = |index: usize| {
            let needed = installed.wheels.iter().filter(|wheel| wheel.needed_by.contains(&index));
            needed.map(|wheel| wheel.file.file.clone()).collect()
        };
        let names = requirements.iter().enumerate();
        let wheels_of = names.map(|(index, name)| (name.trim().to_owned(), files(index))).collect();
        self.satisfied.insert(Rc::clone(environment), Known { installed, wheels_of, released: false });
    }

    /// Sessions whose jobs wait or run.
    #[cfg(feature = "simulation")]
    pub(crate) fn sessions(&self) -> Vec<SessionNo> {
        let lanes = [&self.looks, &self.installs];
        let waiting = lanes.iter().flat_map(|lane| lane.waiting.iter());
        let running = lanes.iter().filter_map(|lane| lane.running.as_ref().map(|(_, job)| job));
        let owners = waiting.chain(running).map(|job| job.owner);
        owners.filter_map(|owner| if let Owner::Session(session) = owner { Some(session) } else { None }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(session: u64, check: bool) -> Job {
        let owner = Owner::Session(SessionNo(session));
        Job { owner, environment: "a".into(), requirements: Rc::new([]), force: false, check }
    }

    #[test]
    fn one_of_each_kind_runs_at_a_time() {
        let mut installs = Installs::new();
        assert!(
            installs.push("u", job(1, true)) && installs.push("u", job(2, true)) && installs.push("u", job(3, false))
        );
        let first = installs.next(true).unwrap();
        let number = installs.begin(first);
        assert!(installs.next(true).is_none() && !installs.is_free(true) && installs.is_free(false));
        assert!(installs.next(false).is_some());
        assert_eq!(installs.end(number).unwrap().owner, Owner::Session(SessionNo(1)));
        assert!(installs.end(number).is_none());
        let second = Owner::Session(SessionNo(2));
        assert!(installs.forget(second) && !installs.forget(second));
    }

    #[test]
    fn a_set_is_removed_when_it_was_released_and_nothing_works_on_it() {
        let mut installs = Installs::new();
        installs.learn(&"a".into(), &["a".to_owned()], Installed::default());
        assert!(!installs.remove("a"), "it was not released");
        installs.release("a");
        assert_eq!(installs.all().count(), 0);
        assert!(installs.push("u", job(1, true)));
        assert!(!installs.remove("a"), "a job waits");
        let next = installs.next(true).unwrap();
        let number = installs.begin(next);
        assert!(!installs.remove("a"), "a job runs");
        installs.end(number);
        assert!(installs.remove("a") && !installs.remove("a"));
        installs.learn(&"a".into(), &["a".to_owned()], Installed::default());
        installs.release("a");
        installs.keep("a");
        assert!(!installs.remove("a"), "it is used again");
    }
}
