//! Tests of the links between shards, without the rest of the engine.
//!
//! - [`greeting`], [`delivery`], [`receiver`]: what is said on one link, state by state, with a peer that the test plays
//!   ([`peer`]);
//! - [`world`]: a simulation of 2 to 8 shards and a network that delays, cuts, loses and repeats, of shards that restart, stop
//!   and change their topology. What must hold is in [`promises`].
//!
//! `messages_arrive_in_order_once_or_are_reported_as_lost` runs 500 seeds; `SIMULATION_SEEDS=100000` runs more of them, and
//! `SIMULATION_FIRST=5000` begins with another one. `SIMULATION_SEED=17` runs that one and prints everything that happens:
//!
//! ```sh
//! SIMULATION_SEED=17 cargo test -p redgrease-engine --test links messages_arrive -- --nocapture
//! ```
//!
//! `each_planted_bug_is_found` plants each fault of `Bug::OF_LINKS`; `SIMULATION_BUG=CreditDoubled` plants it in the other test.

mod delivery;
mod greeting;
mod peer;
mod promises;
#[path = "../simulation/random.rs"]
mod random;
mod receiver;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redgrease_engine::planted::Bug;

use world::World;

/// Seeds that are run.
const SEEDS: u64 = 500;

/// Seeds that have to find each planted fault.
const PLANTED_SEEDS: u64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    None,
    Last,
    Printed,
}

/// Runs a seed. What failed, if something did.
fn run_seed(seed: u64, bug: Option<Bug>, trace: Trace) -> Result<(), String> {
    let mut world = World::new(seed, bug);
    world.traces = trace != Trace::None;
    world.prints = trace == Trace::Printed;
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let trace = || world.trace.iter().cloned().collect::<Vec<_>>().join("\n    ");
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(violation)) => Err(format!("seed {seed} at {} ms: {violation}\n    {}", world.now_ms, trace())),
        Err(payload) => {
            let text = payload.downcast::<String>().map_or_else(|_| "unknown".to_owned(), |text| *text);
            Err(format!("seed {seed} at {} ms: panic: {text}\n    {}", world.now_ms, trace()))
        }
    }
}

/// Runs seeds in several threads. The failures by their seeds, or the first one only.
fn run_seeds(first: u64, count: u64, bug: Option<Bug>, stop_at_first: bool) -> Vec<(u64, String)> {
    let (next, stop, failures) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Err(failure) = run_seed(seed, bug, Trace::None) {
                        failures.lock().unwrap().push((seed, failure));
                        stop.store(stop_at_first, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    failures
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, got '{text}'")))
}

fn bug_to_plant() -> Option<Bug> {
    let name = std::env::var("SIMULATION_BUG").ok()?;
    Bug::OF_LINKS.into_iter().find(|bug| format!("{bug:?}") == name)
}

#[test]
fn messages_arrive_in_order_once_or_are_reported_as_lost() {
    let bug = bug_to_plant();
    if let Some(seed) = number_of("SIMULATION_SEED") {
        return run_seed(seed, bug, Trace::Printed).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let first = number_of("SIMULATION_FIRST").unwrap_or(0);
    let failures = run_seeds(first, number_of("SIMULATION_SEEDS").unwrap_or(SEEDS), bug, false);
    let Some((seed, _)) = failures.first() else { return };
    let traced = run_seed(*seed, bug, Trace::Last).unwrap_err();
    let others: Vec<&str> = failures.iter().map(|(_, failure)| failure.lines().next().unwrap_or_default()).collect();
    panic!("{traced}\n{} seeds failed:\n{}", failures.len(), others.join("\n"));
}

#[test]
fn each_planted_bug_is_found() {
    for bug in Bug::OF_LINKS {
        let failures = run_seeds(0, PLANTED_SEEDS, Some(bug), true);
        let (seed, failure) =
            failures.first().unwrap_or_else(|| panic!("{bug:?} is not found by {PLANTED_SEEDS} seeds"));
        println!("{bug:?}: {}", failure.lines().next().unwrap_or_default());
        assert_eq!(run_seed(*seed, None, Trace::None), Ok(()), "without {bug:?}");
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    let lines = |seed: u64| {
        let mut world = World::new(seed, None);
        world.traces = true;
        let result = world.run();
        (result, world.now_ms, world.trace)
    };
    for seed in 0..5 {
        assert_eq!(lines(seed), lines(seed));
    }
}
