//! The codes of errors: the first word of an error's text, by which programs tell errors apart.
//!
//! Errors that clients of RedisGears match on have the texts that they had there, without a code or with `ERR`; an error of
//! user code is what Python says. Everything else begins with one of [`CODES`]. `docs/errors.md` is made from this table.

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The author of the function, or the caller.
    Caller,
    /// The operator of the server: configuration, permissions, packages.
    Operator,
    /// The server is in a state that passes.
    Server,
    /// A bug of redgrease.
    Bug,
}

impl Fault {
    /// How the page of errors names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Caller => "caller",
            Fault::Operator => "operator",
            Fault::Server => "server state",
            Fault::Bug => "bug",
        }
    }
}

/// Whether the same request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before something was changed.
    No,
    /// A moment later.
    Later,
}

impl Retry {
    /// How the page of errors names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Retry::No => "no",
            Retry::Later => "yes, later",
        }
    }
}

/// A code and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// The first word of the text.
    pub code: &'static str,
    /// Who has to do something.
    pub fault: Fault,
    /// Whether a retry helps.
    pub retry: Retry,
    /// What happened.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn code(
    code: &'static str,
    fault: Fault,
    retry: Retry,
    meaning: &'static str,
    remedy: &'static str,
) -> ErrorCode {
    ErrorCode { code, fault, retry, meaning, remedy }
}

