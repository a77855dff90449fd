//! `redgrease trigger`: runs a function that is registered under a name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use redgrease::{Error, GearsCommands};

use crate::connection::ConnectionOptions;
use crate::failure::{Class, Failure};
use crate::gears;
use crate::output::say;
use crate::results::Format;
use crate::units::seconds;

/// Run a registered function by its name, and print the results
///
/// These are functions of a CommandReader, or of @command.
/// Options come before the name: everything behind it is passed to the function.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease trigger visit ada\n\
    \x20 redgrease trigger --json price tea 3")]
pub struct Trigger {
    /// Give up if the reply takes longer; the function still runs [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub format: Format,
    /// Name of the function
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Arguments of the function
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &Trigger) -> Result<ExitCode> {
    let began = Instant::now();
    let mut connection = gears::open(&args.connection.target()?, args.timeout)?;
    let arguments: Vec<&[u8]> = args.arguments.iter().map(|argument| argument.as_bytes()).collect();
    let results = connection.rg_trigger(&args.name, arguments).map_err(|error| failed(error, &args.name))?;
    args.format.print(&results, began.elapsed())?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: Error, name: &str) -> anyhow::Error {
    if let Error::Server(server) = &error {
        if let Some(python) = server.python() {
            say(python);
            return Failure::plain(Class::Failed, format!("the function {name} failed")).into();
        }
        if server.is_not_found() {
            let what = format!("no function is registered under the name '{name}'");
            return Failure::new(Class::Failed, what, "list them with `redgrease ls registrations`").into();
        }
    }
    gears::failed(error).into()
}
