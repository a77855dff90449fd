//! Loads files: runs scripts in sessions of their own, removes what they registered, and keeps the index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::catalog::{Catalog, Changes, Found};
use crate::error::{Class, Error};
use crate::explain::{exception_first, unreadable};
use crate::files::{Root, Scan, look};
use crate::log::{Level, Log};
use crate::names::{index_key, session_id};
use crate::patterns::Kind;
use crate::requirements_file;
use crate::server::{Outcome, Script, Server};
use crate::settings::LoaderSettings;

/// Attempts to load a file while the connection breaks.
const LOSSES_MAX: u32 = 3;

/// A loader, and what it has loaded.
pub struct Loader {
    settings: LoaderSettings,
    server: Box<dyn Server>,
    log: Log,
    roots: Vec<Root>,
    catalog: Catalog,
    /// The requirements of each file that lists some, as they were when they could be installed last.
    requirements: BTreeMap<PathBuf, Vec<String>>,
    /// Files during whose loads the connection broke, and how often.
    losses: BTreeMap<PathBuf, u32>,
    /// Scripts that have registrations.
    registered: BTreeSet<PathBuf>,
}

impl Loader {
    /// A loader for a server.
    pub fn new(settings: LoaderSettings, server: Box<dyn Server>, log: Log) -> Self {
        Self {
            settings,
            server,
            log,
            roots: Vec::new(),
            catalog: Catalog::default(),
            requirements: BTreeMap::new(),
            losses: BTreeMap::new(),
            registered: BTreeSet::new(),
        }
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// No connection, or the server does not have the module.
    pub fn connect(&mut self) -> Result<(), Error> {
        self.server.connect()
    }

    /// The server, for the heartbeat of a watch.
    pub fn server(&mut self) -> &mut dyn Server {
        &mut *self.server
    }

    /// The address of the server.
    pub fn place(&self) -> String {
        self.server.place()
    }

    /// The options.
    pub fn settings(&self) -> &LoaderSettings {
        &self.settings
    }

    /// What was given.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The paths of the files that could not be loaded.
    pub fn failed(&self) -> Vec<PathBuf> {
        self.catalog.failed().map(|found| found.path).collect()
    }

    /// The number of files of a kind, loaded or not.
    pub fn count(&self, kind: Kind) -> usize {
        self.catalog.of_kind(kind).count()
    }

    /// Writes a line of the log.
    pub fn log(&self, level: Level, message: &str) {
        (self.log)(level, message);
    }

    // -- what is given -------------------------------------------------------------------------------------------

    /// Loads files and directories: all requirements, then all scripts. What cannot be loaded is logged, and `failed`
    /// has it.
    ///
    /// # Errors
    /// Nothing can be loaded: no connection, no module, no permission.
    pub fn add(&mut self, roots: Vec<Root>) -> Result<(), Error> {
        for root in roots {
            if root.scan(&self.settings.patterns).found.is_empty() {
                let text = "no script and no file with requirements in it (--script-pattern, --recursive)";
                self.log(Level::Warning, &format!("{}: {text}", root.path.display()));
            }
            if !self.roots.contains(&root) {
                self.roots.push(root);
            }
        }
        self.look_again(&|_| true)
    }

    /// Loads what has changed since it was looked at, except files that `is_quiet` refuses.
    ///
    /// # Errors
    /// As `add`.
    pub fn look_again(&mut self, is_quiet: &dyn Fn(&Path) -> bool) -> Result<(), Error> {
        let mut found = BTreeMap::new();
        for Scan { found: files, unreadable, .. } in self.roots.iter().map(|root| root.scan(&self.settings.patterns)) {
            found.extend(files.into_iter().map(|file| (file.path.clone(), file)));
            unreadable.iter().for_each(|each| self.log(Level::Warning, each));
        }
        let found: Vec<Found> = found.into_values().collect();
        let mut changes = self.catalog.compare(|_| true, &found);
        changes.removed.retain(|(path, _)| is_quiet(path));
        changes.changed.retain(|found| is_quiet(&found.path));
        self.apply(&changes)
    }

    /// Loads or removes these files, if they belong to what was given.
    ///
    /// # Errors
    /// As `add`.
    pub fn look_at(&mut self, paths: &[PathBuf]) -> Result<(), Error> {
        let kind = |path: &Path| self.roots.iter().find_map(|root| root.kind(path, &self.settings.patterns));
        let found: Vec<Found> = paths.iter().filter_map(|path| look(path, kind(path)?)).collect();
        let changes = self.catalog.compare(|path| paths.iter().any(|each| each == path), &found);
        self.apply(&changes)
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        for (path, kind) in &changes.removed {
            match kind {
                Kind::Script => self.unregister_script(path)?,
                Kind::Requirements => {
                    self.requirements.remove(path);
                    let text = "is gone; its packages stay with what is loaded until that is loaded again";
                    self.log(Level::Warning, &format!("{}: {text}", path.display()));
                }
            }
            self.catalog.remove(path);
        }
        let mut requirements_changed = false;
        for found in &changes.changed {
            let is_loaded = self.load(found)?;
            requirements_changed |= is_loaded && found.kind == Kind::Requirements;
        }
        if requirements_changed {
            self.load_scripts_again(|path| changes.changed.iter().all(|found| found.path != path))?;
        }
        if !changes.removed.is_empty() {
            // A command that another file registers now was that of a removed one.
            let failed = self.failed();
            self.load_scripts_again(|path| failed.iter().any(|each| each == path))?;
        }
        Ok(())
    }

    fn load_scripts_again(&mut self, which: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let scripts: Vec<Found> = self.catalog.of_kind(Kind::Script).filter(|found| which(&found.path)).collect();
        for found in scripts {
            if let Some(found) = look(&found.path, found.kind) {
                self.load(&found)?;
            }
        }
        Ok(())
    }

    /// Loads a file; whether that worked. Errors that have to do with this file alone are logged.
    fn load(&mut self, found: &Found) -> Result<bool, Error> {
        let loaded = match found.kind {
            Kind::Script => self.register_script(&found.path),
            Kind::Requirements => self.update_dependencies(&found.path),
        };
        let Err(error) = loaded else {
            self.losses.remove(&found.path);
            self.catalog.loaded(found, false);
            return Ok(true);
        };
        let of_file = match error.class {
            Class::Failed | Class::Timeout | Class::Path => true,
            Class::Unreachable => self.is_lost_too_often(&found.path),
            _ => false,
        };
        if !of_file {
            return Err(error);
        }
        if error.class == Class::Path && !found.path.exists() {
            return Ok(false); // it went away in the meantime, which is an event of its own
        }
        self.log(Level::Error, &format!("{}: not loaded: {error}", found.path.display()));
        self.catalog.loaded(found, true);
        Ok(false)
    }

    /// Counts a load during which the connection broke: after some, the file is the likely cause.
    fn is_lost_too_often(&mut self, path: &Path) -> bool {
        let losses = self.losses.entry(path.to_owned()).or_default();
        *losses += 1;
        *losses >= LOSSES_MAX
    }

    // -- one file ------------------------------------------------------------------------------------------------

    /// Runs a script. What it registered before is replaced in one step; if it fails, that stays.
    ///
    /// # Errors
    /// It cannot be read, raises an exception, or cannot be sent.
    pub fn register_script(&mut self, path: &Path) -> Result<(), Error> {
        let name = path.display();
        let text = read(path)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            self.log(Level::Warning, &format!("{name}: it is empty; what was loaded before stays"));
            return Ok(());
        }
        let key = index_key(&self.settings.index_prefix, path);
        let session = session_id(&key);
        let before = self.registrations_of(&session)?;
        let requirements = self.all_requirements();
        let outcome = self.server.execute(&Script {
            text: &text,
            session: Some(&session),
            description: &name.to_string(),
            unblocking: self.settings.patterns.is_unblocking(path),
            requirements: &requirements,
            timeout: self.settings.timeout,
        })?;
        let mut now = self.registrations_of(&session)?;
        if now == before {
            // An upgrade gives new ids, and a script that registers nothing upgrades nothing.
            for registration in std::mem::take(&mut now) {
                self.server.unregister(&registration)?;
            }
        }
        if now.is_empty() {
            self.registered.remove(path);
        } else {
            self.registered.insert(path.to_owned());
        }
        self.record(&key, &now)?;
        self.log(Level::Info, &format!("{name}: loaded{}", summary(&now, &outcome)));
        match outcome.errors.as_slice() {
            [] => Ok(()),
            [first, more @ ..] => {
                let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
                Err(Error::plain(Class::Failed, format!("a function failed{more}: {}", exception_first(first))))
            }
        }
    }