/// All codes, in alphabetical order.
pub const CODES: [ErrorCode; 38] = [
    code(
        "BADEVENT",
        Fault::Caller,
        Retry::No,
        "A registration listens to an event that never happens.",
        "Use one of the events that the error lists.",
    ),
    code(
        "BADMESSAGE",
        Fault::Bug,
        Retry::No,
        "A shard of the cluster sent a message that cannot be used.",
        "Have the same version of redgrease on all shards.",
    ),
    code(
        "BADPATTERN",
        Fault::Caller,
        Retry::No,
        "A pattern of keys cannot be used.",
        "Shorten it, or use a prefix followed by `*`.",
    ),
    code(
        "BADPLAN",
        Fault::Caller,
        Retry::No,
        "A plan holds a value that is missing, unknown or outside its range.",
        "Correct the argument that the error names.",
    ),
    code(
        "BROKEN",
        Fault::Operator,
        Retry::No,
        "The functions of a session could not be loaded again after their worker had ended.",
        "Install what the error names, then register the functions again.",
    ),
    code(
        "FORBIDDEN",
        Fault::Caller,
        Retry::No,
        "A function may not call this command where it runs.",
        "Run the function with `mode='async_local'`, or the command from a client. See `docs/security.md`.",
    ),
    code(
        "INTERNAL",
        Fault::Bug,
        Retry::No,
        "A bug of redgrease. The state of the server is as it was before.",
        "Report it with the lines that the server's log has at that time.",
    ),
    code(
        "NOPERM",
        Fault::Operator,
        Retry::No,
        "The user of the client, or of the function, has no permission for a command or a key.",
        "Grant the permission that the error names, or use another user.",
    ),
    code(
        "NOPYTHON",
        Fault::Operator,
        Retry::No,
        "The module found no Python interpreter.",
        "Load the module with the argument `Python /path/to/python3`.",
    ),
    code(
        "NORESULTS",
        Fault::Caller,
        Retry::No,
        "A function waits for an execution whose results are not kept any more.",
        "Await what `run()` returned at once: only the newest outcomes are kept.",
    ),
    code(
        "NOSESSION",
        Fault::Caller,
        Retry::No,
        "Code of a session that has ended called the server.",
        "End threads with the function that started them.",
    ),
    code(
        "PAUSED",
        Fault::Server,
        Retry::Later,
        "Clients are paused (`CLIENT PAUSE`, or a failover), and the operation would be replicated.",
        "Try again when clients are not paused.",
    ),
    code(
        "PEERADDRESS",
        Fault::Operator,
        Retry::Later,
        "Another shard answers at the address of a shard.",
        "It passes when the topology is up to date; a pushed one (`RG.CLUSTERSET`) has to be pushed again.",
    ),
    code(
        "PEERAUTH",
        Fault::Operator,
        Retry::No,
        "Another shard does not accept user or password of this one.",
        "Give all shards the same `masteruser` and `masterauth`, and that user permission for `rg.hello` and `rg.innermsgcommand`.",
    ),
    code(
        "PEERDOWN",
        Fault::Operator,
        Retry::Later,
        "Another shard cannot be reached.",
        "The error says why; start it, or let the cluster replace it.",
    ),
    code(
        "PEERFAILED",
        Fault::Server,
        Retry::Later,
        "Another shard answers messages with an error, or not at all.",
        "The error has its words; see its log.",
    ),
    code(
        "PEERFOREIGN",
        Fault::Operator,
        Retry::No,
        "What answers at the address of a shard is not redgrease.",
        "Load the module on all shards.",
    ),
    code("PEERGONE", Fault::Server, Retry::Later, "A shard is not part of the cluster, or not any more.", "Try again."),
    code(
        "PEERPROTOCOL",
        Fault::Bug,
        Retry::No,
        "Another shard sent something that redgrease does not send.",
        "Check who connects as a shard; otherwise report it.",
    ),
    code(
        "PEERQUEUE",
        Fault::Server,
        Retry::Later,
        "Messages between two shards wait, and are too long or too many.",
        "Aggregate before records move, or see why the shard is slow.",
    ),
    code(
        "PEERRESET",
        Fault::Server,
        Retry::Later,
        "Messages between two shards were given up, because one of them did not answer in time, or was not part of the \
         cluster for a moment.",
        "Try again; the log of the other shard says why.",
    ),
    code(
        "PEERRESTARTED",
        Fault::Server,
        Retry::Later,
        "Another shard has restarted while something was in progress there.",
        "Try again.",
    ),
    code(
        "PEERSILENT",
        Fault::Operator,
        Retry::Later,
        "Another shard is connected and does not answer for `ExecutionMaxIdleTime`.",
        "See what keeps it busy, or whether it was stopped; raise `ExecutionMaxIdleTime` if it is only slow.",
    ),
    code(
        "PEERTLS",
        Fault::Operator,
        Retry::No,
        "There is no TLS connection to another shard.",
        "Give all shards the same `tls-cluster`, and certificates that they accept from each other.",
    ),
    code(
        "PEERVERSION",
        Fault::Operator,
        Retry::No,
        "Another shard has a version of redgrease that sends other messages.",
        "Install the same version on all shards.",
    ),
    code(
        "PYTHONVERSION",
        Fault::Operator,
        Retry::No,
        "A function holds code of a Python version that no worker of the server has.",
        "Install that version on the server's host (load argument `Pythons`), use one of the server's, or send the function as text.",
    ),
    code(
        "READONLY",
        Fault::Caller,
        Retry::No,
        "Functions are not run on a read-only replica.",
        "Ask the replica's master.",
    ),
    code(
        "RECORDTOOBIG",
        Fault::Caller,
        Retry::No,
        "A value is longer than `MaxRecordBytes`.",
        "Raise it, or read with `readValue=False` and fetch parts with `execute()`.",
    ),
    code(
        "RESULTTOOBIG",
        Fault::Caller,
        Retry::No,
        "The results of an execution are longer than `ResultBytesMax`.",
        "Raise it, aggregate, or write the results to keys.",
    ),
    code(
        "SHARDLATE",
        Fault::Server,
        Retry::Later,
        "A shard of the cluster has not answered in time, or does not have a registration yet.",
        "Try again: shards get what they have missed within seconds.",
    ),
    code(
        "SHARDLOST",
        Fault::Operator,
        Retry::Later,
        "A shard of the cluster that an execution needs does not answer, has restarted or was removed.",
        "Start the shard that the error names, or remove it from the cluster; then run the function again.",
    ),
    code(
        "SYNCDEPTH",
        Fault::Caller,
        Retry::No,
        "Sync functions start each other, too deep.",
        "Make one of them `async_local`.",
    ),
    code(
        "TOOLONG",
        Fault::Caller,
        Retry::No,
        "An execution ran longer than `ExecutionMaxTime`.",
        "Raise it, or do less in one execution.",
    ),
    code(
        "TOOMANY",
        Fault::Caller,
        Retry::No,
        "A session has as many registrations or executions as it may have.",
        "Use several sessions, or wait for executions to end.",
    ),
    code(
        "WORKERBUSY",
        Fault::Operator,
        Retry::Later,
        "No worker became free for a script.",
        "Raise `MaxWorkers`, or unregister what is not needed.",
    ),
    code(
        "WORKERDIED",
        Fault::Caller,
        Retry::Later,
        "The worker process that ran the code has ended: killed by a signal, by the server at a limit, or by itself.",
        "The error says why and in which step; the server's log has what the worker wrote.",
    ),
    code(
        "WORKERDOWN",
        Fault::Server,
        Retry::Later,
        "The worker of a session is being replaced, or has died too often.",
        "Try again; if it died too often, correct the function and register it again.",
    ),
    code(
        "WORKERSTART",
        Fault::Operator,
        Retry::No,
        "Worker processes cannot be started.",
        "Install the package `redgrease` for the interpreter that the error names.",
    ),
];

/// The entry of an error's text, if it begins with a code.
#[must_use]
pub fn code_of(text: &str) -> Option<&'static ErrorCode> {
    let word = text.split([' ', '\n']).next()?;
    CODES.iter().find(|entry| entry.code == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_words_in_alphabetical_order_and_each_has_a_remedy() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in CODES {
            assert!(entry.code.bytes().all(|byte| byte.is_ascii_uppercase()), "{}", entry.code);
            for sentence in [entry.meaning, entry.remedy] {
                assert!(sentence.ends_with('.') && sentence.starts_with(|c: char| c.is_uppercase()), "{}", entry.code);
            }
        }
    }

    #[test]
    fn the_code_of_a_text_is_its_first_word() {
        assert_eq!(code_of("NOPERM the user").map(|entry| entry.code), Some("NOPERM"));
        assert_eq!(code_of("execution plan does not exist"), None);
        assert_eq!(code_of(""), None);
    }
}
