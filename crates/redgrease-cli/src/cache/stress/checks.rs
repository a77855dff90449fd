//! The invariants that are checked at the end of a run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redgrease_filecache::{Depth, FileCache, ProblemKind, Verification};

use super::args::Load;
use super::check::{Check, FAULTS_SHOWN};
use super::counters::{Count, Counters};
use super::journal::{self, Created, Entry, Follower};
use super::keyspace::KeySpace;
use super::report::Run;
use crate::cache::keys;
use crate::cache::open::each_entry;
use crate::output::counted;
use crate::terminal::{Line, Progress};
use crate::units::show_bytes;

/// Time beyond a lease within which the cache cleans up after dead processes.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// The contents of a run's journals.
#[derive(Debug, Default)]
pub struct Journals {
    created: HashMap<u64, Vec<Created>>,
    count: u64,
    faults: Vec<String>,
}

impl Journals {
    pub fn read(folder: &Path, workers: u32) -> Result<Self> {
        let mut all = Self::default();
        for number in 0..=workers {
            Follower::new(journal::path(folder, number))
                .read_new(|entry| match entry {
                    Entry::Created(created) => {
                        all.count += 1;
                        all.created.entry(created.number).or_default().push(created);
                    }
                    Entry::Fault(words) => all.faults.push(format!("worker-{number}: {words}")),
                    Entry::Listed(_) => {}
                })
                .context("a journal cannot be read")?;
        }
        Ok(all)
    }
}

/// A cache that is not in use.
struct Rest {
    verification: Verification,
    /// Fencing number and digest of each entry.
    entries: HashMap<u64, (u64, [u8; 16])>,
    max_bytes: u64,
    is_limited: bool,
}

/// Runs all checks. A cache that cannot be examined is a violation.
pub fn examine(cache: &FileCache, load: &Load, journals: &Journals, run: &Run, quiet: bool) -> Vec<Check> {
    let keyspace = load.keyspace();
    let mut checks = seen_by_workers(&run.sum().counters, &journals.faults);
    match rest(cache, keyspace, quiet) {
        Ok(rest) => {
            checks.extend(journalled(keyspace, journals, &rest));
            checks.extend(at_rest(&rest.verification));
            checks.push(limited(load.max_bytes, &rest, run.peak_over));
        }
        Err(error) => {
            let mut check = Check::new("the cache can be examined", String::new());
            check.fault(format!("{error:#}"));
            checks.push(check);
        }
    }
    checks
}

/// Waits until the leases of dead processes have expired, and compares index and files.
fn rest(cache: &FileCache, keyspace: KeySpace, quiet: bool) -> Result<Rest> {
    let deadline = Instant::now() + cache.options().lease + GRACE;
    let mut line = Line::new(quiet);
    line.set("waiting for the leases of the dead to run out");
    let mut progress = Progress::new("verifying", quiet);
    let in_time = || Instant::now() < deadline;
    let verification = loop {
        let found = cache.maintain().and_then(|_| {
            if !cache.locks()?.is_empty() && in_time() {
                return Ok(None);
            }
            cache.verify(Depth::Digests, &mut |done, total| progress.show(done, total)).map(Some)
        });
        match found {
            Ok(Some(found)) if !in_time() || !found.problems.iter().any(|problem| heals(problem.kind)) => break found,
            Err(error) if !in_time() => return Err(error.into()),
            _ => std::thread::sleep(POLL),
        }
    };
    let mut entries = HashMap::new();
    each_entry(cache, |entry| {
        if let Some(number) = keyspace.number(&entry.key) {
            entries.insert(number, (entry.fence, entry.digest));
        }
    })?;
    let limits = cache.info()?.limits;
    let is_limited = limits.max_bytes > 0
        || limits.max_entries > 0
        || limits.min_free_bytes > 0
        || !limits.max_age.is_zero()
        || !limits.max_idle.is_zero();
    Ok(Rest { verification, entries, max_bytes: limits.max_bytes, is_limited })
}

/// Whether the cache repairs it by itself in time.
fn heals(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::OrphanFile | ProblemKind::OrphanTemporary | ProblemKind::DeadLease)
}

