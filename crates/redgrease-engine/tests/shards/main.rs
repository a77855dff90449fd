//! Deterministic simulation of a cluster: several engines, the links between them, and workers that run parts of executions.
//!
//! Engines and links are those that the module runs; what they say to each other and to workers is carried byte for byte.
//! A seed decides everything: the number of shards, the speed of the network, what clients ask for, and what goes wrong:
//! connections that break, servers that are killed and started again with older data or stopped for a while, workers that
//! are killed. Then nothing new happens any more, and everything has to come to an end. After that, further runs have to have
//! results.
//!
//! What must hold: a run returns what one server would return, or an error; each client is answered once, in time; at the end
//! all shards have the same registrations, and each that was acknowledged by all shards and not removed since is among them;
//! no execution is left in a worker.
//!
//! `shards_act_as_one` runs 500 seeds; `SIMULATION_SEEDS=100000` runs more, `SIMULATION_FIRST=5000` begins with another one, and
//! `SIMULATION_SEED=17` runs that one and prints what is handed in and done. `each_planted_bug_is_found` plants each fault of
//! `Bug::OF_SHARDS`.

mod costs;
mod plans;
#[path = "../simulation/random.rs"]
mod random;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use redgrease_core::saved::{Change, SavedSession};
use redgrease_engine::Engine;
use redgrease_engine::planted::Bug;

use random::Random;
use seeds::{in_thread, keep_panics, last_panic, number_of};
use world::{Violation, World, registrations, violated};

/// Seeds that are run.
const SEEDS: u64 = 500;

/// Most shards of a cluster; `SIMULATION_SHARDS` is another number.
const SHARDS_MAX: u64 = 30;