    /// Removes what a script registered, and its index key.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    pub fn unregister_script(&mut self, path: &Path) -> Result<(), Error> {
        let key = index_key(&self.settings.index_prefix, path);
        let mut registrations = self.registrations_of(&session_id(&key))?;
        if registrations.is_empty() {
            // It was loaded by another program, which does not use sessions.
            registrations.extend(self.server.read_hash(&key, "registration_id")?);
        }
        let mut removed = 0;
        for registration in &registrations {
            removed += usize::from(self.server.unregister(registration)?);
        }
        self.registered.remove(path);
        self.server.delete(&key)?;
        self.log(Level::Info, &format!("{}: removed ({})", path.display(), counted(removed, "registration")));
        Ok(())
    }

    /// Installs the requirements that a file lists. Scripts that are loaded later need them, too.
    ///
    /// # Errors
    /// It cannot be read, or a requirement cannot be installed: then those that it listed before stay.
    pub fn update_dependencies(&mut self, path: &Path) -> Result<(), Error> {
        let text = |path: &Path| std::fs::read_to_string(path);
        let listed = requirements_file::read(path, &text)
            .map_err(|(path, error)| unreadable(&path.display().to_string(), &error))?;
        for skipped in listed.skipped {
            self.log(Level::Warning, &skipped);
        }
        if !listed.requirements.is_empty() {
            self.server.execute(&Script {
                text: b"",
                session: None,
                description: "",
                unblocking: false,
                requirements: &listed.requirements,
                timeout: self.settings.timeout,
            })?;
        }
        let count = counted(listed.requirements.len(), "requirement");
        self.log(Level::Info, &format!("{}: loaded ({count})", path.display()));
        self.requirements.insert(path.to_owned(), listed.requirements);
        Ok(())
    }

    fn all_requirements(&self) -> Vec<String> {
        let mut all = self.settings.requirements.clone();
        for requirement in self.requirements.values().flatten() {
            if !all.contains(requirement) {
                all.push(requirement.clone());
            }
        }
        all
    }

    fn registrations_of(&mut self, session: &str) -> Result<Vec<String>, Error> {
        let mut found = self.server.registrations(&[session.to_owned()])?;
        Ok(found.remove(session).unwrap_or_default())
    }

    /// Writes or removes the index key of a script.
    fn record(&mut self, key: &[u8], registrations: &[String]) -> Result<(), Error> {
        let Some(first) = registrations.first() else {
            return self.server.delete(key);
        };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string();
        let fields =
            [("registration_id", first.clone()), ("registration_ids", registrations.join(" ")), ("last_updated", now)];
        self.server.write_hash(key, &fields)
    }

    // -- after a restart -----------------------------------------------------------------------------------------

    /// Loads the scripts that had registered something and whose sessions the server does not have, and those that a
    /// lost connection interrupted.
    ///
    /// # Errors
    /// As `add`.
    pub fn load_missing(&mut self) -> Result<(), Error> {
        let scripts: Vec<Found> = self.catalog.of_kind(Kind::Script).collect();
        let session = |found: &Found| session_id(&index_key(&self.settings.index_prefix, &found.path));
        let sessions: Vec<String> = scripts.iter().map(session).collect();
        if sessions.is_empty() {
            return Ok(());
        }
        let present = self.server.registrations(&sessions)?;
        for (found, session) in scripts.iter().zip(&sessions) {
            let is_missing = self.registered.contains(&found.path) && !present.contains_key(session);
            let was_interrupted = self.losses.get(&found.path).is_some_and(|losses| *losses < LOSSES_MAX);
            if (is_missing || was_interrupted)
                && let Some(found) = look(&found.path, found.kind)
            {
                self.load(&found)?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| unreadable(&path.display().to_string(), &error))
}

fn summary(registrations: &[String], outcome: &Outcome) -> String {
    let registered = (!registrations.is_empty()).then(|| counted(registrations.len(), "registration"));
    let ran = outcome.results.map(|results| counted(results, "result"));
    let began = outcome.execution.as_ref().map(|id| format!("execution {id}"));
    let parts: Vec<String> = [registered, ran, began].into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
