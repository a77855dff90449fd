//! The work before the server's loop sleeps, and other events of the server.
//!
//! Handlers of descriptors only record what is ready, because Redis 7.0 propagates what a module's call writes (or
//! lets expire) at the end of a callback that has a context, and they have none: it would abort on an assertion when
//! its clock ticks in between. This callback has one.

use std::rc::Rc;
use std::time::Instant;

use redgrease_core::id::Database;
use redgrease_engine::work::Work;
use redgrease_engine::{Engine, Input};
use redgrease_ffi::server_event::ServerEvent;

use crate::driver::{Driver, Due, driver};
use crate::exchange;
use crate::worker::Worker;

/// An event of the server.
pub fn server_event(event: ServerEvent) {
    let Some(driver) = driver() else { return };
    match event {
        ServerEvent::BeforeSleep => before_sleep(driver),
        ServerEvent::Shutdown => {
            driver.hand_in(Input::Shutdown);
            driver.server.stop_timers();
        }
        ServerEvent::Loading => {}
        ServerEvent::RoleChanged => driver.hand_in(Input::RoleChanged),
        ServerEvent::DatabasesSwapped(one, other) => {
            driver.hand_in(Input::DatabasesSwapped(Database(one), Database(other)));
        }
    }
}

fn before_sleep(driver: &Driver) {
    let due = driver.due.take();
    for (number, stream) in &due.outputs {
        if let Some(worker) = driver.workers.get(*number) {
            exchange::read_output(driver, &worker, *stream);
        }
    }
    // Commands of functions must not run in the middle of a script or a load: everything stays queued, and
    // its descriptors remain ready.
    if Engine::may_work(&driver.situation()) {
        driver.hand_in(Input::Turn);
        start_and_install(driver, &due);
        receive(driver, &due);
        work(driver);
    }
    driver.unwritten.borrow_mut().extend(due.writable);
    write(driver);
    if Work::ORDER.iter().any(|work| driver.ask(|engine| engine.has_work(*work))) {
        driver.pump.run(&driver.server);
    } else {
        driver.pump.stop(&driver.server);
    }
}

/// Hands in the results of the threads.
fn start_and_install(driver: &Driver, due: &Due) {
    if due.spawned {
        for (number, spawned) in driver.spawner.answers() {
            if !driver.workers.started(number) {
                // No longer wanted: dropping it ends the process.
                drop(spawned.map(|spawned| Worker::new(number, spawned)));
                continue;
            }
            let worker = match spawned {
                Ok(spawned) => Rc::new(Worker::new(number, spawned)),
                Err(reason) => {
                    driver.hand_in(Input::WorkerNotStarted { worker: number, reason });
                    continue;
                }
            };
            driver.workers.add(Rc::clone(&worker));
            let watched = exchange::watch(driver, &worker);
            driver.hand_in(Input::WorkerStarted { worker: number, pid: worker.process.pid() });
            if let Err(reason) = watched {
                exchange::fail(driver, &worker, &reason);
            }
        }
    }
    if due.installed {
        for (install, result) in driver.installer.answers() {
            driver.hand_in(Input::Installed { install, result });
        }
    }
}

/// Hands in what workers sent, and which of them have ended.
fn receive(driver: &Driver, due: &Due) {
    for number in &due.readable {
        if let Some(worker) = driver.workers.get(*number)
            && !worker.paused.get()
            && driver.ask(|engine| engine.wants_input(*number))
        {
            exchange::receive(driver, &worker);
        }
    }
    for number in &due.ended {
        if let Some(worker) = driver.workers.get(*number) {
            exchange::process_ended(driver, &worker);
        }
    }
    for worker in driver.workers.without_pidfd() {
        if (worker.disconnected.get() || worker.killed.get()) && worker.process.has_ended() {
            exchange::process_ended(driver, &worker);
        }
    }
}

/// Gives each kind of work its slice of time.
fn work(driver: &Driver) {
    for work in Work::ORDER {
        if !driver.ask(|engine| engine.has_work(work)) {
            continue;
        }
        let end = Instant::now() + work.slice();
        driver.slice_end.set(Some(end));
        while driver.ask(|engine| engine.has_work(work)) {
            driver.hand_in(Input::Work(work));
            if Instant::now() >= end {
                break;
            }
        }
    }
    driver.slice_end.set(None);
}

/// Writes the engine's output for workers.
fn write(driver: &Driver) {
    loop {
        let Some(number) = driver.unwritten.borrow_mut().pop_first() else { return };
        if let Some(worker) = driver.workers.get(number) {
            exchange::write(driver, &worker);
        }
    }
}
