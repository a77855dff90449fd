//! `redgrease call`: sends any command and prints its reply.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use redis::{ConnectionLike, ProtocolVersion, Value};

use crate::args::Call;
use crate::failure::{self, Class, Failure};
use crate::output::{print, print_bytes, say};
use crate::reply;

pub fn run(args: &Call) -> Result<ExitCode> {
    let command = packed(args)?;
    let target = args.connection.target()?;
    // RESP3 distinguishes maps, doubles and booleans, as JSON does; people are used to RESP2.
    let protocol = if args.json { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
    let mut connection = target.connect(protocol, args.timeout)?;
    let value = match connection.req_packed_command(&command) {
        Ok(value) => value,
        Err(error) if error.is_timeout() => {
            let what = format!("no reply within {:?} (--timeout)", args.timeout.unwrap_or_default());
            return Err(Failure::plain(Class::Timeout, what).into());
        }
        Err(error) => match error.code() {
            Some(code) => {
                let text = format!("{code} {}", error.detail().unwrap_or_default());
                return error_reply(&text, failure::of_command(error, &target.place()), args.json);
            }
            None if error.is_connection_dropped() && ends_the_connection(&args.command) => {
                let command = args.command[0].to_string_lossy().to_ascii_uppercase();
                say(format_args!("{} closed the connection, as {command} requests", target.place()));
                return Ok(ExitCode::SUCCESS);
            }
            None => return Err(failure::of_command(error, &target.place()).into()),
        },
    };
    if let Value::ServerError(error) = &value {
        let failure = failure::of_command(error.clone().into(), &target.place());
        return error_reply(&reply::error_text(error), failure, args.json);
    }
    if args.json {
        print(&format!("{}\n", reply::json(&value)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text =
        if args.raw || !(args.no_raw || stdout().is_terminal()) { reply::raw(&value) } else { reply::typed(&value) };
    print_bytes(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a server that executes the command closes the connection without a reply. Other commands that close it, such as
/// QUIT and CLIENT KILL, are answered first.
fn ends_the_connection(command: &[OsString]) -> bool {
    const DEBUG_CRASHES: [&str; 6] = ["RESTART", "CRASH-AND-RECOVER", "SEGFAULT", "PANIC", "ASSERT", "OOM"];
    let is = |word: &OsString, name: &str| word.eq_ignore_ascii_case(name);
    match command {
        [name, options @ ..] if is(name, "SHUTDOWN") => !options.iter().any(|option| is(option, "ABORT")),
        [name, subcommand, ..] if is(name, "DEBUG") => DEBUG_CRASHES.iter().any(|crash| is(subcommand, crash)),
        _ => false,
    }
}

/// The encoded command; arguments are sent unchanged.
fn packed(args: &Call) -> Result<Vec<u8>> {
    let mut command = redis::Cmd::new();
    for word in &args.command {
        command.arg(word.as_bytes());
    }
    if args.stdin {
        let mut last = Vec::new();
        stdin().read_to_end(&mut last).context("stdin (-x) cannot be read")?;
        command.arg(last);
    }
    Ok(command.get_packed_command())
}

/// Prints an error reply in the words of the server, and the fix if it is known.
fn error_reply(text: &str, failure: Failure, as_json: bool) -> Result<ExitCode> {
    let text = text.trim_end();
    let line = match &failure.fix {
        _ if as_json => serde_json::json!({ "error": text }).to_string(),
        Some(fix) => format!("(error) {text}\nfix: {fix}"),
        None => format!("(error) {text}"),
    };
    say(line);
    Ok(ExitCode::from(failure.class.exit_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_end_the_server_are_those_without_a_reply() {
        let ends = |line: &str| ends_the_connection(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["SHUTDOWN", "shutdown nosave", "SHUTDOWN NOW FORCE", "debug restart 10", "DEBUG SEGFAULT"] {
            assert!(ends(line), "{line}");
        }
        for line in
            ["SHUTDOWN ABORT", "shutdown abort", "QUIT", "DEBUG SLEEP 0", "DEBUG", "GET shutdown", "CLIENT KILL ID 1"]
        {
            assert!(!ends(line), "{line}");
        }
    }
}
