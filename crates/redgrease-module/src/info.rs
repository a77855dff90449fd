//! The module's part of `INFO`, and the memory of the workers.

use redgrease_engine::{InfoRow, WorkerInfo};
use redgrease_ffi::info::InfoWriter;

use crate::commands::dumpplugins::PLUGIN_VERSION;
use crate::driver::{Driver, driver};
use crate::memory::resident_and_peak_bytes;

/// Memory of all workers, in bytes.
pub struct WorkerMemory {
    /// Peaks of all workers so far.
    pub total: u64,
    /// Peaks of the current workers.
    pub peak: u64,
    /// Current memory of the current workers.
    pub current: u64,
}

/// Sums the memory of the workers.
pub fn worker_memory(driver: &Driver) -> WorkerMemory {
    let memory = driver.workers.pids().into_iter().map(resident_and_peak_bytes);
    let (current, peak) = memory.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    WorkerMemory { total: driver.workers.past_peak_bytes() + peak, peak, current }
}

/// Writes the module's part of `INFO`.
pub fn write(writer: &InfoWriter) {
    let Some(driver) = driver() else { return };
    let info = driver.ask(|engine| engine.info());
    if writer.section("") {
        writer.number("nexecutions", info.executions);
        writer.number("nregistrations", info.registrations);
        writer.number("events_pending", info.events_pending);
        writer.number("events_pending_bytes", info.events_pending_bytes);
        let memory = worker_memory(driver);
        writer.number("TotalAllocated", memory.total);
        writer.number("PeakAllocated", memory.peak);
        writer.number("CurrAllocated", memory.current);
    }
    if writer.section("workers") {
        writer.number("workers", info.workers);
        writer.number("workers_spare", info.workers_spare);
        writer.number("workers_shared", info.workers_shared);
        writer.number("workers_died", info.workers_died);
        let (hits, misses) = driver.spin.counts();
        writer.number("spin_hits", hits);
        writer.number("spin_misses", misses);
        writer.number("sessions", info.sessions);
        writer.number("sessions_waiting", info.sessions_waiting);
        match &driver.runtime {
            Ok(path) => writer.text("python", &path.display().to_string()),
            Err(reason) => writer.text("python", reason),
        }
        for (number, pid) in driver.workers.numbers_and_pids() {
            let (resident, peak) = resident_and_peak_bytes(pid);
            let row = driver.ask(|engine| {
                let WorkerInfo { sessions, served, isolation } = engine.info_of_worker(number);
                let memory = format!("rss={resident},peak_rss={peak}");
                format!("pid={pid},sessions={sessions},served={served},{memory},isolation={isolation}")
            });
            writer.text(&format!("worker_{}", number.0), &row);
        }
    }
    // The names of these sections are those of RedisGears, the first one misspelt.
    rows(writer, "regisrations", || driver.ask(|engine| engine.info_of_registrations()));
    if writer.section("plugins") {
        writer.text("GearsPythonPlugin", &format!("version={}", PLUGIN_VERSION));
    }
    if writer.section("python_stats") {
        let memory = worker_memory(driver);
        writer.number("python_TotalAllocated", memory.total);
        writer.number("python_PeakAllocated", memory.peak);
        writer.number("python_CurrAllocated", memory.current);
    }
    rows(writer, "python_requirements", || driver.ask(|engine| engine.info_of_requirements()));
    rows(writer, "python_sessions", || driver.ask(|engine| engine.info_of_sessions()));
}

fn rows(writer: &InfoWriter, section: &str, rows: impl FnOnce() -> Vec<InfoRow>) {
    if !writer.section(section) {
        return;
    }
    for (name, row) in rows() {
        writer.text(&name, &row);
    }
}