/// Violations that workers detected.
fn seen_by_workers(counters: &Counters, faults: &[String]) -> Vec<Check> {
    let reads = counted(counters[Count::ReadOk], "read", "reads");
    let mut checks = vec![
        Check::counted("every read is whole and of its key", reads.clone(), counters[Count::Torn]),
        Check::counted("the bytes of a generation never change", reads.clone(), counters[Count::Changed]),
        Check::counted("no read is older than what was acknowledged", reads.clone(), counters[Count::Stale]),
        Check::counted("no read misses what was acknowledged", reads, counters[Count::Vanished]),
    ];
    if let Some(broken) = checks.iter_mut().find(|check| !check.holds()) {
        broken.faults = faults.iter().take(FAULTS_SHOWN).cloned().collect();
    }
    checks
}

/// Compares acknowledged creates with existing entries.
fn journalled(keyspace: KeySpace, journals: &Journals, rest: &Rest) -> Vec<Check> {
    let about = counted(journals.count, "acknowledged create", "acknowledged creates");
    let mut lost = Check::new("no acknowledged create is lost", about.clone());
    let mut twice = Check::new("no key is created twice", about.clone());
    let mut changed = Check::new("what is there is what was acknowledged", about);
    let mut key = Vec::new();
    for (number, created) in &journals.created {
        keyspace.write(*number, &mut key);
        let name = keys::shown(&key);
        let newest = created.iter().max_by_key(|created| created.fence).expect("one at least");
        match rest.entries.get(number) {
            // With a limit, old entries are evicted and keys can be created again.
            None if rest.is_limited => {}
            None => lost.fault(format!("{name}: generation {} is not there", newest.fence)),
            Some((fence, _)) if *fence < newest.fence => {
                lost.fault(format!("{name}: generation {fence} is there instead of {}", newest.fence));
            }
            Some((fence, _)) if *fence > newest.fence && !rest.is_limited => {
                twice.fault(format!("{name}: generation {fence} is there, though {} was acknowledged", newest.fence));
            }
            Some((fence, digest)) => {
                if created.iter().any(|created| created.fence == *fence && created.digest != *digest) {
                    changed.fault(format!("{name}: generation {fence} has another digest"));
                }
            }
        }
        let mut fences: Vec<u64> = created.iter().map(|created| created.fence).collect();
        fences.sort_unstable();
        if fences.windows(2).any(|pair| pair[0] == pair[1]) || (!rest.is_limited && fences.len() > 1) {
            twice.fault(format!("{name}: generations {fences:?} were all acknowledged"));
        }
    }
    vec![lost, twice, changed]
}

/// Consistency of index and files.
fn at_rest(verification: &Verification) -> Vec<Check> {
    const CHECKS: [(&str, &[ProblemKind]); 6] = [
        ("the total is the sum of the sizes", &[ProblemKind::TotalDrift]),
        ("all parts of the index have the same members", &[ProblemKind::StrayMember]),
        (
            "each entry is a file of its length and digest",
            &[ProblemKind::MissingFile, ProblemKind::SizeMismatch, ProblemKind::DigestMismatch],
        ),
        ("each file has an entry", &[ProblemKind::OrphanFile]),
        ("no lease is older than its end", &[ProblemKind::DeadLease]),
        ("no temporary file is without its writer", &[ProblemKind::OrphanTemporary]),
    ];
    let about = format!("{}, {}", counted(verification.entries, "entry", "entries"), show_bytes(verification.bytes));
    let mut checks: Vec<Check> = CHECKS.iter().map(|(name, _)| Check::new(name, about.clone())).collect();
    let mut others: BTreeMap<String, u64> = BTreeMap::new();
    for problem in verification.problems.iter().filter(|problem| problem.kind != ProblemKind::OverLimit) {
        match CHECKS.iter().position(|(_, kinds)| kinds.contains(&problem.kind)) {
            Some(index) => {
                let name = keys::shown(problem.name.as_bytes());
                checks[index].fault(format!("{} {name}: {}", problem.kind.as_str(), problem.message));
            }
            None => {
                *others
                    .entry(format!("{} {}: {}", problem.kind.as_str(), problem.name, problem.message))
                    .or_default() += 1
            }
        }
    }
    if !others.is_empty() {
        let mut check = Check::new("nothing else is wrong", about);
        others.into_keys().for_each(|words| check.fault(words));
        checks.push(check);
    }
    checks
}

