//! The work before the server's loop sleeps and after it has slept, and other events of the server.
//!
//! Handlers of descriptors only record what is ready, because Redis 7.0 propagates what a module's call writes (or
//! lets expire) at the end of a callback that has a context, and they have none: it would abort on an assertion when
//! its clock ticks in between. These callbacks have one.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redgrease_core::id::{Database, WorkerNo};
use redgrease_engine::work::Work;
use redgrease_engine::{Engine, Input};
use redgrease_ffi::server_event::ServerEvent;

use crate::cluster::discovery;
use crate::driver::{Driver, Due, driver};
use crate::effects::requirements;
use crate::exchange;
use crate::persistence;
use crate::worker::Worker;

/// Longest time in which workers are served at the end of a turn, before the replies of the turn are written.
const LINGER_MAX: Duration = Duration::from_millis(1);

/// How long they are served although others wait.
const LINGER_BUSY: Duration = Duration::from_micros(200);

/// How often the loop's other events are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_micros(20);

/// Longest time in which reports about links are handled in one turn.
const LINKS_SLICE: Duration = Duration::from_millis(1);

/// An event of the server.
pub fn server_event(event: ServerEvent) {
    let Some(driver) = driver() else { return };
    match event {
        ServerEvent::BeforeSleep => before_sleep(driver),
        ServerEvent::AfterSleep => after_sleep(driver),
        ServerEvent::Shutdown => {
            driver.hand_in(Input::Shutdown);
            driver.server.stop_timers();
        }
        ServerEvent::LoadingBegins => driver.hand_in(Input::LoadingBegan),
        ServerEvent::LoadingEnds => driver.discovery.look_soon(),
        ServerEvent::ChildBorn => persistence::child_was_born(driver),
        ServerEvent::RoleChanged => {
            driver.discovery.look_soon();
            driver.hand_in(Input::RoleChanged);
        }
        ServerEvent::DatabasesSwapped(one, other) => {
            driver.hand_in(Input::DatabasesSwapped(Database(one), Database(other)));
        }
    }
}

/// While workers are about to send something: counts what is ready, and serves them or offers them the processor. A busy turn spends
/// its time before and after this moment, so that their next call waits for half a turn.
fn after_sleep(driver: &Driver) {
    if driver.last_written.get().is_none() {
        return;
    }
    let ready = driver.ready_count();
    driver.ready.set(Some(ready));
    if any_ring_has_bytes(driver) {
        if Engine::may_work(&driver.situation()) {
            serve(driver);
        }
    } else if owes_soon(driver) {
        rustix::thread::sched_yield();
    }
}

fn before_sleep(driver: &Driver) {
    let due = driver.due.take();
    let own = driver.clients.take_blocked() + due.count();
    let replies_wait = driver.ready.take().is_none_or(|ready| ready > own);
    for (number, stream) in &due.outputs {
        if let Some(worker) = driver.workers.get(*number) {
            exchange::read_output(driver, &worker, *stream);
        }
    }
    // Commands of functions must not run in the middle of a script or a load: everything stays queued, and
    // its descriptors remain ready.
    let may_work = Engine::may_work(&driver.situation());
    if may_work {
        discovery::check(driver);
        driver.hand_in(Input::Turn);
        start_and_install(driver, &due);
        if due.linked {
            take_reports(driver);
        }
        receive(driver, &due);
        work(driver, |_| true);
    }
    driver.unwritten.borrow_mut().extend(due.writable);
    write(driver);
    if may_work && !replies_wait {
        linger(driver);
    }
    prepare_sleep(driver);
}

/// Serves workers that are about to send something, while the engine has no work of its own: a function's next call mostly comes
/// within microseconds of the answer to its last one.
fn linger(driver: &Driver) {
    let start = Instant::now();
    let mut looked: Option<Instant> = None;
    while owes_soon(driver) && !has_work(driver) {
        let now = Instant::now();
        if now - start >= LINGER_MAX {
            return;
        }
        if looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            if now - start >= LINGER_BUSY && driver.ready_count() > 0 {
                return;
            }
            looked = Some(now);
        }
        if driver.spin.until(LOOK_EVERY, || any_ring_has_bytes(driver)) {
            serve(driver);
        }
    }
}

