//! `redgrease cache`: a cache of files, looked after from the command line.
//!
//! What a library user can do is done by the library; here is only what people and scripts need around it. One file per
//! subcommand; `stress` is a folder.

pub mod args;
mod clear;
mod codes;
mod configure;
mod doctor;
mod evict;
mod get;
mod keys;
mod locks;
mod ls;
mod put;
mod refusal;
mod rm;
mod stat;
mod stress;
mod table;
mod terminal;
mod top;
mod units;
mod verify;

use std::ffi::OsStr;
use std::io::{self, Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use redgrease_filecache::{Code, Cursor, Error, FileCache, Options, Stat};

use crate::Misuse;
use args::{Cache, Command, KeyForm, NAMESPACE_VARIABLE, Place};
use refusal::Refusal;

const PAGE: usize = 1000;

pub fn run(args: Cache) -> Result<ExitCode> {
    let (name, is_json) = asked(&args.command);
    let told = dispatch(args.command).map_err(|error| match error.downcast_ref::<Error>() {
        Some(refused) => Refusal::of(name, refused).into(),
        None => error,
    });
    match told {
        Err(error) if is_json => tell_as_json(&error).ok_or(error),
        other => other,
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Ls(args) => ls::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Put(args) => put::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Evict(args) => evict::run(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Repair(args) => verify::repair(&args),
        Command::Clear(args) => clear::run(&args),
        Command::Configure(args) => configure::run(&args),
        Command::Locks(args) => locks::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Codes(args) => codes::run(&args),
        Command::Stress(args) => stress::run(&args),
        Command::StressWorker(args) => stress::work(&args),
    }
}

/// The subcommand as it is typed, and whether it shall talk JSON.
fn asked(command: &Command) -> (&'static str, bool) {
    match command {
        Command::Ls(args) => ("ls", args.place.json),
        Command::Stat(args) => ("stat", args.place.json),
        Command::Get(args) => ("get", args.place.json),
        Command::Put(args) => ("put", args.place.json),
        Command::Rm(args) => ("rm", args.place.json),
        Command::Evict(args) => ("evict", args.place.json),
        Command::Verify(args) => ("verify", args.place.json),
        Command::Repair(args) => ("repair", args.place.json),
        Command::Clear(args) => ("clear", args.place.json),
        Command::Configure(args) => ("configure", args.place.json),
        Command::Locks(args) => ("locks", args.place.json),
        Command::Top(args) => ("top", args.place.json),
        Command::Doctor(args) => ("doctor", args.place.json),
        Command::Codes(args) => ("codes", args.json),
        Command::Stress(args) => ("stress", args.json),
        Command::StressWorker(_) => ("stress-worker", false),
    }
}

/// The exit code for what a cache refused; `None` when the error is another one.
pub fn exit_status(error: &anyhow::Error) -> Option<ExitCode> {
    error.downcast_ref::<Refusal>().map(Refusal::status)
}

/// Says on stderr, in JSON, what a cache refused. `None` when the error is another one.
fn tell_as_json(error: &anyhow::Error) -> Option<ExitCode> {
    let refusal = error.downcast_ref::<Refusal>()?;
    let _nobody_listens = writeln!(stderr(), "{}", refusal.json());
    Some(refusal.status())
}

impl Place {
    /// Opens the cache; it is made when it is not there.
    fn open(&self) -> Result<FileCache> {
        let cache = FileCache::open(self.options())?;
        if !self.json {
            cache.warnings().iter().for_each(|warning| eprintln!("redgrease: warning: {warning}"));
        }
        Ok(cache)
    }

    /// Opens a cache that is there: a misspelt directory shall not become a new cache.
    fn open_existing(&self) -> Result<FileCache> {
        self.probe()?;
        self.open()
    }

    /// The same for those who only look, which one may do who may not write.
    fn open_to_look(&self) -> Result<FileCache> {
        let looking = self.probe()?;
        match self.open() {
            Err(error) if error.downcast_ref::<Error>().is_some_and(|error| error.code() == Code::Denied) => {
                looking.ok_or(error)
            }
            other => other,
        }
    }

    /// Opens the cache without changing anything; `None` when a directory that is no cache may be taken over.
    fn probe(&self) -> Result<Option<FileCache>> {
        if !self.dir.is_dir() {
            let words = format!("there is no cache in {}: name its directory with --dir", self.dir.display());
            return Err(Refusal::new(Code::BadConfig, words).into());
        }
        if self.adopt {
            return Ok(None);
        }
        let mut options = self.options();
        options.read_only = true;
        Ok(Some(FileCache::open(options)?))
    }

    fn options(&self) -> Options {
        let mut options = Options::new(&self.dir);
        options.url = self.url.clone().filter(|url| !url.is_empty());
        // An empty one in the environment is none; one that was typed is refused like other wrong ones.
        let is_none = self.namespace.is_empty() && std::env::var_os(NAMESPACE_VARIABLE).is_some_and(|it| it.is_empty());
        if !is_none {
            options.namespace.clone_from(&self.namespace);
        }
        options.adopt = self.adopt;
        // What this command does not do itself is left to the processes that live longer.
        options.maintenance = None;
        options
    }
}

impl KeyForm {
    fn key(&self, word: &OsStr) -> Result<Vec<u8>> {
        keys::parse(word, self.key_hex)
    }
}

/// Hands all entries over, in the order of the cache.
fn each_entry(cache: &FileCache, mut take: impl FnMut(Stat)) -> redgrease_filecache::Result<()> {
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let (page, after) = cache.list(cursor, PAGE)?;
        page.into_iter().for_each(&mut take);
        next = after;
    }
    Ok(())
}

/// Prints data on stdout.
fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The cache's own error, where reading or writing failed because of one.
fn cause(error: io::Error, otherwise: &'static str) -> anyhow::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().expect("just seen");
        return match inner.downcast::<Error>() {
            Ok(error) => anyhow::Error::new(*error),
            Err(other) => anyhow!(other),
        };
    }
    anyhow::Error::new(error).context(otherwise)
}

/// `1 entry`, `2 entries`.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Leaves through `?` when the command line was wrong.
fn misuse(text: impl Into<String>) -> anyhow::Error {
    Misuse(text.into()).into()
}
