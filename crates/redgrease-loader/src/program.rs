//! The program: loads what is named, and watches it if asked to.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::connection::Target;
use crate::error::{Class, Error};
use crate::files::Root;
use crate::loader::Loader;
use crate::log::{Level, Log};
use crate::patterns::Kind;
use crate::redis_server::RedisServer;
use crate::settings::{LoaderSettings, Settings};
use crate::watch::{Control, Watch};

/// A loader that is connected to its server.
///
/// # Errors
/// The address is none, no server answers, or it does not have the module.
pub fn connected(settings: LoaderSettings, log: Log) -> Result<Loader, Error> {
    let server = RedisServer::new(Target::new(&settings.connection)?);
    let mut loader = Loader::new(settings, Box::new(server), log);
    loader.connect()?;
    Ok(loader)
}

/// Loads files and directories, and with `watch` keeps running until it is stopped with what `on_watch` gets.
/// Returns the exit code: 0, or 1 if files could not be loaded.
///
/// # Errors
/// Nothing could be loaded or watched.
pub fn run(settings: Settings, paths: &[PathBuf], log: Log, on_watch: impl FnOnce(Control)) -> Result<u8, Error> {
    for note in &settings.notes {
        log(Level::Warning, note);
    }
    let roots = paths.iter().map(|path| Root::new(path, settings.recursive)).collect::<Result<Vec<_>, _>>()?;
    let Some(delay) = settings.watch else {
        let mut loader = connected(settings.loader, log)?;
        loader.add(roots)?;
        return Ok(summary(&loader));
    };
    let mut watch = Watch::new(delay)?;
    on_watch(watch.control());
    let mut loader = connected(settings.loader, log)?;
    loader.add(roots)?;
    summary(&loader);
    loader.log(Level::Info, &format!("watching; files are loaded {} s after their last change", delay.as_secs_f64()));
    let loader = Mutex::new(loader);
    watch.run(&loader)?;
    let loader = loader.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    loader.log(Level::Info, "stopped");
    Ok(exit_code(&loader))
}

fn exit_code(loader: &Loader) -> u8 {
    if loader.failed().is_empty() { 0 } else { Class::Failed.exit_code() }
}

/// Logs how many files were loaded; returns the exit code.
fn summary(loader: &Loader) -> u8 {
    let failed = loader.failed();
    let files = loader.count(Kind::Script) + loader.count(Kind::Requirements);
    if failed.is_empty() {
        let noun = if files == 1 { "file" } else { "files" };
        loader.log(Level::Info, &format!("{files} {noun} loaded into {}", loader.place()));
    } else {
        let names: Vec<String> = failed.iter().map(|path| path.display().to_string()).collect();
        loader.log(Level::Error, &format!("{} of {files} files were not loaded: {}", failed.len(), names.join(", ")));
    }
    exit_code(loader)
}