/// Answers what came through rings, and does what follows from it, except for long work, which has its slice once in a turn.
fn serve(driver: &Driver) {
    receive_rings(driver);
    work(driver, |work| !work.is_long());
    write(driver);
}

/// Decides whether the loop may sleep, and has workers ring the bell if so.
fn prepare_sleep(driver: &Driver) {
    if has_work(driver) || !driver.due.borrow().writable.is_empty() {
        return driver.pump.run(&driver.server);
    }
    if owes_soon(driver) {
        // Other clients have their turn meanwhile.
        return driver.pump.run(&driver.server);
    }
    driver.last_written.set(None);
    let is_read = |worker: &Rc<Worker>| {
        let stopped = worker.paused.get() || worker.disconnected.get();
        !stopped && driver.ask(|engine| engine.wants_input(worker.number))
    };
    let awake = polled(driver).into_iter().filter(|worker| is_read(worker) && !worker.connection.sleep());
    let awake: BTreeSet<WorkerNo> = awake.map(|worker| worker.number).collect();
    if awake.is_empty() {
        driver.pump.stop(&driver.server);
    } else {
        driver.pump.run(&driver.server);
    }
    *driver.polled.borrow_mut() = awake;
}

/// Whether the engine has something to do in the next turn.
fn has_work(driver: &Driver) -> bool {
    Work::ORDER.iter().any(|work| driver.ask(|engine| engine.has_work(*work)))
}

/// Whether a worker that was written to a moment ago has something to send.
fn owes_soon(driver: &Driver) -> bool {
    let recently = driver.last_written.get().is_some_and(|at| at.elapsed() < driver.spin.time());
    recently && driver.polled.borrow().iter().any(|worker| driver.ask(|engine| engine.is_busy(*worker)))
}

/// Workers whose rings are looked at in each turn.
fn polled(driver: &Driver) -> Vec<Rc<Worker>> {
    driver.polled.borrow().iter().filter_map(|number| driver.workers.get(*number)).collect()
}

fn any_ring_has_bytes(driver: &Driver) -> bool {
    driver.polled.borrow().iter().any(|number| driver.workers.has_bytes(*number))
}

/// Hands in what came through rings without a bell.
fn receive_rings(driver: &Driver) {
    for worker in polled(driver) {
        if worker.connection.has_bytes() {
            receive_from(driver, &worker);
        }
    }
}

fn receive_from(driver: &Driver, worker: &Worker) {
    if !worker.paused.get() && driver.ask(|engine| engine.wants_input(worker.number)) {
        exchange::receive(driver, worker);
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
        for answer in driver.installer.answers() {
            requirements::ended(driver, answer);
        }
        for done in driver.wheels.done() {
            requirements::done(driver, done);
        }
        for found in driver.interpreters.results() {
            driver.hand_in(Input::InterpretersFound(found));
        }
    }
}

/// Hands in what happened to links, for a slice of time.
fn take_reports(driver: &Driver) {
    let end = Instant::now() + LINKS_SLICE;
    driver.links.begin();
    while let Some(input) = driver.links.next() {
        driver.hand_in(input);
        if Instant::now() >= end {
            return driver.links.go_on_later();
        }
    }
}

/// Hands in what workers sent, and which of them have ended.
fn receive(driver: &Driver, due: &Due) {
    for number in &due.readable {
        if let Some(worker) = driver.workers.get(*number) {
            exchange::hear(driver, &worker);
            receive_from(driver, &worker);
        }
    }
    receive_rings(driver);
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

/// Gives each chosen kind of work its slice of time.
fn work(driver: &Driver, is_chosen: impl Fn(Work) -> bool) {
    for work in Work::ORDER.into_iter().filter(|work| is_chosen(*work)) {
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
