//! The wait of the main thread for one worker: nothing else runs meanwhile.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use redgrease_core::id::WorkerNo;
use redgrease_engine::Input;
use redgrease_engine::id::WaitNo;
use redgrease_engine::input::Stream;
use redgrease_ffi::LogLevel;

use crate::driver::Driver;
use crate::exchange;
use crate::worker::Worker;

/// The name of these waits in the server's latency monitor.
const LATENCY_EVENT: &CStr = c"rg-sync";

/// Hands in what a worker sends, until the engine stops waiting or the deadline of the wait has passed.
pub fn serve(driver: &Driver, wait_no: WaitNo, number: WorkerNo) {
    let is_outermost = !driver.waits.is_inside();
    let _waiting = driver.waits.enter();
    let begun = Instant::now();
    wait(driver, wait_no, number);
    if is_outermost {
        driver.server.record_latency(LATENCY_EVENT, begun.elapsed());
    }
}

fn wait(driver: &Driver, wait: WaitNo, number: WorkerNo) {
    let worker = driver.workers.get(number);
    let mut looked_again = false;
    loop {
        while driver.ask(|engine| engine.has_frame_for(wait)) {
            driver.hand_in(Input::ServeFrame(wait));
        }
        if let Some(worker) = &worker {
            exchange::write(driver, worker);
        }
        if !driver.ask(|engine| engine.is_waiting(wait)) {
            return;
        }
        let deadline = driver.ask(|engine| engine.wait_deadline_ms(wait));
        let left = Duration::from_millis(deadline.saturating_sub(driver.now_ms()));
        match worker.as_deref().filter(|worker| !worker.closed.get() && !worker.ended.get()) {
            Some(worker) if !left.is_zero() => serve_once(driver, worker, left),
            // What has arrived by the deadline counts: the worker may have ended one execution and begun the next one.
            Some(worker) if !std::mem::replace(&mut looked_again, true) => serve_once(driver, worker, Duration::ZERO),
            // Nothing more will arrive.
            _ => {
                driver.hand_in(Input::WaitExpired(wait));
                if driver.ask(|engine| engine.is_waiting(wait)) {
                    return driver.server.log(LogLevel::Warning, "rg: INTERNAL a wait did not end at its deadline");
                }
            }
        }
    }
}

fn serve_once(driver: &Driver, worker: &Worker, time: Duration) {
    let news = worker.wait(time, &driver.spin);
    // A worker that writes more than its pipes hold would never go on.
    for (stream, ready) in [Stream::Out, Stream::Error].into_iter().zip(news.outputs) {
        if ready {
            exchange::read_output(driver, worker, stream);
        }
    }
    if news.ended {
        exchange::process_ended(driver, worker);
    } else if news.readable {
        exchange::hear(driver, worker);
        exchange::receive(driver, worker);
    }
}
