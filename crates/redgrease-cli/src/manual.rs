//! `redgrease completions` and `redgrease man`: what the definition of the command line says, for shells and for `man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::Shell;

use crate::output::print_bytes;

/// Print a script that completes commands and options in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease completions bash > ~/.local/share/bash-completion/completions/redgrease\n\
    \x20 redgrease completions zsh > \"${fpath[1]}/_redgrease\"\n\
    \x20 redgrease completions fish > ~/.config/fish/completions/redgrease.fish")]
pub struct Completions {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease man | man -l -\n\
    \x20 redgrease man --dir ~/.local/share/man/man1")]
pub struct Man {
    /// Folder for the pages; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

pub fn completions(args: &Completions, mut command: clap::Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "redgrease", &mut script);
    print_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: &Man, command: clap::Command) -> Result<ExitCode> {
    if let Some(folder) = &args.dir {
        let problem = || format!("the pages cannot be written to {}", folder.display());
        std::fs::create_dir_all(folder).with_context(problem)?;
        clap_mangen::generate_to(command, folder).with_context(problem)?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print_bytes(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}
