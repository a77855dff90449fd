//! `redgrease cache locks`: readers, writers and waiting writers.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::Lock;
use serde_json::{Value, json};

use super::args::Locks;
use super::keys;
use crate::output::{print, say};
use crate::table::Table;
use crate::units::show_duration;

pub fn run(args: &Locks) -> Result<ExitCode> {
    if let Some(word) = &args.break_key {
        let key = args.form.key(word)?;
        if !args.place.open_existing()?.break_lock(&key)? {
            say(format_args!("redgrease: no lock is held on {}", keys::shown(&key)));
            return Ok(ExitCode::FAILURE);
        }
        if args.place.json {
            print(&format!("{}\n", json!({ "key": keys::json(&key), "broken": true })))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let locks = args.place.open_to_look()?.locks()?;
    print(&if args.place.json {
        locks.iter().map(|lock| format!("{}\n", lock_json(lock))).collect()
    } else {
        table(&locks)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Locks as a table; no heading if there are none.
pub fn table(locks: &[Lock]) -> String {
    if locks.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["KIND", "OWNER", "AGE", "LEFT", "FENCE", "KEY"], &[2, 3, 4]);
    for lock in locks {
        table.add(vec![
            lock.kind.as_str().to_owned(),
            keys::shown(lock.owner.as_bytes()),
            lock.age.map_or("-".to_owned(), show_duration),
            show_duration(lock.left),
            lock.fence.to_string(),
            keys::shown(&lock.key),
        ]);
    }
    table.text()
}

fn lock_json(lock: &Lock) -> Value {
    json!({
        "key": keys::json(&lock.key),
        "kind": lock.kind.as_str(),
        "owner": lock.owner,
        "age": lock.age.map(|age| age.as_secs_f64()),
        "left": lock.left.as_secs_f64(),
        "fence": lock.fence,
    })
}
