//! Checks for requirements and installations that wait or run: one of each kind at a time, users in turn.

use redgrease_core::id::SessionNo;

use crate::id::{Counter, InstallNo};
use crate::limits::{INSTALLS_MAX, SATISFIED_MAX};
use crate::prelude::*;
use crate::requirements::fair::FairQueue;

/// A job of a session.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The session.
    pub(crate) session: SessionNo,
    /// The set of requirements.
    pub(crate) environment: Rc<str>,
    /// The requirements as given.
    pub(crate) requirements: Rc<[String]>,
    /// Install them again if they are present.
    pub(crate) force: bool,
    /// Only check whether they are present.
    pub(crate) check: bool,
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
    /// Sets of requirements that are known to be present, and their directories.
    satisfied: BTreeMap<Rc<str>, Vec<String>>,
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

    /// Takes out the jobs of a session that wait; returns whether there were any.
    pub(crate) fn forget(&mut self, session: SessionNo) -> bool {
        let taken = |lane: &mut Lane| lane.waiting.retain(|job| job.session != session);
        taken(&mut self.looks) + taken(&mut self.installs) > 0
    }

    /// The directories of a set of requirements that was present at the last check.
    pub(crate) fn known(&self, environment: &str) -> Option<&Vec<String>> {
        self.satisfied.get(environment)
    }

    /// All sets of requirements that are known to be present, and their directories.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Vec<String>)> {
        self.satisfied.iter().map(|(environment, paths)| (&**environment, paths))
    }

    /// Forgets a set of requirements.
    pub(crate) fn forget_environment(&mut self, environment: &str) {
        self.satisfied.remove(environment);
    }

    /// Stores the directories of a set of requirements.
    pub(crate) fn learn(&mut self, environment: &Rc<str>, paths: &[String]) {
        if self.satisfied.len() < SATISFIED_MAX || self.satisfied.contains_key(environment) {
            self.satisfied.insert(Rc::clone(environment), paths.to_vec());
        }
    }

    /// Sessions whose jobs wait or run.
    #[cfg(feature = "simulation")]
    pub(crate) fn sessions(&self) -> Vec<SessionNo> {
        let lanes = [&self.looks, &self.installs];
        let waiting = lanes.iter().flat_map(|lane| lane.waiting.iter());
        let running = lanes.iter().filter_map(|lane| lane.running.as_ref().map(|(_, job)| job));
        waiting.chain(running).map(|job| job.session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(session: u64, check: bool) -> Job {
        Job { session: SessionNo(session), environment: "a".into(), requirements: Rc::new([]), force: false, check }
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
        assert_eq!(installs.end(number).unwrap().session, SessionNo(1));
        assert!(installs.end(number).is_none());
        assert!(installs.forget(SessionNo(2)) && !installs.forget(SessionNo(2)));
    }
}
