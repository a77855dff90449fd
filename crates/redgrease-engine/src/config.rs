//! The configuration of the module: `Key value` pairs after its path, `RG.CONFIGSET`, and the server's `CONFIG SET rg.*`.
//!
//! [`KEYS`] lists every key once.

use crate::prelude::*;
use core::time::Duration;

/// The configuration of the module.
#[derive(Debug, Clone)]
pub struct Config {
    /// The workers' interpreter, if it was given.
    pub python: Option<String>,
    /// Interpreters for functions of other versions, separated by colons; `None`: those on the path.
    pub pythons: Option<String>,
    /// Executions in the list that users see; 0: no limit.
    pub executions_max: usize,
    /// Finished executions kept per registration; 0: no limit.
    pub executions_per_registration_max: usize,
    /// Executions that run at the same time.
    pub execution_threads: usize,
    /// The time of each step is measured, and callbacks are profiled.
    pub profile: bool,
    /// Worker processes at any time.
    pub workers_max: usize,
    /// Sessions that one worker serves before it is replaced.
    pub worker_sessions_max: u64,
    /// Memory of a worker in bytes above which it is replaced after a session.
    pub worker_idle_bytes_max: u64,
    /// Memory in bytes of a worker and all that it started above which it is ended; zero: no limit.
    pub worker_bytes_max: u64,
    /// The kernel keeps workers from changing files and the system, where it can.
    pub isolation: bool,
    /// Directories, separated by colons, where isolated workers may change files in addition to those for temporary files.
    pub worker_writable: String,
    /// The user of the operating system that workers run as; empty: the server's.
    pub worker_user: String,
    /// The user that links to other shards authenticate as; empty: the server's own for its master.
    pub cluster_user: String,
    /// Its password.
    pub cluster_password: String,
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
    /// Longest time in which another shard answers nothing although it has to.
    pub idle_time_max: Duration,
    /// How often a message is sent to another shard that does not acknowledge it; zero: no limit.
    pub message_attempts_max: u64,
    /// Longest installation of requirements.
    pub install_time_max: Duration,
    /// Where requirements are installed; below the server's working directory unless it is absolute.
    pub requirements_dir: String,
    /// Longest wheels of a set of requirements that are saved, replicated and exported, in bytes.
    pub requirement_bytes_max: u64,
    /// How long a side polls for an answer that the other side owes, before it sleeps; zero: not at all.
    pub spin: Duration,
    /// Bytes between server and workers go through shared memory where the kernel has it, and through sockets otherwise.
    pub shared_memory: bool,
    /// Error texts contain tracebacks.
    pub traceback: bool,
    /// Commands can be hooked although some users lack permission for the inner command, which they then cannot call.
    pub hooks_without_permission: bool,
    /// `RG.DUMPREGISTRATIONS` and `RG.PYDUMPREQS` answer with the fewer fields that RedGrease 0.3 takes.
    pub short_replies: bool,
    /// Panics can be injected: for tests of the module.
    pub inject_panic: bool,
    /// Values of keys of RedisGears that have no effect here, by their names.
    accepted: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Unknown keys, and keys of the Python plugin that were set: for `configGet`.
    pub extra: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What the defaults depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores of the processor.
    pub cores: usize,
    /// Memory in bytes; zero if it is not known.
    pub memory_bytes: u64,
}

/// Which part of RedisGears a key belongs to; the replies of `RG.CONFIGSET` differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its core, or redgrease.
    Core,
    /// Its Python plugin.
    Python,
}

/// How the value of a key is read and written.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// A number in a range.
    Number {
        /// The smallest one.
        min: u64,
        /// The largest one.
        max: u64,
        /// The current one.
        get: fn(&Config) -> u64,
        /// Changes it.
        set: fn(&mut Config, u64),
    },
    /// A text.
    Text {
        /// The current one.
        get: fn(&Config) -> String,
        /// Changes it.
        set: fn(&mut Config, String),
    },
    /// A text that is shown to nobody but the server's own `CONFIG GET`.
    Secret {
        /// The current one.
        get: fn(&Config) -> String,
        /// Changes it.
        set: fn(&mut Config, String),
    },
    /// A number that has no effect, with the smallest one and its default.
    AcceptedNumber(u64, u64),
    /// A text that has no effect.
    AcceptedText,
    /// Texts that have no effect: the key may be repeated.
    AcceptedList,
}

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name; any case is accepted.
    pub name: &'static str,
    /// The part that it belongs to.
    pub part: Part,
    /// Whether it can be changed while the module is loaded.
    pub at_runtime: bool,
    /// A negative number means zero, which is no limit.
    pub negative_is_zero: bool,
    /// How it is read and written.
    pub access: Access,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A number.
    Number(u64),
    /// A text.
    Text(Vec<u8>),
    /// Texts.
    List(Vec<Vec<u8>>),
}

