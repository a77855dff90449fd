//! Limits of what may wait, run or be kept, and the pauses and deadlines that are not configurable.
//!
//! Those with a load argument are in [`Config`](crate::Config).

/// Sessions that may wait for a worker.
pub const WAITING_SESSIONS_MAX: usize = 10_000;

/// The longest time that a script waits for a worker, in milliseconds.
pub const WORKER_WAIT_MS_MAX: u64 = 60_000;

/// Registrations of one session.
pub const REGISTRATIONS_PER_SESSION_MAX: usize = 10_000;

/// Executions of one session that have not ended.
pub const LIVE_PER_SESSION_MAX: usize = 100_000;

/// Executions of one session that may wait for its worker to be replaced.
pub const HELD_PER_SESSION_MAX: usize = 100_000;

/// Sync executions that clients triggered and that are sent to a worker in one go.
pub const SYNC_GROUP_MAX: usize = 256;

/// Time that these should take, in milliseconds.
pub const SYNC_GROUP_MS: u64 = 5;

/// Pause before a session with registrations requests a worker again, in milliseconds.
pub const WORKER_AGAIN_MS: u64 = 1000;

/// Pause before the requirements of a session with registrations are looked for again, in milliseconds.
pub const REQUIREMENTS_AGAIN_MS: u64 = 30_000;

/// Pause before interpreters are looked for again when the wanted one was not found, in milliseconds.
pub const INTERPRETERS_AGAIN_MS: u64 = 5000;

/// Time that more than one idle worker is kept, in milliseconds.
pub const IDLE_WORKER_MS: u64 = 3000;

/// Ends of a session's worker in a row after which it is not rebuilt any more.
pub const DEATHS_MAX: u32 = 5;

/// Time after which an end of a session's worker is no longer in a row with the next one, in milliseconds.
pub const DEATHS_FORGOTTEN_MS: u64 = 60_000;

/// Failed starts of workers in a row after which waiting sessions get an error, and which are logged.
pub const FAILED_STARTS_MAX: u32 = 3;

/// Time after which an unfinished line of output is logged, in milliseconds.
pub const LINE_MS_MAX: u64 = 200;

/// Bytes that may wait for one worker before it is ended.
pub const UNSENT_BYTES_MAX: u64 = 1 << 30;

/// Time between the end of a worker's connection and the end of its process, in milliseconds.
pub const CLOSED_MS_MAX: u64 = 100;

/// How often that time is granted to the supervisor of a process that has ended.
pub const CLOSED_LOOKS_MAX: u32 = 20;

/// Frames with numbers of other workers that are logged per worker.
pub const FOREIGN_FRAMES_LOGGED_MAX: u32 = 10;

/// Checks in a row after which a worker that must answer and makes no progress is ended: this many per `WorkerStallMax`.
pub const IDLE_LOOKS_MAX: u32 = 10;

/// Events of a registration that are still processed when it is removed; further ones are aborted.
pub const UNREGISTERED_EVENTS_MAX: usize = 10_000;

/// Bytes of results and errors of executions that have ended and are kept; the oldest executions are removed.
pub const KEPT_RESULT_BYTES_MAX: usize = 256 << 20;

/// Exports of requirements that may be in progress, and imports.
pub const EXPORTS_MAX: usize = 16;

/// Time for which a set of requirements is kept after its last session has ended, in milliseconds.
pub const COLLECT_MS: u64 = 1000;

/// Pause between two looks at the memory of workers, in milliseconds.
pub const MEMORY_LOOK_MS: u64 = 1000;

/// Bytes of frames that are kept while the main thread waits for one worker.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Number of these frames.
pub const KEPT_FRAMES_MAX: usize = 10_000;

/// Bytes that a worker may leave unread before its frames wait: its calls are not served until it reads.
pub const UNREAD_BYTES_MAX: u64 = 4 << 20;

/// Bytes of frames that are read while they wait; more stay in the socket.
pub const UNHANDLED_BYTES_MAX: usize = 64 << 20;

/// Bytes of a worker's output that go to the log per second; the rest is counted and dropped.
pub const OUTPUT_BYTES_PER_S: usize = 64 << 10;

/// Bytes that functions of one worker may log per second with `log()`.
pub const LOG_BYTES_PER_S: usize = 1 << 20;

/// What one logged line costs besides its bytes.
pub const LINE_COST_BYTES: usize = 100;

/// A line of output is cut to this many bytes.
pub const LINE_BYTES_MAX: usize = 8 << 10;

/// Encoded bytes that may be unconsumed in a worker, per execution.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes that may wait for a worker before readers pause.
pub const READ_AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Outcomes of executions that user code started, kept until it waits for them.
pub const NESTED_MAX: usize = 1000;

/// Their size in bytes.
pub const NESTED_BYTES_MAX: usize = 64 << 20;

/// Time events at any time.
pub const TIME_EVENTS_MAX: usize = 100_000;

/// Time that a worker has to answer a request for a profile, in milliseconds.
pub const PROFILE_MS_MAX: u64 = 10_000;

/// Time between two ticks of the schedule while a worker waits, in milliseconds.
pub const TICK_MS: u64 = 100;

/// The deepest nesting of sync executions.
pub const SYNC_DEPTH_MAX: usize = 16;

/// Events that may wait for their sync executions before further ones are dropped.
pub const SYNC_WAITING_MAX: usize = 100_000;

/// Calls that may wait while clients are paused.
pub const DEFERRED_MAX: usize = 10_000;

/// Bytes of arguments of all calls that wait while clients are paused.
pub const DEFERRED_BYTES_MAX: usize = 64 << 20;

/// What a waiting call costs besides its arguments, in bytes.
pub const DEFERRED_COST_BYTES: usize = 200;

/// The longest time that a call waits while clients are paused, in milliseconds.
pub const DEFERRED_MS_MAX: u64 = 60_000;

/// Commands whose facts are stored: more than any server has.
pub const FACTS_MAX: usize = 4096;

/// Length of the names that are stored: more than any command has.
pub const NAME_BYTES_MAX: usize = 64;

/// Entries that are read, acknowledged or removed with one command.
pub const ENTRIES_PER_COMMAND: usize = 128;

/// Commands of a batch that are run at once; the rest is run in slices.
pub const ACKNOWLEDGEMENTS_AT_ONCE: u32 = 4;

/// Pause before an operation is retried that is impossible while clients are paused, in milliseconds.
pub const PAUSED_RETRY_MS: u64 = 20;

/// Number of retries: ten minutes.
pub const PAUSED_RETRIES_MAX: u32 = 30_000;

/// Pause between two steps of an iteration over keys, in milliseconds.
pub const STEP_MS: u64 = 1;

/// Entries of all streams that are stored because a registration has yet to acknowledge them.
pub const HELD_ENTRIES_MAX: usize = 1_000_000;

/// Checks for requirements, or installations, that may wait.
pub const INSTALLS_MAX: usize = 1000;

/// Sets of requirements that are stored as present.
pub const SATISFIED_MAX: usize = 1000;

/// Registrations of a session up to which each of its rows names them all; of more, the first row names them.
pub const NAMED_IN_EACH_ROW: usize = 32;

/// Rows of `RG.DUMPREGISTRATIONS` that are written at once; more are written in slices.
pub const ROWS_AT_ONCE: usize = 128;

/// Rows that are written in one piece of work.
pub const ROWS_PER_PIECE: usize = 8;

/// Rows in a section of `INFO`.
pub const INFO_ROWS_MAX: usize = 1000;
