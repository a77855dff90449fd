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
use crate::prelude::*;
use crate::requirements::installs::Job;
use crate::sessions::session::Session;
use crate::sessions::stored::REINSTALLED;
use crate::timers::Timer;

impl Engine {
    /// `RG.PYDUMPREQS`: the requirements of sessions and of scripts that have ended.
    pub(crate) fn dump_requirements(&mut self, client: Client) {
        let names = self.installed_requirements();
        let rows = names.iter().map(|(name, path)| self.requirement_row(name, path)).collect();
        self.reply(client, Reply::Array(rows));
    }

    /// Names of all requirements, with the directories that they are imported from.
    pub(crate) fn installed_requirements(&self) -> BTreeMap<String, String> {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (environment, paths) in self.installs.all() {
            let path = paths.first().cloned().unwrap_or_default();
            names.extend(names_of(environment).map(|name| (name.to_owned(), path.clone())));
        }
        let sessions = self.sessions.iter().filter(|(_, session)| session.registered);
        for (_, session) in sessions {
            let path = session.paths.first().cloned().unwrap_or_default();
            names.extend(session.stored.requirements.iter().map(|name| (name.clone(), path.clone())));
        }
        names
    }

    /// A requirement in the order of fields of RedisGears.
    pub(crate) fn requirement_row(&self, name: &str, path: &str) -> Reply {
        let uses = |session: &Session| session.stored.requirements.iter().any(|one| one == name);
        let count = self.sessions.iter().filter(|(_, session)| uses(session)).count();
        Reply::Array(vec![
            Reply::bulk("GearReqVersion"),
            Reply::Int(2),
            Reply::bulk("Name"),
            Reply::bulk(name),
            Reply::bulk("IsDownloaded"),
            Reply::bulk("yes"),
            Reply::bulk("IsInstalled"),
            Reply::bulk("yes"),
            Reply::bulk("CompiledOs"),
            Reply::bulk("linux"),
            Reply::bulk("Wheels"),
            Reply::Array(Vec::new()),
            Reply::bulk("Path"),
            Reply::bulk(path),
            Reply::bulk("RefCount"),
            Reply::Int(count as i64),
            Reply::bulk("IsInReqDictionary"),
            Reply::bulk("yes"),
        ])
    }

    /// A session that owned registrations has ended: its set of requirements is not listed any more if no other one has it.
    pub(crate) fn requirements_released(&mut self, environment: &str) {
        if !self.sessions.iter().any(|(_, session)| *session.stored.environment == *environment) {
            self.installs.forget_environment(environment);
        }
    }

    /// Checks for the requirements of a session, and installs missing ones; [`Engine::requirements_known`] follows.
    pub(crate) fn look_for_requirements(&mut self, number: SessionNo, force: bool) {
        let Some(session) = self.sessions.get(number) else { return };
        let job = Job {
            session: number,
            environment: Rc::clone(&session.stored.environment),
            requirements: Rc::clone(&session.stored.requirements),
            force,
            check: !force,
        };
        self.use_known_or(job, false);
        self.after_ms(self.config.install_time_max.as_millis() as u64, Timer::InstallLimit(number));
    }

    /// Uses directories that existed when they were last checked, if they still do.
    fn use_known_or(&mut self, job: Job, queued: bool) {
        let known = if job.force { None } else { self.installs.known(&job.environment).cloned() };
        match known {
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
                let (session, check) = (job.session, job.check);
                self.requirements_known(session, Ok(paths));
                if queued {
                    self.next_install(check);
                }
            }
            () if queued => self.begin_install(job),
            () => self.queue_install(job),
        }
    }

    fn queue_install(&mut self, job: Job) {
        let (session, check) = (job.session, job.check);
        let user = self.sessions.get(session).map(|session| Rc::clone(&session.user)).unwrap_or_else(|| "".into());
        if !self.installs.push(&user, job) {
            self.requirements_known(session, Err(Error::TooManyInstalls.into()));
        }
        self.next_install(check);
    }

    /// Gives the next job to the driver, unless one of its kind runs. A job without a waiting client, or with packages that
    /// were found meanwhile, needs none.
    fn next_install(&mut self, check: bool) {
        let Some(job) = self.installs.next(check) else { return };
        let client = self.sessions.get(job.session).and_then(|session| session.script.as_ref());
        match client.map(|script| script.client.number()) {
            Some(client) => self.ask(Question::ClientIsGone(client), Asked::ClientOfInstall(job)),
            None => self.client_of_install_seen(job, true),
        }
    }

    /// Whether the client that waits for a job has disconnected is now known.
    pub(crate) fn client_of_install_seen(&mut self, job: Job, gone: bool) {
        if !gone {
            return self.use_known_or(job, true);
        }
        let check = job.check;
        self.requirements_known(job.session, Err(Error::ClientLeft.into()));
        self.next_install(check);
    }

    fn begin_install(&mut self, job: Job) {
        if !self.installs.is_free(job.check) {
            return self.queue_install(job);
        }
        let (environment, requirements) = (Rc::clone(&job.environment), Rc::clone(&job.requirements));
        let (force, check) = (job.force, job.check);
        let install = self.installs.begin(job);
        self.out.push(Effect::Install(Install { install, environment, requirements, force, check }));
    }

    /// A check or an installation has ended.
    pub(crate) fn install_ended(&mut self, install: InstallNo, result: Result<Found, String>) {
        let Some(job) = self.installs.end(install) else { return };
        let check = job.check;
        match result {
            Ok(Found::Ready(paths)) => {
                self.installs.learn(&job.environment, &paths);
                if let Some(session) = self.sessions.get_mut(job.session).filter(|_| !check) {
                    session.installed = true;
                }
                self.requirements_known(job.session, Ok(paths));
            }
            Ok(Found::Missing) => self.queue_install(Job { check: false, ..job }),
            Err(reason) => {
                self.log(LogLevel::Warning, format!("rg: {reason}"));
                self.requirements_known(job.session, Err(reason));
            }
        }
        self.next_install(check);
    }

    /// A session has waited too long for its turn.
    pub(crate) fn install_limit_reached(&mut self, session: SessionNo) {
        if self.installs.forget(session) {
            let limit = self.config.install_time_max.as_millis() as u64;
            self.requirements_known(session, Err(Error::InstallsTooLong(limit).into()));
        }
    }
}

/// The requirements of a set: see [`environment`](crate::sessions::stored::environment).
fn names_of(environment: &str) -> impl Iterator<Item = &str> {
    environment.lines().filter(|line| !line.starts_with(REINSTALLED))
}