/// The requested limit is met, was always met, and is still stored.
fn limited(requested: u64, rest: &Rest, peak_over: Option<u64>) -> Check {
    let limit =
        if rest.max_bytes == 0 { "no limit".to_owned() } else { format!("limit {}", show_bytes(rest.max_bytes)) };
    let mut check = Check::new("the total is within the limit", limit.clone());
    for problem in rest.verification.problems.iter().filter(|problem| problem.kind == ProblemKind::OverLimit) {
        check.fault(problem.message.clone());
    }
    if requested > 0 && rest.max_bytes != requested {
        check.fault(format!("the limit is {limit} at the end, but {requested} bytes were requested"));
    }
    if let Some(peak) = peak_over {
        check.fault(format!("the size reached {peak} bytes, but the limit is {requested}"));
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_filecache::Problem;

    const SPACE: KeySpace = KeySpace::Shared { digits: 4 };

    fn created(number: u64, fence: u64) -> Created {
        Created { number, fence, digest: [fence as u8; 16] }
    }

    fn broken(created: &[Created], there: &[(u64, u64, u8)], is_limited: bool) -> Vec<&'static str> {
        let mut journals = Journals::default();
        for one in created {
            journals.created.entry(one.number).or_default().push(*one);
        }
        let entries = there.iter().map(|(number, fence, digest)| (*number, (*fence, [*digest; 16]))).collect();
        let rest = Rest { verification: Verification::default(), entries, max_bytes: 0, is_limited };
        let checks = journalled(SPACE, &journals, &rest);
        checks.iter().filter(|check| !check.holds()).map(|check| check.name).collect()
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        assert!(broken(&[created(1, 5)], &[(1, 5, 5), (2, 6, 6)], false).is_empty());
        assert_eq!(broken(&[created(1, 5)], &[], false), ["no acknowledged create is lost"]);
        assert_eq!(broken(&[created(1, 5)], &[(1, 4, 4)], false), ["no acknowledged create is lost"]);
        assert_eq!(broken(&[created(1, 5)], &[(1, 5, 9)], false), ["what is there is what was acknowledged"]);
    }

    #[test]
    fn a_limit_lets_entries_go_and_come_again() {
        assert!(broken(&[created(1, 5)], &[], true).is_empty());
        assert!(broken(&[created(1, 5), created(1, 9)], &[(1, 9, 9)], true).is_empty());
        assert_eq!(broken(&[created(1, 5), created(1, 5)], &[], true), ["no key is created twice"]);
    }

    #[test]
    fn without_a_limit_a_key_is_created_once() {
        assert_eq!(broken(&[created(1, 5), created(1, 9)], &[(1, 9, 9)], false), ["no key is created twice"]);
        assert_eq!(broken(&[created(1, 5)], &[(1, 9, 9)], false), ["no key is created twice"]);
        assert!(broken(&[created(1, 5)], &[(1, 9, 9)], true).is_empty());
    }

    #[test]
    fn each_problem_breaks_its_invariant() {
        let problem = |kind| Problem { kind, name: "a\nb".to_owned(), message: "so".to_owned(), repaired: false };
        for kind in [ProblemKind::TotalDrift, ProblemKind::OrphanFile, ProblemKind::Foreign] {
            let verification = Verification { problems: vec![problem(kind)], ..Verification::default() };
            let checks = at_rest(&verification);
            let broken: Vec<&Check> = checks.iter().filter(|check| !check.holds()).collect();
            assert!(broken.len() == 1 && broken[0].faults[0].starts_with(kind.as_str()), "{broken:?}");
        }
        assert!(at_rest(&Verification::default()).iter().all(Check::holds));
    }

    #[test]
    fn a_limit_holds_all_the_time_and_is_not_forgotten() {
        let over = Problem {
            kind: ProblemKind::OverLimit,
            name: "bytes".to_owned(),
            message: "so".to_owned(),
            repaired: false,
        };
        let rest = |problems: &[Problem], max_bytes| Rest {
            verification: Verification { problems: problems.to_vec(), ..Verification::default() },
            entries: HashMap::new(),
            max_bytes,
            is_limited: true,
        };
        assert!(limited(0, &rest(&[], 0), None).holds() && limited(9, &rest(&[], 9), None).holds());
        assert_eq!(limited(9, &rest(&[over], 9), None).broken, 1);
        assert_eq!(limited(9, &rest(&[], 0), None).broken, 1);
        assert_eq!(limited(9, &rest(&[], 9), Some(10)).broken, 1);
    }

    #[test]
    fn faults_that_workers_saw_are_shown_with_the_check() {
        let mut counters = Counters::default();
        assert!(seen_by_workers(&counters, &[]).iter().all(Check::holds));
        counters[Count::Torn] = 2;
        let checks = seen_by_workers(&counters, &["worker-1: torn".to_owned()]);
        assert!(checks[0].broken == 2 && checks[0].faults == ["worker-1: torn"], "{checks:?}");
    }
}
