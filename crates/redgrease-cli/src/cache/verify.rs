//! `redgrease cache verify` and `repair`: compare index and files.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::{Depth, Verification};
use serde_json::{Value, json};

use super::args::{Repair, Verify};
use super::keys;
use crate::output::{counted, print, say};
use crate::terminal::Progress;
use crate::units::show_bytes;

pub fn verify(args: &Verify) -> Result<ExitCode> {
    let cache = args.place.open_to_look()?;
    let mut progress = Progress::new("verifying", args.quiet);
    let found = cache.verify(depth(args.digests), &mut |done, total| progress.show(done, total))?;
    drop(progress);
    print_report(&found, args.place.json)?;
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn repair(args: &Repair) -> Result<ExitCode> {
    let cache = args.place.open_existing()?;
    let mut progress = Progress::new("repairing", args.quiet);
    let found = cache.repair(depth(args.digests), &mut |done, total| progress.show(done, total))?;
    drop(progress);
    print_report(&found, args.place.json)?;
    Ok(if found.problems.iter().all(|problem| problem.repaired) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn depth(digests: bool) -> Depth {
    if digests { Depth::Digests } else { Depth::Sizes }
}

fn print_report(found: &Verification, is_json: bool) -> Result<()> {
    if is_json {
        return print(&format!("{}\n", to_json(found)));
    }
    let line = |problem: &redgrease_filecache::Problem| {
        let repaired = if problem.repaired { " (repaired)" } else { "" };
        format!("{} {}: {}{repaired}\n", problem.kind.as_str(), keys::shown(problem.name.as_bytes()), problem.message)
    };
    print(&found.problems.iter().map(line).collect::<String>())?;
    say(format_args!(
        "{} in {}, {}: {}",
        counted(found.entries, "entry", "entries"),
        counted(found.files, "file", "files"),
        show_bytes(found.bytes),
        if found.problems.is_empty() {
            "all agree".to_owned()
        } else {
            counted(found.problems.len() as u64, "problem", "problems")
        }
    ));
    Ok(())
}

pub fn to_json(found: &Verification) -> Value {
    let problems: Vec<Value> = found
        .problems
        .iter()
        .map(|problem| {
            json!({
                "kind": problem.kind.as_str(),
                "name": problem.name,
                "message": problem.message,
                "repaired": problem.repaired,
            })
        })
        .collect();
    json!({ "entries": found.entries, "files": found.files, "bytes": found.bytes, "problems": problems })
}
