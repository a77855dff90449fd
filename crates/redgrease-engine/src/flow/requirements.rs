//! Requirements of scripts: checks whether they are present, and their installation.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::SessionNo;
use redgrease_core::render::Reply;

use crate::asked::Asked;
use crate::clients::Client;
use crate::effect::{Effect, Install, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::id::InstallNo;
use crate::input::Found;
use crate::limits::COLLECT_MS;
use crate::prelude::*;
use crate::requirements::installs::{Job, Owner};
use crate::sessions::session::Session;
use crate::sessions::stored::{OTHER_PYTHON, REINSTALLED};
use crate::timers::Timer;

/// Length of a row of RedisGears 1.0: pairs of names and values, up to `Wheels`.
const FIELDS_OF_1_0: usize = 12;

/// The platform of wheels that were made here.
pub(crate) const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux-aarch64" } else { "linux-x86_64" };

impl Engine {
    /// `RG.PYDUMPREQS`: the requirements of sessions and of scripts that have ended.
    pub(crate) fn dump_requirements(&mut self, client: Client) {
        let names = self.installed_requirements();
        let row = |(name, environment): (&String, &Rc<str>)| match self.requirement_row(name, environment) {
            Reply::Array(mut fields) if self.config.short_replies => {
                fields.truncate(FIELDS_OF_1_0);
                Reply::Array(fields)
            }
            row => row,
        };
        let rows = names.iter().map(row).collect();
        self.reply(client, Reply::Array(rows));
    }

    /// All requirements, with the sets that they are listed with.
    pub(crate) fn installed_requirements(&self) -> BTreeMap<String, Rc<str>> {
        let mut names: BTreeMap<String, Rc<str>> = BTreeMap::new();
        for (environment, _) in self.installs.all() {
            names.extend(names_of(environment).map(|name| (name.to_owned(), Rc::clone(environment))));
        }
        let sessions = self.sessions.iter().filter(|(_, session)| session.registered);
        for (_, session) in sessions {
            let environment = &session.stored.environment;
            names.extend(session.stored.requirements.iter().map(|name| (name.clone(), Rc::clone(environment))));
        }
        names
    }

    /// A requirement in the order of fields of RedisGears.
    pub(crate) fn requirement_row(&self, name: &str, environment: &str) -> Reply {
        let uses = |session: &Session| session.stored.requirements.iter().any(|one| one == name);
        let count = self.sessions.iter().filter(|(_, session)| uses(session)).count();
        let known = self.installs.known(environment);
        let there = Reply::bulk(if known.is_some() { "yes" } else { "no" });
        let path = known.and_then(|known| known.installed.paths.first()).map_or("", String::as_str);
        let wheels = match known {
            Some(known) => {
                Reply::Array(known.wheels_of.get(name.trim()).into_iter().flatten().map(Reply::bulk).collect())
            }
            None => Reply::bulk("Requirement was not yet downloaded so wheels are not available"),
        };
        Reply::Array(vec![
            Reply::bulk("GearReqVersion"),
            Reply::Int(2),
            Reply::bulk("Name"),
            Reply::bulk(name),
            Reply::bulk("IsDownloaded"),
            there.clone(),
            Reply::bulk("IsInstalled"),
            there,
            Reply::bulk("CompiledOs"),
            Reply::bulk(PLATFORM),
            Reply::bulk("Wheels"),
            wheels,
            Reply::bulk("Path"),
            Reply::bulk(path),
            Reply::bulk("RefCount"),
            Reply::Int(count as i64),
            Reply::bulk("IsInReqDictionary"),
            Reply::bulk("yes"),
        ])
    }

    /// A session has ended: its set of requirements is not listed any more if no other session has it, and is removed soon,
    /// unless it is needed again.
    pub(crate) fn requirements_released(&mut self, environment: &Rc<str>) {
        if !environment.is_empty() && !self.is_used(environment) {
            self.installs.release(environment);
            self.after_ms(COLLECT_MS, Timer::CollectRequirements(Rc::clone(environment)));
        }
    }

    fn is_used(&self, environment: &str) -> bool {
        self.sessions.iter().any(|(_, session)| *session.stored.environment == *environment)
    }

    /// Removes a set of requirements that was released and not used since.
    pub(crate) fn collect_requirements(&mut self, environment: Rc<str>) {
        if !self.is_used(&environment) && self.installs.remove(&environment) {
            self.wheels.shared.remove(&environment);
            self.out.push(Effect::RemoveEnvironment(environment));
        }
    }

    /// Checks for the requirements of a session, and installs missing ones; [`Engine::requirements_known`] follows.
    pub(crate) fn look_for_requirements(&mut self, number: SessionNo, force: bool) {
        let Some(session) = self.sessions.get(number) else { return };
        let job = Job {
            owner: Owner::Session(number),
            environment: Rc::clone(&session.stored.environment),
            requirements: Rc::clone(&session.stored.requirements),
            force,
            check: !force,
        };
        self.installs.keep(&job.environment);
        self.use_known_or(job, false);
        self.after_ms(self.config.install_time_max.as_millis() as u64, Timer::InstallLimit(Owner::Session(number)));
    }

    /// Uses directories that existed when they were last checked, if they still do.
    fn use_known_or(&mut self, job: Job, queued: bool) {
        let known = if job.force { None } else { self.installs.known(&job.environment) };
        match known.map(|known| known.installed.paths.clone()) {
            Some(paths) => {
                let asked = Asked::DirectoriesOfInstall { job, paths: paths.clone(), queued };
                self.ask(Question::DirectoriesExist(paths), asked);
            }
            None if queued => self.begin_install(job),
            None => self.queue_install(job),
        }
    }

    /// Whether these directories exist is now known.
    pub(crate) fn directories_seen(&mut self, job: Job, paths: Vec<String>, queued: bool, exist: bool) {
        match () {
            () if exist => {
                self.job_done(job.owner, &job.environment, Ok(paths));
                if queued {
                    self.next_install(job.check);
                }
            }
            () if queued => self.begin_install(job),
            () => self.queue_install(job),
        }
    }

    /// The requirements of an owner are present, or not.
    fn job_done(&mut self, owner: Owner, environment: &Rc<str>, result: Result<Vec<String>, String>) {
        match result {
            Ok(paths) if self.must_share(environment) => self.share(environment, owner, paths),
            result => self.owner_goes_on(owner, result),
        }
    }

    pub(crate) fn owner_goes_on(&mut self, owner: Owner, result: Result<Vec<String>, String>) {
        match owner {
            Owner::Session(session) => self.requirements_known(session, result),
            Owner::Import(import) => self.import_ended(import, result.map(|_| ())),
        }
    }

    pub(crate) fn queue_install(&mut self, job: Job) {
        let (owner, check) = (job.owner, job.check);
        let session = if let Owner::Session(session) = owner { self.sessions.get(session) } else { None };
        let user = session.map(|session| Rc::clone(&session.user)).unwrap_or_else(|| "".into());
        if !self.installs.push(&user, job) {
            self.owner_goes_on(owner, Err(Error::TooManyInstalls.into()));
        }
        self.next_install(check);
    }

    /// Gives the next job to the driver, unless one of its kind runs. A job without a waiting client, or with packages that
    /// were found meanwhile, needs none.
    fn next_install(&mut self, check: bool) {
        let Some(job) = self.installs.next(check) else { return };
        let client = match job.owner {
            Owner::Session(session) => {
                let script = self.sessions.get(session).and_then(|session| session.script.as_ref());
                script.map(|script| script.client.number())
            }
            Owner::Import(import) => self.wheels.imports.get(&import).map(|import| import.client.number()),
        };
        match client {
            Some(client) => self.ask(Question::ClientIsGone(client), Asked::ClientOfInstall(job)),
            // A session that is rebuilt needs them in any case.
            None => self.client_of_install_seen(job, false),
        }
    }

    /// Whether the client that waits for a job has disconnected is now known.
    pub(crate) fn client_of_install_seen(&mut self, job: Job, gone: bool) {
        if !gone {
            return self.use_known_or(job, true);
        }
        let check = job.check;
        self.owner_goes_on(job.owner, Err(Error::ClientLeft.into()));
        self.next_install(check);
    }

    fn begin_install(&mut self, job: Job) {
        if !self.installs.is_free(job.check) {
            return self.queue_install(job);
        }
        let (environment, requirements) = (Rc::clone(&job.environment), Rc::clone(&job.requirements));
        let (force, check) = (job.force, job.check);
        if !check {
            let text = format!("rg: requirements are being installed: {}", requirements.join(", "));
            self.log(LogLevel::Notice, text);
        }
        let python = match job.owner {
            Owner::Session(session) => self.sessions.get(session).and_then(|session| session.python),
            Owner::Import(_) => None,
        };
        let install = self.installs.begin(job);
        self.out.push(Effect::Install(Install { install, environment, requirements, python, force, check }));
    }

    /// A check or an installation has ended.
    pub(crate) fn install_ended(&mut self, install: InstallNo, result: Result<Found, String>) {
        let Some(job) = self.installs.end(install) else { return };
        let check = job.check;
        match result {
            Ok(Found::Ready(installed)) => {
                let paths = installed.paths.clone();
                if let Owner::Session(session) = job.owner
                    && let Some(session) = self.sessions.get_mut(session).filter(|_| !check && !paths.is_empty())
                {
                    session.installed = true;
                }
                self.installs.learn(&job.environment, &job.requirements, installed);
                self.job_done(job.owner, &job.environment, Ok(paths));
            }
            Ok(Found::Missing) => self.queue_install(Job { check: false, ..job }),
            Err(reason) => {
                self.log(LogLevel::Warning, format!("rg: {reason}"));
                self.owner_goes_on(job.owner, Err(reason));
            }
        }
        self.next_install(check);
    }

    /// An owner has waited too long for its turn.
    pub(crate) fn install_limit_reached(&mut self, owner: Owner) {
        if self.installs.forget(owner) {
            let limit = self.config.install_time_max.as_millis() as u64;
            self.owner_goes_on(owner, Err(Error::InstallsTooLong(limit).into()));
        }
    }
}

/// The requirements of a set: see [`environment`](crate::sessions::stored::environment).
pub(crate) fn names_of(environment: &str) -> impl Iterator<Item = &str> {
    environment.lines().filter(|line| !line.starts_with([REINSTALLED, OTHER_PYTHON]))
}
