//! `redgrease cache clear`: removes all entries, after confirmation.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::args::Clear;
use crate::misuse::misuse;
use crate::output::{counted, print, say};

pub fn run(args: &Clear) -> Result<ExitCode> {
    let is_watched = stdin().is_terminal() && stderr().is_terminal();
    if !args.yes && !is_watched {
        return Err(misuse(
            "clear removes every entry and needs a terminal to confirm it: add --yes to skip the confirmation",
        ));
    }
    let cache = args.place.open_existing()?;
    if !args.yes {
        let entries = counted(cache.info()?.entries, "entry", "entries");
        write!(stderr(), "Remove {entries} from {}? [y/N] ", args.place.dir.display())?;
        stderr().flush()?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            say("nothing was removed");
            return Ok(ExitCode::FAILURE);
        }
    }
    let removed = cache.clear()?;
    if args.place.json {
        print(&format!("{}\n", json!({ "entries": removed })))?;
    } else {
        say(format_args!("removed {}", counted(removed, "entry", "entries")));
    }
    Ok(ExitCode::SUCCESS)
}