#[derive(Debug, Clone)]
struct Failure {
    seed: u64,
    invariant: String,
    text: String,
    trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: not true: {}\n  {:.2000}", self.seed, self.invariant, self.text)?;
        self.trace.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Lets things happen, then lets them end.
fn run(world: &mut World) {
    let shards = world.shards.len();
    for index in 0..shards {
        world.start(index);
    }
    // Links are made.
    let ready = 3000 + world.latency_ms * 4;
    while world.now_ms < ready {
        world.tick();
    }
    let faults = world.random.pick(&[0, 0, 2, 5]);
    for _ in 0..world.random.between(5, 40) {
        let index = world.random.below(shards as u64) as usize;
        match world.random.below(10) {
            0..=4 => world.run(index),
            5 | 6 => world.register(index),
            7 => world.unregister(index),
            _ => world.trigger(index),
        }
        if world.random.below(10) < faults {
            fault(world);
        }
        let until = world.now_ms + world.random.pick(&[0, 1, 5, 100, 2000]);
        while world.now_ms < until {
            world.tick();
        }
    }
    come_to_an_end(world);
    // What went wrong has left no trace: runs have results.
    world.faults = 0;
    for index in 0..shards.min(3) {
        world.run(index);
    }
    come_to_an_end(world);
}

fn fault(world: &mut World) {
    world.faults += 1;
    let index = world.random.below(world.shards.len() as u64) as usize;
    match world.random.below(8) {
        0 => world.kill(index),
        1 => world.start(index),
        2 => {
            let ms = world.random.pick(&[200, 2000, 4000, 12_000]);
            if world.shards[index].up {
                world.shards[index].stopped_until_ms = world.now_ms + ms;
            }
        }
        3 => world.kill_worker(index),
        _ => {
            for _ in 0..world.random.between(1, 4) {
                if let Some(link) = world.any_link(index) {
                    world.break_link(index, link);
                }
            }
        }
    }
}

fn come_to_an_end(world: &mut World) {
    world.calm = true;
    for index in 0..world.shards.len() {
        world.start(index);
    }
    // Longer than any deadline.
    let until = world.now_ms + 120_000 + world.latency_ms * 300;
    let mut quiet = 0;
    // Messages are sent each second, so links are looked at one by one.
    let mut with_messages = world.links();
    while world.now_ms < until {
        world.tick();
        // Digests are compared each second.
        let settled = world.unanswered() == 0 && world.executions() == 0 && world.has_all_links();
        quiet = if settled { quiet + 1 } else { 0 };
        if settled {
            with_messages.retain(|link| world.has_messages(*link));
        } else {
            with_messages = world.links();
        }
        if quiet > 400 && with_messages.is_empty() && agree(world).is_ok() {
            break;
        }
    }
    if world.unanswered() > 0 {
        let executions: Vec<String> = world
            .shards
            .iter()
            .enumerate()
            .flat_map(|(index, shard)| {
                shard.engine.shared_executions().into_iter().map(move |text| format!("shard {index}: {text:.700}"))
            })
            .collect();
        violated("each client is answered", format!("{} wait: {executions:#?}", world.unanswered()));
    }
    if !world.has_all_links() {
        violated("shards have links to each other", "a link is missing");
    }
    if let Some((from, to)) = with_messages.first() {
        violated("messages are acknowledged", format!("there always are some of shard {from} to shard {to}"));
    }
    if world.executions() > 0 {
        violated("executions end in all workers", format!("{} are left", world.executions()));
    }
    if let Err(text) = agree(world) {
        violated("all shards have the same registrations", text);
    }
    let names: Vec<String> = registrations(&world.shards[0].engine).into_iter().map(|(name, _)| name).collect();
    if let Some(missing) = world.acknowledged.iter().find(|name| !names.contains(name)) {
        violated("a registration that all shards have acknowledged stays", format!("{missing} is not in {names:?}"));
    }
    // Also one that waits for the trigger of another one is there.
    let saved: Vec<String> = saved_sessions(&world.shards[0].engine).into_iter().map(|session| session.name).collect();
    let mut kept = world.on_its_way.keys().filter(|name| !world.refused.contains(*name));
    if let Some(missing) = kept.find(|name| !saved.contains(name)) {
        violated("shards get a registration when they are back", format!("{missing} is not in {saved:?}"));
    }
    for shard in &world.shards {
        if let Some(text) = shard.engine.audit().inconsistencies.first() {
            violated("the parts of the engine agree", text.clone());
        }
    }
}

/// The sessions with registrations, as they are saved.
fn saved_sessions(engine: &Engine) -> Vec<SavedSession> {
    match engine.saved().map(|saved| Change::decode(&saved).unwrap()) {
        Some(Change::All { sessions, .. }) => sessions,
        _ => Vec::new(),
    }
}

fn agree(world: &World) -> Result<(), String> {
    let all = |index: usize| {
        let mut sessions = saved_sessions(&world.shards[index].engine);
        sessions.sort_by(|one, other| one.name.cmp(&other.name));
        let described = sessions.into_iter().map(|session| {
            let version = session.version.map(|version| (version.time, version.run));
            let mut ids: Vec<(u64, Option<String>)> =
                session.registrations.into_iter().map(|found| (found.number, found.shard)).collect();
            ids.sort();
            (session.name, version, ids)
        });
        described.collect::<Vec<_>>()
    };
    let first = all(0);
    for index in 1..world.shards.len() {
        let other = all(index);
        if other != first {
            return Err(format!("shard {index} has {other:?}, shard 0 {first:?}"));
        }
    }
    Ok(())
}

/// Lets time pass.
fn until(world: &mut World, at_ms: u64) {
    while world.now_ms < at_ms {
        world.tick();
    }
}

/// A shard that has missed the registration of a trigger registers another one, and the answers of the others are lost.
#[test]
fn a_registration_whose_trigger_another_shard_has_is_kept_when_answers_are_lost() {
    let mut kept = 0;
    for latency_ms in [3, 40, 150] {
        for later_ms in 0..60 {
            let mut world = World::of(Random(latency_ms * 100 + later_ms), 3, latency_ms, None);
            (0..3).for_each(|index| world.start(index));
            until(&mut world, 4000 + latency_ms * 4);
            world.shards[1].stopped_until_ms = world.now_ms + 12_000;
            world.register_named(0, "earlier", "one");
            let resumed_ms = world.now_ms + 12_000;
            until(&mut world, resumed_ms);
            while !world.has_all_links() {
                world.tick();
            }
            world.register_named(1, "later", "one");
            let now_ms = world.now_ms;
            // It is stopped again before the answers arrive, until the others give them up.
            until(&mut world, now_ms + 1 + later_ms * latency_ms / 10);
            world.shards[1].stopped_until_ms = world.now_ms + 12_000;
            let resumed_ms = world.now_ms + 12_000;
            until(&mut world, resumed_ms + 2000);
            kept += u64::from(world.on_its_way.contains_key("later"));
            come_to_an_end(&mut world);
        }
    }
    assert!(kept > 5, "{kept}");
}

/// A shard that has missed a change hears of the next one before it has caught up.
#[test]
fn a_registration_that_a_shard_has_missed_stays_when_another_one_follows_at_once() {
    for latency_ms in [0, 3, 40, 150] {
        for later_ms in 0..40 {
            let mut world = World::of(Random(latency_ms * 100 + later_ms), 3, latency_ms, None);
            (0..3).for_each(|index| world.start(index));
            until(&mut world, 4000 + latency_ms * 4);
            let stopped = world.shards[1].id;
            world.shards[1].stopped_until_ms = world.now_ms + 12_000;
            world.register_named(0, "missed", "one");
            let resumed_ms = world.now_ms + 12_000;
            until(&mut world, resumed_ms);
            assert_eq!(world.on_its_way.keys().collect::<Vec<_>>(), ["missed"]);
            while !world.shards[0].engine.has_link(stopped) {
                world.tick();
            }
            let now_ms = world.now_ms;
            until(&mut world, now_ms + later_ms);
            world.register_named(0, "next", "two");
            come_to_an_end(&mut world);
        }
    }
}

fn run_seed(seed: u64, bug: Option<Bug>, traced: bool, prints: bool) -> Result<[u64; 3], Failure> {
    let mut world = World::new(seed, number_of("SIMULATION_SHARDS").unwrap_or(SHARDS_MAX), bug);
    if traced {
        world.trace = Some(Default::default());
        world.prints = prints;
    }
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    match result {
        Ok(()) => Ok(world.counts),
        Err(payload) => {
            let (invariant, text) = match payload.downcast::<Violation>() {
                Ok(violation) => (violation.invariant.to_owned(), violation.text),
                Err(_) => ("the engine does not panic".to_owned(), last_panic()),
            };
            let trace = world.trace.take().map(Vec::from).unwrap_or_default();
            Err(Failure { seed, invariant, text, trace })
        }
    }
}

/// Runs seeds; returns the failures, and what the others counted.
fn run_seeds(first: u64, count: u64, bug: Option<Bug>, stop_at_first: bool) -> (Vec<Failure>, [u64; 3]) {
    let sums = Mutex::new([0; 3]);
    let failures = seeds::run_seeds(first, count, stop_at_first, |seed| {
        let counts = run_seed(seed, bug, false, false)?;
        sums.lock().unwrap().iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        Ok(())
    });
    (failures, sums.into_inner().unwrap())
}

#[test]
fn shards_act_as_one() {
    keep_panics();
    if let Some(seed) = number_of("SIMULATION_SEED") {
        let result = in_thread(|| run_seed(seed, None, true, true));
        if let Err(failure) = result {
            panic!("{}", Failure { trace: Vec::new(), ..failure });
        }
        return;
    }
    let first = number_of("SIMULATION_FIRST").unwrap_or(0);
    let (failures, counts) = run_seeds(first, number_of("SIMULATION_SEEDS").unwrap_or(SEEDS), None, false);
    println!("{} runs with results, {} with errors, {} registrations on all shards", counts[0], counts[1], counts[2]);
    let Some(first) = failures.first() else {
        assert!(counts[0] > counts[1], "most runs have results");
        return;
    };
    let traced = in_thread(|| run_seed(first.seed, None, true, false)).err();
    let seeds: Vec<String> = failures
        .iter()
        .map(|failure| format!("{}: {}: {:.200}", failure.seed, failure.invariant, failure.text))
        .collect();
    panic!("{}\n{} seeds failed:\n{}", traced.unwrap_or(first.clone()), failures.len(), seeds.join("\n"));
}

#[test]
fn each_planted_bug_is_found() {
    keep_panics();
    for bug in Bug::OF_SHARDS {
        let (failures, _) = run_seeds(0, SEEDS, Some(bug), true);
        let Some(found) = failures.first() else { panic!("{SEEDS} seeds did not find {bug:?}") };
        println!("{bug:?}: seed {}: not true: {}: {:.200}", found.seed, found.invariant, found.text);
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    keep_panics();
    let lines = |seed: u64| {
        in_thread(|| {
            let mut world = World::new(seed, SHARDS_MAX, None);
            world.trace = Some(Default::default());
            let result = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
            (result.is_ok(), world.now_ms, world.trace)
        })
    };
    for seed in 0..3 {
        assert_eq!(lines(seed), lines(seed));
    }
}
