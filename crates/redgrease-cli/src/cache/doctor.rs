//! `redgrease cache doctor`: what the library's examination found.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::{Error, FileCache, Finding, Level};
use serde_json::json;

use super::args::Doctor;
use crate::output::print;

pub fn run(args: &Doctor) -> Result<ExitCode> {
    let findings = match args.place.open_to_look() {
        Ok(cache) => cache.doctor()?,
        // A damaged cache may fail to open.
        Err(error) => FileCache::doctor_unopened(&args.place.options(), &error.downcast::<Error>()?),
    };
    print(&findings.iter().map(|finding| told(finding, args.place.json)).collect::<String>())?;
    let is_ill = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if is_ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn told(finding: &Finding, is_json: bool) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    if is_json {
        format!("{}\n", json!({ "level": level, "name": finding.name, "message": finding.message }))
    } else {
        format!("{level:<7}  {}: {}\n", finding.name, finding.message)
    }
}