/// The longest time in milliseconds: a day.
const MS_MAX: u64 = 86_400_000;

const fn core(name: &'static str, at_runtime: bool, access: Access) -> Key {
    Key { name, part: Part::Core, at_runtime, negative_is_zero: false, access }
}

const fn python(name: &'static str, at_runtime: bool, access: Access) -> Key {
    Key { name, part: Part::Python, at_runtime, negative_is_zero: false, access }
}

/// A limit or a switch of RedisGears, where a negative number means no limit or off.
const fn signed(name: &'static str, access: Access) -> Key {
    Key { name, part: Part::Core, at_runtime: true, negative_is_zero: true, access }
}

macro_rules! number {
    ($field:ident as $type:ty, $min:expr, $max:expr) => {
        Access::Number {
            min: $min,
            max: $max,
            get: |config| config.$field as u64,
            set: |config, number| config.$field = number as $type,
        }
    };
}

macro_rules! flag {
    ($field:ident, $max:expr) => {
        Access::Number {
            min: 0,
            max: $max,
            get: |config| u64::from(config.$field),
            set: |config, number| config.$field = number != 0,
        }
    };
}

macro_rules! text {
    ($field:ident) => {
        Access::Text { get: |config| config.$field.clone(), set: |config, text| config.$field = text }
    };
}

macro_rules! milliseconds {
    ($field:ident, $min:expr) => {
        Access::Number {
            min: $min,
            max: MS_MAX,
            get: |config| config.$field.as_millis() as u64,
            set: |config, number| config.$field = Duration::from_millis(number),
        }
    };
}

/// All keys.
pub const KEYS: [Key; 42] = [
    signed("MaxExecutions", number!(executions_max as usize, 0, 1 << 32)),
    signed("MaxExecutionsPerRegistration", number!(executions_per_registration_max as usize, 0, 1 << 32)),
    core("ProfileExecutions", true, flag!(profile, 1 << 32)),
    core("ExecutionThreads", false, number!(execution_threads as usize, 1, 1024)),
    core("ExecutionMaxIdleTime", true, milliseconds!(idle_time_max, 1)),
    core("SendMsgRetries", true, number!(message_attempts_max as u64, 0, 1 << 32)),
    core("Plugin", false, Access::AcceptedList),
    core("MaxWorkers", false, number!(workers_max as usize, 1, 1024)),
    core("WorkerSessions", false, number!(worker_sessions_max as u64, 1, 1 << 32)),
    core("WorkerIdleBytesMax", true, number!(worker_idle_bytes_max as u64, 1 << 20, 1 << 40)),
    core("WorkerBytesMax", true, number!(worker_bytes_max as u64, 0, 1 << 50)),
    core("WorkerIsolation", false, flag!(isolation, 1)),
    core("WorkerWritable", false, text!(worker_writable)),
    core("WorkerUser", false, text!(worker_user)),
    core("ClusterUser", true, text!(cluster_user)),
    core(
        "ClusterPassword",
        true,
        Access::Secret {
            get: |config| config.cluster_password.clone(),
            set: |config, text| config.cluster_password = text,
        },
    ),
    core("AbortGrace", true, milliseconds!(abort_grace, 1)),
    core("SyncMaxTime", true, milliseconds!(sync_time_max, 1)),
    core("ScriptMaxTime", true, milliseconds!(script_time_max, 1)),
    core("PendingEventBytesMax", true, number!(pending_event_bytes_max as usize, 1 << 10, 1 << 40)),
    core("MaxRecordBytes", false, number!(record_bytes_max as usize, 1, 256 << 20)),
    core("ResultBytesMax", true, number!(result_bytes_max as usize, 1, 1 << 40)),
    core("WorkerStartMax", true, milliseconds!(worker_start_max, 100)),
    core("WorkerStallMax", true, milliseconds!(worker_stall_max, 500)),
    core("ExecutionMaxTime", true, milliseconds!(execution_time_max, 0)),
    core("MaxRequirementBytes", true, number!(requirement_bytes_max as u64, 0, 1 << 40)),
    core("InstallMax", false, milliseconds!(install_time_max, 100)),
    core(
        "SpinMicros",
        false,
        Access::Number {
            min: 0,
            max: 1000,
            get: |config| config.spin.as_micros() as u64,
            set: |config, number| config.spin = Duration::from_micros(number),
        },
    ),
    core("SharedMemory", false, flag!(shared_memory, 1)),
    core("HooksWithoutPermission", true, flag!(hooks_without_permission, 1)),
    core("ShortReplies", true, flag!(short_replies, 1)),
    core("InjectPanic", false, flag!(inject_panic, 1)),
    core("RequirementsDir", false, text!(requirements_dir)),
    core(
        "Python",
        false,
        Access::Text {
            get: |config| config.python.clone().unwrap_or_default(),
            set: |config, text| config.python = Some(text),
        },
    ),
    core(
        "Pythons",
        false,
        Access::Text {
            get: |config| config.pythons.clone().unwrap_or_default(),
            set: |config, text| config.pythons = Some(text),
        },
    ),
    python("PythonAttemptTraceback", true, flag!(traceback, 1)),
    python("PythonInstallReqMaxIdleTime", true, Access::AcceptedNumber(1, 30_000)),
    python("OverridePythonAllocators", false, Access::AcceptedNumber(0, 1)),
    python("CreateVenv", false, Access::AcceptedNumber(0, 0)),
    python("DownloadDeps", false, Access::AcceptedNumber(0, 0)),
    python("DependenciesUrl", false, Access::AcceptedText),
    python("DependenciesSha256", false, Access::AcceptedText),
];

