//! Worker processes: starting, ending, reading from them.

use std::rc::Rc;

use redgrease_core::id::WorkerNo;
use redgrease_core::python::PythonVersion;
use redgrease_engine::Input;
use redgrease_engine::input::Interpreters;

use crate::driver::{self, Driver};
use crate::effects::requirements::hand_in_later;
use crate::exchange;
use crate::spawner::Start;

/// Starts a process for a worker; the result is handed in in a later turn.
pub fn start(driver: &Driver, number: WorkerNo, python: Option<PythonVersion>) {
    let requested = driver.program(python).and_then(|program| {
        driver.spawner.request(Start {
            worker: number,
            program,
            memory_bytes_max: driver.ask(|engine| engine.config().worker_bytes_max),
        })
    });
    driver.workers.starts(number);
    if let Err(reason) = requested {
        driver.server.after_ms(0, move || {
            if let Some(driver) = driver::driver()
                && driver.workers.started(number)
            {
                driver.hand_in(Input::WorkerNotStarted { worker: number, reason });
            }
        });
    }
}

/// Looks for interpreters; the result is handed in in a later turn.
pub fn find_interpreters(driver: &Driver) {
    let reason = match &driver.runtime {
        Ok(default) if driver.interpreters.look(default) => return,
        Ok(_) => "another search is waiting".to_owned(),
        Err(reason) => reason.clone(),
    };
    hand_in_later(driver, move || {
        Input::InterpretersFound(Interpreters { refused: vec![reason], ..Interpreters::default() })
    });
}

/// Kills a worker's process; its end is handed in when it has ended.
pub fn kill(driver: &Driver, number: WorkerNo) {
    if let Some(worker) = driver.workers.get(number) {
        worker.killed.set(true);
        worker.process.kill();
    }
}

/// Removes a worker and ends its process.
pub fn close(driver: &Driver, number: WorkerNo, last: &[u8]) {
    let Some(worker) = driver.workers.remove(number) else { return };
    if !worker.disconnected.get() {
        worker.connection.write(|out| out.extend_from_slice(last));
    }
    worker.closed.set(true);
    exchange::unwatch(driver, &worker);
    worker.process.kill();
}

/// Stops reading from a worker.
pub fn pause_reading(driver: &Driver, number: WorkerNo) {
    if let Some(worker) = driver.workers.get(number)
        && !worker.paused.replace(true)
    {
        exchange::unwatch_socket(driver, &worker);
    }
}

/// Resumes reading from a worker.
pub fn resume_reading(driver: &Driver, number: WorkerNo) -> Option<Input<'static>> {
    let worker = driver.workers.get(number)?;
    if !worker.paused.replace(false) || worker.disconnected.get() {
        return None;
    }
    if worker.connection.has_rings() {
        driver.polled.borrow_mut().insert(number);
    }
    let reason = exchange::watch_socket(driver, &worker).err()?;
    Some(Input::WorkerFailed { worker: number, reason: format!("was killed: {reason}") })
}

/// Hands in all output of a worker so far.
pub fn drain_output(driver: &Driver, number: WorkerNo, session: Rc<str>) -> Input<'static> {
    if let Some(worker) = driver.workers.get(number) {
        exchange::read_outputs(driver, &worker);
    }
    Input::OutputDrained { worker: number, session }
}
