//! `redgrease cache get`: an entry's bytes.

use std::fs::{self, File};
use std::io::{self, Seek, Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use redgrease_filecache::Handle;

use super::args::Get;
use super::refusal::cause;
use super::stat::entry_json;
use crate::output::print;

pub fn run(args: &Get) -> Result<ExitCode> {
    let key = args.form.key(&args.key)?;
    if args.place.json && args.output.is_none() {
        return Err(crate::misuse::misuse(
            "--json prints information about the entry, so its content needs a file: add --output FILE",
        ));
    }
    let mut handle = open_whole(args, &key)?;
    match &args.output {
        Some(path) => write_file(&mut handle, path).with_context(|| format!("{} cannot be written", path.display()))?,
        None => {
            let mut out = stdout().lock();
            io::copy(&mut handle, &mut out)?;
            out.flush()?;
        }
    }
    if args.place.json {
        print(&format!("{}\n", entry_json(&handle.stat())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens an entry and reads it completely once, so that no byte of damaged content is printed.
fn open_whole(args: &Get, key: &[u8]) -> Result<Handle> {
    let mut handle = args.place.open_to_look()?.open_read(key, args.timeout)?;
    io::copy(&mut handle, &mut io::sink()).map_err(|error| cause(error, "the entry cannot be read"))?;
    handle.rewind()?;
    Ok(handle)
}

/// Writes a temporary file and renames it, so that the target is never partly written. Pipes and devices are written
/// directly.
fn write_file(handle: &mut Handle, path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return io::copy(handle, &mut File::options().write(true).open(path)?).map(drop);
    }
    // Through a link, as other programs do.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.part", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&beside)
        .and_then(|mut file| io::copy(handle, &mut file))
        .and_then(|_| fs::rename(&beside, &path));
    if written.is_err() {
        let _never_made = fs::remove_file(&beside);
    }
    written
}
