//! Load arguments: `Key value` pairs after the module's path.

use crate::prelude::*;
use core::time::Duration;

/// The configuration of the module.
#[derive(Debug, Clone)]
pub struct Config {
    /// The workers' interpreter, if it was given.
    pub python: Option<String>,
    /// Executions in the list that users see; 0: no limit.
    pub executions_max: usize,
    /// Finished executions kept per registration; 0: no limit.
    pub executions_per_registration_max: usize,
    /// Executions that run at the same time.
    pub execution_threads: usize,
    /// Worker processes at any time.
    pub workers_max: usize,
    /// Sessions that one worker serves before it is replaced.
    pub worker_sessions_max: u64,
    /// Memory of a worker in bytes above which it is replaced after a session.
    pub worker_idle_bytes_max: u64,
    /// Time between an abort and the end of a worker that does not react to it.
    pub abort_grace: Duration,
    /// Longest time that the server waits for a sync execution or an atomic block.
    pub sync_time_max: Duration,
    /// Longest time that a script's top level may run.
    pub script_time_max: Duration,
    /// Key events that may wait for their executions, in bytes.
    pub pending_event_bytes_max: usize,
    /// Longest value that becomes a record, in bytes.
    pub record_bytes_max: usize,
    /// Longest results of one execution, encoded, in bytes.
    pub result_bytes_max: usize,
    /// Longest time between the start of a worker and its handshake.
    pub worker_start_max: Duration,
    /// Longest time without progress of a worker that must answer.
    pub worker_stall_max: Duration,
    /// Longest run of an asynchronous execution; zero: no limit.
    pub execution_time_max: Duration,
    /// Longest installation of requirements.
    pub install_time_max: Duration,
    /// Where requirements are installed; below the server's working directory unless it is absolute.
    pub requirements_dir: String,
    /// How long a side polls for an answer that the other side owes, before it sleeps; zero: not at all.
    pub spin: Duration,
    /// Bytes between server and workers go through shared memory where the kernel has it, and through sockets otherwise.
    pub shared_memory: bool,
    /// Error texts contain tracebacks.
    pub traceback: bool,
    /// Panics can be injected: for tests of the module.
    pub inject_panic: bool,
    /// Unknown keys: for `configGet`.
    pub extra: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Config {
    /// The defaults for a machine with this number of cores.
    #[must_use]
    pub fn new(cores: usize) -> Config {
        Config {
            python: None,
            executions_max: 1000,
            executions_per_registration_max: 100,
            execution_threads: cores.max(3),
            workers_max: 16.max(2 * cores),
            worker_sessions_max: 1000,
            worker_idle_bytes_max: 128 << 20,
            abort_grace: Duration::from_millis(1000),
            sync_time_max: Duration::from_millis(5000),
            script_time_max: Duration::from_secs(60),
            pending_event_bytes_max: 64 << 20,
            record_bytes_max: 64 << 20,
            result_bytes_max: 512 << 20,
            worker_start_max: Duration::from_secs(30),
            worker_stall_max: Duration::from_secs(10),
            execution_time_max: Duration::ZERO,
            install_time_max: Duration::from_secs(300),
            requirements_dir: "redgrease-requirements".to_owned(),
            spin: Duration::from_micros(50),
            shared_memory: true,
            traceback: true,
            inject_panic: false,
            extra: BTreeMap::new(),
        }
    }

    /// Parses load arguments.
    ///
    /// # Errors
    /// A known key with a value outside its range, or a key without value; the text names it.
    pub fn parse(args: &[&[u8]], cores: usize) -> Result<Config, String> {
        let mut config = Config::new(cores);
        for pair in args.chunks(2) {
            let key = String::from_utf8_lossy(pair[0]);
            let Some(value) = pair.get(1) else { return Err(format!("load argument '{key}' has no value")) };
            config.set(&key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let text = || String::from_utf8_lossy(value).into_owned();
        let number = |min: u64, max: u64| -> Result<u64, String> {
            let parsed = core::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            parsed
                .filter(|number| (min..=max).contains(number))
                .ok_or_else(|| format!("load argument '{key}' wants a number from {min} to {max}, got '{}'", text()))
        };
        const MS_MAX: u64 = 86_400_000;
        match key.to_ascii_lowercase().as_str() {
            "python" => self.python = Some(text()),
            "maxexecutions" => self.executions_max = number(0, 1 << 32)? as usize,
            "maxexecutionsperregistration" => self.executions_per_registration_max = number(0, 1 << 32)? as usize,
            "executionthreads" => self.execution_threads = number(1, 1024)? as usize,
            "maxworkers" => self.workers_max = number(1, 1024)? as usize,
            "workersessions" => self.worker_sessions_max = number(1, 1 << 32)?,
            "workeridlebytesmax" => self.worker_idle_bytes_max = number(1 << 20, 1 << 40)?,
            "abortgrace" => self.abort_grace = Duration::from_millis(number(1, MS_MAX)?),
            "syncmaxtime" => self.sync_time_max = Duration::from_millis(number(1, MS_MAX)?),
            "scriptmaxtime" => self.script_time_max = Duration::from_millis(number(1, MS_MAX)?),
            "pendingeventbytesmax" => self.pending_event_bytes_max = number(1 << 10, 1 << 40)? as usize,
            "maxrecordbytes" => self.record_bytes_max = number(1, 256 << 20)? as usize,
            "resultbytesmax" => self.result_bytes_max = number(1, 1 << 40)? as usize,
            "workerstartmax" => self.worker_start_max = Duration::from_millis(number(100, MS_MAX)?),
            "workerstallmax" => self.worker_stall_max = Duration::from_millis(number(500, MS_MAX)?),
            "executionmaxtime" => self.execution_time_max = Duration::from_millis(number(0, MS_MAX)?),
            "installmax" => self.install_time_max = Duration::from_millis(number(100, MS_MAX)?),
            "requirementsdir" => self.requirements_dir = text(),
            "spinmicros" => self.spin = Duration::from_micros(number(0, 1000)?),
            "sharedmemory" => self.shared_memory = number(0, 1)? == 1,
            "injectpanic" => self.inject_panic = number(0, 1)? == 1,
            "pythonattempttraceback" => self.traceback = number(0, 1)? == 1,
            _ => {
                self.extra.insert(key.as_bytes().to_vec(), value.to_vec());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_in_any_case_and_unknown_ones_are_kept() {
        let config = Config::parse(&[b"maxexecutions", b"3", b"Mine", b"x"], 2).unwrap();
        assert_eq!(config.executions_max, 3);
        assert_eq!(config.extra.get(b"Mine".as_slice()), Some(&b"x".to_vec()));
    }

    #[test]
    fn extreme_numbers_are_refused_with_key_range_and_value() {
        let huge = "9".repeat(400);
        let keys =
            ["MaxExecutions", "MaxExecutionsPerRegistration", "ExecutionThreads", "MaxWorkers", "WorkerSessions"];
        let more =
            ["WorkerIdleBytesMax", "AbortGrace", "SyncMaxTime", "ScriptMaxTime", "MaxRecordBytes", "ResultBytesMax"];
        let rest = [
            "WorkerStartMax",
            "InstallMax",
            "PythonAttemptTraceback",
            "PendingEventBytesMax",
            "ExecutionMaxTime",
            "WorkerStallMax",
        ];
        for key in keys.iter().chain(&more).chain(&rest) {
            for value in ["-1", "", " 1", "1.5", "1e3", "inf", "18446744073709551615", "18446744073709551616", &huge] {
                let error = Config::parse(&[key.as_bytes(), value.as_bytes()], 2).unwrap_err();
                let expected = format!("load argument '{key}' wants a number from ");
                assert!(error.starts_with(&expected) && error.ends_with(&format!("got '{value}'")), "{error}");
            }
        }
    }

    #[test]
    fn a_bad_value_names_key_range_and_value() {
        let error = Config::parse(&[b"ExecutionThreads", b"none"], 2).unwrap_err();
        assert_eq!(error, "load argument 'ExecutionThreads' wants a number from 1 to 1024, got 'none'");
        assert_eq!(Config::parse(&[b"Python"], 2).unwrap_err(), "load argument 'Python' has no value");
    }
}
