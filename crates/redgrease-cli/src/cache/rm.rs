//! `redgrease cache rm`: entries by name.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::args::Rm;
use super::keys;
use super::stat::missing;
use crate::output::print;

pub fn run(args: &Rm) -> Result<ExitCode> {
    let keys: Vec<Vec<u8>> = args.keys.iter().map(|word| args.form.key(word)).collect::<Result<_>>()?;
    let cache = args.place.open_existing()?;
    let mut code = ExitCode::SUCCESS;
    for key in &keys {
        let removed = cache.delete(key)?;
        if args.place.json {
            print(&format!("{}\n", json!({ "key": keys::json(key), "removed": removed })))?;
        }
        if !removed && !args.force {
            code = missing(key, args.place.json);
        }
    }
    Ok(code)
}
