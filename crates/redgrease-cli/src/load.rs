//! `redgrease PATH...`: loads scripts, and with `--watch` loads them again when they change.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_loader::arguments::Arguments;
use redgrease_loader::settings::{Settings, default_config_files};

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let directory = std::env::current_dir()?;
    let variable = |name: &str| std::env::var(name).ok();
    let _settings = Settings::resolve(arguments.layer(), variable, &default_config_files(&directory))?;
    Ok(ExitCode::SUCCESS)
}
