//! `redgrease doctor`: examines a server, and says what to fix.

mod facts;
mod rules;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use serde_json::json;

use crate::connection::ConnectionOptions;
use crate::output::{colours_wanted, one_line, print};

use facts::Facts;
use rules::{Finding, Level};

/// Examine a server, and name the fix of each problem
///
/// It looks at versions, interpreter, workers, registrations, persistence, memory, access, and the nodes of a cluster. It runs a small function, and changes nothing. The exit code is 0 unless there is an error; warnings do not count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease doctor\n\x20 redgrease doctor --url rediss://example.com --json")]
pub struct DoctorArgs {
    /// Print a line of JSON for each finding
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let facts = Facts::gather(&args.connection.target()?)?;
    let findings = rules::examine(&facts, env!("CARGO_PKG_VERSION"));
    let is_coloured = colours_wanted();
    let line = |finding: &Finding| if args.json { as_json(finding) } else { as_text(finding, is_coloured) };
    print(&findings.iter().map(line).collect::<String>())?;
    let error = findings.iter().find(|finding| finding.level == Level::Error);
    Ok(error.map_or(ExitCode::SUCCESS, |finding| ExitCode::from(finding.class as u8)))
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    fn style(self) -> Style {
        match self {
            Level::Ok => AnsiColor::Green,
            Level::Warning => AnsiColor::Yellow,
            Level::Error => AnsiColor::Red,
        }
        .on_default()
    }
}

fn as_json(finding: &Finding) -> String {
    let Finding { level, name, message, fix, .. } = finding;
    format!("{}\n", json!({ "level": level.name(), "name": name, "message": message, "fix": fix }))
}

fn as_text(finding: &Finding, is_coloured: bool) -> String {
    let style = if is_coloured { finding.level.style() } else { Style::new() };
    let (level, message) = (finding.level.name(), one_line(&finding.message));
    let mut text = format!("{style}{level:<7}{style:#}  {}: {message}\n", finding.name);
    if let Some(fix) = &finding.fix {
        text += &format!("         fix: {}\n", one_line(fix));
    }
    text
}
