//! What a run costs: messages between shards, and their bytes, by the number of shards and records. `docs/scaling.md` has the
//! numbers.
//!
//! ```sh
//! cargo test --release -p redgrease-engine --test shards costs -- --nocapture
//! SIMULATION_COSTS=200 cargo test --release -p redgrease-engine --test shards costs -- --nocapture  # so many shards
//! ```

use crate::plans;
use crate::random::Random;
use crate::world::World;

/// Messages and bytes of one run, without those that are sent each second whether anything runs or not.
fn cost(shards: usize, records: usize, steps: &[&str]) -> [u64; 2] {
    let mut world = World::of(Random(7), shards, 0, None);
    for number in 0..records {
        world.add_key(format!("{}{number}", char::from(b'a' + (number % 26) as u8)));
    }
    for index in 0..shards {
        world.start(index);
    }
    while !world.has_all_links() || world.now_ms < 3500 {
        world.tick();
    }
    let plan = plans::of_steps(steps, &mut world.random);
    // The first run sends the function, too.
    let mut last = [0; 2];
    for _ in 0..2 {
        while world.now_ms % 1000 > 300 {
            world.tick();
        }
        let before = world.sent;
        world.run_plan(0, &plan);
        while world.unanswered() > 0 || world.executions() > 0 {
            world.tick();
        }
        last = [world.sent[0] - before[0], world.sent[1] - before[1]];
    }
    last
}

#[test]
fn costs_of_a_run_grow_with_shards_and_records_as_documented() {
    println!("| Steps | Shards | Records | Messages | Bytes |\n|---|---|---|---|---|");
    let chosen: Option<Vec<usize>> = std::env::var("SIMULATION_COSTS")
        .ok()
        .map(|text| text.split(',').map(|number| number.parse().expect("SIMULATION_COSTS has numbers")).collect());
    let or_chosen = |usual: &[usize]| chosen.clone().unwrap_or_else(|| usual.to_vec());
    // Every message is from the initiator or to it.
    for shards in or_chosen(&[3, 10, 30, 100]) {
        for records in [100, 1000] {
            let messages = shown(&["count"], shards, records);
            assert!(messages <= 12 * shards as u64, "{messages} messages of {shards} shards");
        }
    }
    // Each shard tells each other one that it has no more records. A simulated worker sends each record by itself, and its
    // receiver says that it has consumed it.
    for shards in or_chosen(&[3, 10, 30]) {
        for records in [100, 1000] {
            let messages = shown(&["repartition", "count"], shards, records);
            let most = 12 * shards + 6 * shards * shards + 2 * records;
            assert!(messages <= most as u64, "{messages} messages of {shards} shards for {records} records");
        }
    }
}

fn shown(steps: &[&str], shards: usize, records: usize) -> u64 {
    let [messages, bytes] = cost(shards, records, steps);
    println!("| {} | {shards} | {records} | {messages} | {bytes} |", steps.join(", "));
    messages
}
