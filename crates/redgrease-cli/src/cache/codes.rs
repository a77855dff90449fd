//! `redgrease cache codes`: the exit codes, one for each error code of the cache.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::Code;
use serde_json::json;

use super::args::Codes;
use crate::output::print;

pub const CODES: [Code; 14] = [
    Code::Missing,
    Code::Exists,
    Code::Busy,
    Code::Timeout,
    Code::LeaseLost,
    Code::TooLarge,
    Code::NoSpace,
    Code::Denied,
    Code::Corrupt,
    Code::Unavailable,
    Code::Io,
    Code::BadKey,
    Code::BadConfig,
    Code::Producer,
];

pub fn run(args: &Codes) -> Result<ExitCode> {
    let line = |code: &Code| {
        let (status, name) = (code.exit_status(), code.as_str());
        if args.json {
            format!("{}\n", json!({ "status": status, "code": name }))
        } else {
            format!("{status:>3}  {name}\n")
        }
    };
    print(&CODES.iter().map(line).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_looks_like_success() {
        assert!(CODES.iter().all(|code| code.exit_status() != 0));
    }
}
