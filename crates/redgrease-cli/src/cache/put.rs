//! `redgrease cache put`: an entry from a file or stdin.

use std::fs::File;
use std::io::{self, IsTerminal, Read, stdin};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use redgrease_filecache as filecache;

use super::args::Put;
use super::refusal::cause;
use super::stat::entry_json;
use crate::misuse::misuse;
use crate::output::print;

pub fn run(args: &Put) -> Result<ExitCode> {
    let key = args.form.key(&args.key)?;
    let (mut source, size) = source(args.file.as_deref())?;
    let put = filecache::Put {
        timeout: args.timeout,
        ttl: args.ttl,
        size,
        content_type: args.content_type.clone(),
        user: args.metadata.iter().cloned().collect(),
    };
    let cache = args.place.open()?;
    let mut writer = if args.replace { cache.open_replace(&key, &put)? } else { cache.open_write(&key, &put)? };
    if let Err(error) = io::copy(&mut source, &mut writer) {
        writer.abort();
        return Err(cause(error, "copying broke off"));
    }
    let entry = writer.commit()?;
    if args.place.json {
        print(&format!("{}\n", entry_json(&entry)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The input, and its size if it is known.
fn source(file: Option<&Path>) -> Result<(Box<dyn Read>, Option<u64>)> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        if file.is_none() && stdin().is_terminal() {
            return Err(misuse("no input: name a file, or - for stdin"));
        }
        return Ok((Box::new(stdin()), None));
    };
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(misuse(format!("{} is a directory: an entry holds the bytes of one file", path.display())));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}