/// Keys of RedisGears that name a place of its private interpreter; nothing else is known of them.
const ALSO_ACCEPTED: [Key; 3] = [
    python("PythonInstallationDir", false, Access::AcceptedText),
    python("ForeceDownloadDepsOnEnterprise", false, Access::AcceptedNumber(0, 0)),
    python("ForceDownloadDepsOnEnterprise", false, Access::AcceptedNumber(0, 0)),
];

/// The key with that name, in any case.
#[must_use]
pub fn key(name: &[u8]) -> Option<&'static Key> {
    KEYS.iter().chain(&ALSO_ACCEPTED).find(|key| key.name.as_bytes().eq_ignore_ascii_case(name))
}

fn is_negative(value: &[u8]) -> bool {
    core::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok_and(|number| number < 0))
}

fn parse_number(value: &[u8], min: u64, max: u64) -> Option<u64> {
    let number = core::str::from_utf8(value).ok()?.parse().ok()?;
    (min..=max).contains(&number).then_some(number)
}

impl Config {
    /// The defaults for a machine.
    #[must_use]
    pub fn new(machine: Machine) -> Config {
        let cores = machine.cores;
        Config {
            python: None,
            pythons: None,
            executions_max: 1000,
            executions_per_registration_max: 100,
            execution_threads: cores.max(3),
            profile: false,
            workers_max: 16.max(2 * cores),
            worker_sessions_max: 1000,
            worker_idle_bytes_max: 128 << 20,
            worker_bytes_max: machine.memory_bytes / 2,
            isolation: true,
            worker_writable: String::new(),
            worker_user: String::new(),
            cluster_user: String::new(),
            cluster_password: String::new(),
            abort_grace: Duration::from_millis(1000),
            sync_time_max: Duration::from_millis(5000),
            script_time_max: Duration::from_secs(60),
            pending_event_bytes_max: 64 << 20,
            record_bytes_max: 64 << 20,
            result_bytes_max: 512 << 20,
            worker_start_max: Duration::from_secs(30),
            worker_stall_max: Duration::from_secs(10),
            execution_time_max: Duration::ZERO,
            idle_time_max: Duration::from_millis(5000),
            message_attempts_max: 3,
            install_time_max: Duration::from_secs(300),
            requirements_dir: "redgrease-requirements".to_owned(),
            requirement_bytes_max: 256 << 20,
            spin: Duration::from_micros(50),
            shared_memory: true,
            traceback: true,
            hooks_without_permission: false,
            short_replies: false,
            inject_panic: false,
            accepted: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// Parses load arguments.
    ///
    /// # Errors
    /// A known key with a value outside its range, or a key without value; the text names it.
    pub fn parse(args: &[&[u8]], machine: Machine) -> Result<Config, String> {
        let mut config = Config::new(machine);
        for pair in args.chunks(2) {
            let name = String::from_utf8_lossy(pair[0]);
            let Some(value) = pair.get(1) else { return Err(format!("load argument '{name}' has no value")) };
            match key(pair[0]) {
                Some(key) => {
                    config.set(key, value).map_err(|expected| {
                        format!("load argument '{name}' wants {expected}, got '{}'", lossy(value))
                    })?;
                    if key.part == Part::Python {
                        config.extra.insert(key.name.as_bytes().to_vec(), value.to_vec());
                    }
                }
                None => {
                    config.extra.insert(pair[0].to_vec(), value.to_vec());
                }
            }
        }
        Ok(config)
    }

    /// Changes the value of a key.
    ///
    /// # Errors
    /// It is not in the key's range; the text says what is expected.
    pub fn set(&mut self, key: &'static Key, value: &[u8]) -> Result<(), String> {
        let number = |min, max| parse_number(value, min, max).ok_or_else(|| format!("a number from {min} to {max}"));
        match key.access {
            // As in RedisGears: no limit.
            Access::Number { min: 0, set, .. } if key.negative_is_zero && is_negative(value) => set(self, 0),
            Access::Number { min, max, set, .. } => set(self, number(min, max)?),
            Access::Text { set, .. } | Access::Secret { set, .. } => set(self, lossy(value)),
            Access::AcceptedNumber(min, _) => {
                self.accepted.insert(key.name, vec![number(min, u64::MAX >> 1)?.to_string().into_bytes()]);
            }
            Access::AcceptedText => {
                self.accepted.insert(key.name, vec![value.to_vec()]);
            }
            Access::AcceptedList => self.accepted.entry(key.name).or_default().push(value.to_vec()),
        }
        Ok(())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Setting {
        let accepted = self.accepted.get(key.name);
        let first = || accepted.and_then(|values| values.first());
        match key.access {
            Access::Number { get, .. } => Setting::Number(get(self)),
            Access::Text { get, .. } | Access::Secret { get, .. } => Setting::Text(get(self).into_bytes()),
            Access::AcceptedNumber(_, default) => {
                Setting::Number(first().and_then(|value| parse_number(value, 0, u64::MAX)).unwrap_or(default))
            }
            Access::AcceptedText => Setting::Text(first().cloned().unwrap_or_default()),
            Access::AcceptedList => Setting::List(accepted.cloned().unwrap_or_default()),
        }
    }
}

impl Key {
    /// Whether its value is shown to nobody but the server's own `CONFIG GET`.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.access, Access::Secret { .. })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cores: 2, memory_bytes: 1 << 32 };

    #[test]
    fn known_keys_are_read_in_any_case_and_unknown_ones_are_kept() {
        let config = Config::parse(&[b"maxexecutions", b"3", b"Mine", b"x"], MACHINE).unwrap();
        assert_eq!(config.executions_max, 3);
        assert_eq!(config.extra.get(b"Mine".as_slice()), Some(&b"x".to_vec()));
    }

    #[test]
    fn extreme_numbers_are_refused_with_key_range_and_value() {
        let huge = "9".repeat(400);
        for key in KEYS.iter().filter(|key| matches!(key.access, Access::Number { .. })) {
            for value in ["-1", "", " 1", "1.5", "1e3", "inf", "18446744073709551615", "18446744073709551616", &huge] {
                if key.negative_is_zero && value == "-1" {
                    continue;
                }
                let error = Config::parse(&[key.name.as_bytes(), value.as_bytes()], MACHINE).unwrap_err();
                let expected = format!("load argument '{}' wants a number from ", key.name);
                assert!(error.starts_with(&expected) && error.ends_with(&format!("got '{value}'")), "{error}");
            }
        }
    }

    #[test]
    fn a_bad_value_names_key_range_and_value() {
        let error = Config::parse(&[b"ExecutionThreads", b"none"], MACHINE).unwrap_err();
        assert_eq!(error, "load argument 'ExecutionThreads' wants a number from 1 to 1024, got 'none'");
        assert_eq!(Config::parse(&[b"Python"], MACHINE).unwrap_err(), "load argument 'Python' has no value");
    }

    #[test]
    fn each_key_reads_back_what_was_set() {
        for key in KEYS.iter().chain(&ALSO_ACCEPTED) {
            let mut config = Config::new(MACHINE);
            let before = config.get(key);
            let (value, expected) = match (key.access, &before) {
                (Access::Number { max: 1, .. }, Setting::Number(number)) => {
                    let flipped = 1 - number;
                    (flipped.to_string(), Setting::Number(flipped))
                }
                (_, Setting::Number(0)) => ("1".to_owned(), Setting::Number(1)),
                (_, Setting::Number(number)) => ((number + 1).to_string(), Setting::Number(number + 1)),
                (_, Setting::Text(_)) => ("t".to_owned(), Setting::Text(b"t".to_vec())),
                (_, Setting::List(_)) => ("t".to_owned(), Setting::List(vec![b"t".to_vec()])),
            };
            config.set(key, value.as_bytes()).unwrap();
            assert_eq!(config.get(key), expected, "{}", key.name);
        }
    }

    #[test]
    fn no_two_keys_share_a_name() {
        for (index, one) in KEYS.iter().enumerate() {
            let others = KEYS[..index].iter().chain(&ALSO_ACCEPTED);
            assert!(others.clone().all(|other| !other.name.eq_ignore_ascii_case(one.name)), "{}", one.name);
        }
    }
}
