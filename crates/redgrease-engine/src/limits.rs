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

/// The longest time that a client waits for other shards to apply a change of the registrations, in milliseconds.
pub const CHANGE_MS_MAX: u64 = 30_000;

/// Encoded bytes of records of other shards that a shard may have in one of its workers for one stage of an execution: divided
/// among the shards, within the two bounds below.
pub const EXCHANGE_BYTES_MAX: u64 = 16 << 20;

/// The smallest share of one shard, in bytes.
pub const EXCHANGE_WINDOW_MIN: u64 = 64 << 10;

/// The largest share of one shard, in bytes.
pub const EXCHANGE_WINDOW_MAX: u64 = 1 << 20;

/// Bytes of functions of other shards that are kept.
pub const FUNCTION_BYTES_MAX: usize = 64 << 20;

/// Functions that another shard is known to keep.
pub const FUNCTIONS_KNOWN_MAX: usize = 10_000;

/// The longest time that a command waits for the answers of other shards, in milliseconds.
pub const INQUIRY_MS_MAX: u64 = 10_000;

/// Time between two comparisons of the registrations with those of other shards, in milliseconds.
pub const DIGEST_MS: u64 = 1000;

/// Rows in a section of `INFO`.
pub const INFO_ROWS_MAX: usize = 1000;

/// Bytes of payloads that are sent to a shard before it acknowledges them.
pub const LINK_WINDOW_BYTES: u64 = 8 << 20;

/// The longest payload of one inner message: longer messages are sent in parts.
pub const LINK_PART_BYTES: u64 = 511 << 10;

/// Bytes of messages to one shard that wait or are not acknowledged.
pub const LINK_QUEUE_BYTES_MAX: usize = 256 << 20;

/// The longest message to a shard, or of one, in bytes.
pub const LINK_MESSAGE_BYTES_MAX: usize = 255 << 20;

/// What a message costs besides its bytes while it waits.
pub const LINK_MESSAGE_COST_BYTES: usize = 100;

/// Messages that may wait for a shard before `RG.NETWORKTEST` adds no further one.
pub const BROADCAST_MESSAGES_MAX: usize = 10_000;

/// Bytes of messages that are sent to a shard at once; the rest is sent in pieces of work.
pub const LINK_BURST_BYTES: u64 = 1 << 20;

/// Bytes of messages of one shard that wait to be handled before its next message is acknowledged later.
pub const RECEIVED_BYTES_SOFT: usize = 4 << 20;

/// The same for the messages of all shards.
pub const RECEIVED_ALL_BYTES_SOFT: usize = 16 << 20;

/// Bytes of messages of all shards, and of parts of them, above which further ones are refused.
pub const RECEIVED_BYTES_MAX: usize = 512 << 20;

/// Pause between two looks at the links, in milliseconds.
pub const LINK_TICK_MS: u64 = 100;

/// A longer pause means that this server stood still: other shards are not blamed for it. In milliseconds.
pub const LINK_STALL_MS: u64 = 500;

/// Pause between two signs of life, in milliseconds.
pub const LINK_BEAT_MS: u64 = 1000;

/// Pause before a shard that did not answer `RG.HELLO` with the id of its run is greeted again, in milliseconds.
pub const HELLO_AGAIN_MS: u64 = 1000;

/// Time in which a link has to be connected and authenticated, in milliseconds.
pub const LINK_OPEN_MS_MAX: u64 = 5000;

/// Pause before a link is opened again, in milliseconds; doubled with each failure while the shard is given up.
pub const LINK_AGAIN_MS: u64 = 1000;

/// The longest of these pauses.
pub const LINK_AGAIN_MS_MAX: u64 = 10_000;

/// Time after which a link is no longer in a row with those before it, in milliseconds.
pub const LINK_STEADY_MS: u64 = 10_000;

/// Hellos in a row with which two shards may fail to agree on an epoch.
pub const LINK_ROUNDS_MAX: u32 = 8;

/// Senders of messages that are remembered although the topology does not have them.
pub const UNKNOWN_SENDERS_MAX: usize = 64;

/// Runs of a shard that are remembered.
pub const RUNS_MAX: usize = 8;

/// The longest id of a run of a shard, in bytes.
pub const RUN_ID_BYTES_MAX: usize = 128;
