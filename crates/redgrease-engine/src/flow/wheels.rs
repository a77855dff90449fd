//! Wheels of requirements: sent to replicas and the append-only file, saved, exported and imported.
//!
//! Replicas, restarted servers and other shards install from them, so that only the server where a script was run needs a network,
//! and all have the same versions.

use redgrease_core::frame::LogLevel;
use redgrease_core::render::Reply;
use redgrease_core::requirement::{PIECE_BYTES_MAX, Requirement};
use redgrease_core::saved::SavedWheel;

use crate::clients::Client;
use crate::cluster::changes::Then;
use crate::effect::{Effect, WheelsOf};
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::requirements::{PLATFORM, names_of};
use crate::input::{Caller, Inside};
use crate::limits::EXPORTS_MAX;
use crate::prelude::*;
use crate::requirements::installs::{Job, Owner};
use crate::requirements::wheels::{Export, Import, Waiting};
use crate::sessions::session::Session;
use crate::sessions::stored::{environment, is_reinstalled};
use crate::timers::Timer;

impl Engine {
    /// Whether replicas and the append-only file still need the wheels of a set.
    pub(crate) fn must_share(&self, environment: &str) -> bool {
        let known = self.installs.known(environment);
        let has_wheels = known.is_some_and(|known| !known.installed.wheels.is_empty());
        has_wheels && !self.at.server.replica && !self.at.server.loading && !self.wheels.shared.contains(environment)
    }

    /// Sends the wheels of a set before its owner goes on: what it registers needs them.
    pub(crate) fn share(&mut self, environment: &Rc<str>, owner: Owner, paths: Vec<String>) {
        let is_first = !self.wheels.sharing.contains_key(environment);
        self.wheels.sharing.entry(Rc::clone(environment)).or_default().push(Waiting { owner, paths });
        if is_first && let Some(wheels) = self.wheels_of(environment) {
            self.out.push(Effect::ShareWheels(wheels));
        }
    }

    fn wheels_of(&self, environment: &Rc<str>) -> Option<WheelsOf> {
        let installed = &self.installs.known(environment)?.installed;
        let wheels: Vec<SavedWheel> = installed.wheels.iter().map(|wheel| wheel.file.clone()).collect();
        let locked = installed.wheel_bytes() > self.config.requirement_bytes_max;
        (!wheels.is_empty()).then(|| WheelsOf { environment: environment.to_string(), wheels, locked })
    }

    /// A part of the wheels of a set was read: other shards need no network either.
    pub(crate) fn wheel_part_read(&mut self, environment: Rc<str>, change: &[u8]) {
        let shards = self.topology.others().map(|shard| shard.id).filter(|shard| self.has_link(*shard)).collect();
        self.send_change(change, shards);
        self.when_applied(Then::ReadNextPart(environment));
    }

    /// The wheels of a set were sent.
    pub(crate) fn wheels_shared(&mut self, environment: &Rc<str>) {
        self.wheels.shared.insert(Rc::clone(environment));
        for Waiting { owner, paths } in self.wheels.sharing.remove(environment).unwrap_or_default() {
            self.owner_goes_on(owner, Ok(paths));
        }
    }

    /// The wheels of a set come from a master or a data file, and are complete.
    pub(crate) fn wheels_arrived(&mut self, environment: String, wheels: Vec<SavedWheel>, locked: bool) {
        self.wheels.shared.insert(environment.as_str().into());
        self.out.push(Effect::KeepWheels(WheelsOf { environment, wheels, locked }));
    }

    /// The wheels that a data file needs: those of registered functions and of imported requirements.
    #[must_use]
    pub fn saved_wheels(&self) -> Vec<WheelsOf> {
        let all = self.installs.all().filter(|(environment, _)| {
            let registered = |session: &Session| session.registered && *session.stored.environment == ***environment;
            self.wheels.imported.contains(*environment) || self.sessions.iter().any(|(_, session)| registered(session))
        });
        all.filter_map(|(environment, _)| self.wheels_of(environment)).collect()
    }

