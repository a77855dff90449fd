//! `redgrease cache evict`: entries by size, age, idleness or prefix.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache as filecache;
use serde_json::{Value, json};

use super::args::Evict;
use super::keys;
use crate::output::{counted, print, say};
use crate::units::show_bytes;

pub fn run(args: &Evict) -> Result<ExitCode> {
    let what = filecache::Evict {
        to_bytes: args.to_bytes,
        older_than: args.older_than,
        idle_for: args.idle_for,
        prefix: args.prefix.as_deref().map(|word| args.form.key(word)).transpose()?,
        dry_run: args.dry_run,
    };
    let evicted = args.place.open_existing()?.evict(&what)?;
    if args.place.json {
        let keys: Vec<Value> = evicted.keys.iter().map(|key| keys::json(key)).collect();
        let told = json!({ "entries": evicted.entries, "bytes": evicted.bytes, "dry_run": args.dry_run, "keys": keys });
        print(&format!("{told}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let amount = format!("{}, {}", counted(evicted.entries, "entry", "entries"), show_bytes(evicted.bytes));
    if args.dry_run {
        print(&evicted.keys.iter().map(|key| format!("{}\n", keys::shown(key))).collect::<String>())?;
        let unnamed = evicted.entries.saturating_sub(evicted.keys.len() as u64);
        let more = if unnamed == 0 { String::new() } else { format!(" ({unnamed} not listed)") };
        say(format_args!("would evict {amount}{more}"));
    } else {
        say(format_args!("evicted {amount}"));
    }
    Ok(ExitCode::SUCCESS)
}
