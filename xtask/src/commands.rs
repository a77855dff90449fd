//! The pages of the commands, made from the table in `redgrease-core`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use redgrease_core::command_docs::{COMMANDS, CommandDoc, SINCE};

const DIRECTORY: &str = "docs/commands";

const HEAD: &str = "\
# Commands

Clients send these commands as any other. The server describes them, too: `COMMAND DOCS rg.pyexecute`.

These pages are generated from `crates/redgrease-core/src/command_docs.rs` by `cargo run -p xtask -- commands --write`.

| Command | What it does |
|---|---|
";

/// The pages by their file names.
fn pages() -> BTreeMap<String, String> {
    let rows = COMMANDS.iter().map(|command| {
        let Link { file, name } = link(command);
        format!("| [`{name}`]({file}) | {} |\n", command.summary)
    });
    let index = HEAD.to_owned() + &rows.collect::<String>();
    let mut pages: BTreeMap<String, String> = COMMANDS.iter().map(|one| (link(one).file, page(one))).collect();
    pages.insert("README.md".to_owned(), index);
    pages
}

struct Link {
    file: String,
    name: &'static str,
}

fn link(command: &CommandDoc) -> Link {
    Link { file: format!("{}.md", command.name.to_lowercase()), name: command.name }
}

fn page(command: &CommandDoc) -> String {
    let CommandDoc { name, syntax, summary, complexity, reply, notes } = command;
    let syntax = format!("{name} {syntax}");
    // Links in the table are from `docs`.
    let notes = notes.replace("](configuration.md", "](../configuration.md");
    let notes = if notes.is_empty() { String::new() } else { format!("\n{notes}\n") };
    let rows = [("Reply", *reply), ("Time complexity", *complexity), ("Since", SINCE)];
    let rows = rows.map(|(fact, text)| format!("| {fact} | {} |\n", text.replace('|', "\\|")));
    let table = format!("| | |\n|---|---|\n{}", rows.concat());
    format!("# {name}\n\n{summary}.\n\n```\n{}\n```\n{notes}\n{table}", syntax.trim_end())
}

/// Writes the pages, and removes those of commands that do not exist.
pub fn write(root: &Path) -> Result<()> {
    let directory = root.join(DIRECTORY);
    std::fs::create_dir_all(&directory)?;
    let pages = pages();
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        if !pages.contains_key(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for (file, text) in pages {
        std::fs::write(directory.join(&file), text).with_context(|| format!("{DIRECTORY}/{file} cannot be written"))?;
    }
    Ok(())
}

/// Compares the pages with the table.
pub fn check(root: &Path) -> Result<()> {
    let pages = pages();
    let differs = |(file, text): &(&String, &String)| {
        std::fs::read_to_string(root.join(DIRECTORY).join(file)).unwrap_or_default() != **text
    };
    let present = std::fs::read_dir(root.join(DIRECTORY)).map(Iterator::count).unwrap_or(0);
    if let Some((file, _)) = pages.iter().find(differs) {
        bail!("{DIRECTORY}/{file} is not what the table says: run cargo run -p xtask -- commands --write");
    }
    if present != pages.len() {
        bail!("{DIRECTORY} has {present} files instead of {}: run cargo run -p xtask -- commands --write", pages.len());
    }
    println!("commands: {} pages in {DIRECTORY}", pages.len());
    Ok(())
}