    /// `RG.PYEXPORTREQ`.
    pub(crate) fn export_requirement(&mut self, client: Client, caller: &Caller, name: &[u8]) {
        let name = String::from_utf8_lossy(name).into_owned();
        let with_it = |environment: &str| names_of(environment).any(|one| one == name);
        // The smallest set with it: usually it alone.
        let found = self.installs.all().filter(|(environment, _)| with_it(environment));
        let Some((environment, known)) = found.min_by_key(|(environment, _)| environment.len()) else {
            return self.refuse(client, Error::NoRequirement);
        };
        let needed = known.wheels_of.get(name.trim()).cloned().unwrap_or_default();
        let wheels = known.installed.wheels.iter().map(|wheel| &wheel.file);
        let wheels: Vec<SavedWheel> = wheels.filter(|wheel| needed.contains(&wheel.file)).cloned().collect();
        let environment = Rc::clone(environment);
        let (bytes, max) = (wheels.iter().map(|wheel| wheel.bytes).sum::<u64>(), self.config.requirement_bytes_max);
        match () {
            () if wheels.is_empty() => return self.refuse(client, Error::NoWheels(name)),
            () if bytes > max => return self.refuse(client, Error::RequirementTooBig { name, bytes, max }),
            () if caller.inside != Inside::Nothing => return self.refuse_to_wait(client, caller),
            () if self.wheels.exports.len() >= EXPORTS_MAX => return self.refuse(client, Error::TooManyExports),
            () => {}
        }
        self.out.push(Effect::Block(client.number()));
        let export = self.wheels.counter.next();
        self.wheels.exports.insert(export, Export { client, name: name.clone(), environment: Rc::clone(&environment) });
        let wheels = WheelsOf { environment: environment.to_string(), wheels, locked: false };
        self.out.push(Effect::ExportWheels { export, name, platform: PLATFORM, wheels });
    }

    /// A requirement was read.
    pub(crate) fn exported(&mut self, export: u64, result: Result<Vec<u8>, String>) {
        let Some(Export { client, name, environment }) = self.wheels.exports.remove(&export) else { return };
        match result {
            Ok(encoded) => {
                let row = self.requirement_row(&name, &environment);
                let pieces = encoded.chunks(PIECE_BYTES_MAX).map(Reply::bulk).collect();
                self.reply(client, Reply::Array(vec![row, Reply::Array(pieces)]));
            }
            Err(reason) => self.refuse(client, reason),
        }
    }

    /// `RG.PYIMPORTREQ`.
    pub(crate) fn import_requirement(&mut self, client: Client, caller: &Caller, pieces: &[&[u8]]) {
        if self.at.server.refuses_writes() {
            return self.refuse(client, Error::ImportOnReplica);
        }
        if caller.inside != Inside::Nothing {
            return self.refuse_to_wait(client, caller);
        }
        if self.wheels.imports.len() >= EXPORTS_MAX {
            return self.refuse(client, Error::TooManyExports);
        }
        let Requirement { name, platform, wheels } = match Requirement::decode(&pieces.concat()) {
            Ok(requirement) => requirement,
            Err(error) => return self.refuse(client, error.to_string()),
        };
        if platform != PLATFORM {
            return self.refuse(client, Error::OtherPlatform { name, platform });
        }
        let environment: Rc<str> = environment(core::slice::from_ref(&name)).into();
        if environment.is_empty() || environment.lines().count() != 1 || is_reinstalled(&environment) {
            return self.refuse(client, Error::NotImportable(name));
        }
        self.out.push(Effect::Block(client.number()));
        let import = self.wheels.counter.next();
        self.wheels.imports.insert(import, Import { client, name });
        self.out.push(Effect::StoreWheels { import, environment, wheels });
    }

    /// The wheels of an imported requirement were stored: they are installed.
    pub(crate) fn import_stored(&mut self, import: u64, result: Result<(), String>) {
        if let Err(reason) = result {
            return self.import_ended(import, Err(reason));
        }
        let Some(found) = self.wheels.imports.get(&import) else { return };
        let requirements: Rc<[String]> = [found.name.clone()].into();
        let environment: Rc<str> = environment(&requirements).into();
        let owner = Owner::Import(import);
        self.wheels.imported.insert(Rc::clone(&environment));
        self.installs.keep(&environment);
        self.after_ms(self.config.install_time_max.as_millis() as u64, Timer::InstallLimit(owner));
        self.queue_install(Job { owner, environment, requirements, force: false, check: false });
    }

    /// An import has ended.
    pub(crate) fn import_ended(&mut self, import: u64, result: Result<(), String>) {
        let Some(Import { client, name }) = self.wheels.imports.remove(&import) else { return };
        match result {
            Ok(()) => {
                self.log(LogLevel::Notice, format!("rg: the requirement '{name}' was imported"));
                self.reply(client, Reply::bulk("OK"));
            }
            Err(reason) => self.refuse(client, reason),
        }
    }
}
