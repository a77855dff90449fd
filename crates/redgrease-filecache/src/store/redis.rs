//! An index in a server: connections, redirections, back-off.
//!
//! redis-rs' cluster client is not used. All keys of a cache are in one slot, so requests go to one node, and a
//! redirection only changes where to connect. That client parses each packed command again to find its node, and does
//! not report that it reconnected, but a new connection has to be checked for the run id of its server before it is
//! used. A library for retries would provide only the pauses: what follows an error is decided by `Server::judge`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redgrease_cache_rules::memory::Memory;
use redgrease_cache_rules::protocol::{Answer, Held, HeldKind, Op, Reply, Request, Token};
use redgrease_cache_rules::{Entry, Micros};
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind, IntoConnectionInfo, RedisError,
    ServerErrorKind, Value,
};

use super::script;
use super::wire::{self, Arguments};
use crate::edge::{Leases, Outage, Page};
use crate::error::{Cause, Error, Result};
use crate::lock::lock;
use crate::options::{self, OnOutage, Options};

/// Maximum number of redirections, reconnections and reloads of the script per request.
const MAX_TURNS: u32 = 8;

/// A server and the keys of one cache in it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where to connect: the url's address, or the node that it redirected to.
    info: Mutex<ConnectionInfo>,
    given: ConnectionInfo,
    keys: [String; 9],
    /// Their number and names, as sent with each request.
    packed_keys: Vec<u8>,
    shown: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    instance: AtomicU64,
    pub(crate) round_trips: AtomicU64,
    breaker: Mutex<Breaker>,
    on_outage: OnOutage,
}

/// The latest failed connection attempts. Callers that arrive during an attempt share the result of the
/// next one; each caller gets the result of an attempt that began after its call.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    last: Option<Failed>,
}

/// A failed connection attempt.
#[derive(Debug)]
struct Failed {
    began: Instant,
    ended: Instant,
    /// Until when a cache that works without the server does not try it again.
    spared_until: Instant,
    outage: Outage,
}

/// Minimum time between two connection attempts of a process to a server that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// An attempt that took longer costs callers time that a cache in the mode `degrade` does not spend on each read.
const SLOW_TRY: Duration = Duration::from_millis(50);

/// What to do before connecting.
enum Ready {
    Connect,
    /// Wait, then connect.
    Pause(Duration),
    Fail(Outage),
}

fn push_bulk(packed: &mut Vec<u8>, bytes: &[u8]) {
    push_count(packed, b'$', bytes.len());
    packed.extend_from_slice(bytes);
    packed.extend_from_slice(b"\r\n");
}

fn push_count(packed: &mut Vec<u8>, of: u8, count: usize) {
    packed.push(of);
    packed.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    packed.extend_from_slice(b"\r\n");
}

/// What to do after an error reply.
enum Next {
    Load,
    Reconnect,
    Wait,
    Fail(Outage),
}

impl Server {
    pub fn new(url: &str, options: &Options) -> Result<Self> {
        let bad = |message: String| Error::new("open", None, Cause::BadConfig(message));
        let info = url.into_connection_info().map_err(|_| bad(wrong_url(url)))?;
        #[cfg(feature = "tls")]
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // Another part of this process may have installed a provider already; any is fine.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let prefix = options::prefix(&options.namespace)?;
        let keys = wire::KEYS.map(|key| format!("{prefix}:{key}"));
        let mut packed_keys = Vec::new();
        push_bulk(&mut packed_keys, keys.len().to_string().as_bytes());
        keys.iter().for_each(|key| push_bulk(&mut packed_keys, key.as_bytes()));
        Ok(Self {
            given: info.clone(),
            info: Mutex::new(info),
            keys,
            packed_keys,
            shown: options.server().unwrap_or_default(),
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            instance: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            breaker: Mutex::default(),
            on_outage: options.on_outage,
        })
    }

    pub fn instance(&self) -> u64 {
        self.instance.load(Ordering::Relaxed)
    }

    /// Keys of the proof of concept that this cache succeeds; they exist if its namespace is in use.
    pub fn predecessors(&self, namespace: &str) -> Vec<String> {
        let old = namespace.trim_matches(['{', '}']);
        ["keys:set", "idx:lru", "idx:size", "idx:total", "purge:mutex", "evict:log"]
            .into_iter()
            .map(|key| format!("{old}:{key}"))
            .collect()
    }

    fn command(&self, load: bool, arguments: &Arguments) -> Cmd {
        let script = script::of(arguments.operation);
        let mut command = redis::cmd(if load { "EVAL" } else { "EVALSHA" });
        command.arg(if load { &script.body } else { &script.sha });
        command.arg(self.keys.len()).arg(&self.keys[..]);
        for argument in arguments.iter() {
            command.arg(argument);
        }
        command
    }

    /// The same as bytes, without an intermediate list.
    fn packed_command(&self, load: bool, arguments: &Arguments) -> Vec<u8> {
        let script = script::of(arguments.operation);
        let (command, text) = if load { ("EVAL", &script.body) } else { ("EVALSHA", &script.sha) };
        let count = arguments.iter().len();
        let mut packed = Vec::with_capacity(64 + text.len() + self.packed_keys.len() + arguments.total() + count * 16);
        push_count(&mut packed, b'*', 3 + self.keys.len() + count);
        push_bulk(&mut packed, command.as_bytes());
        push_bulk(&mut packed, text.as_bytes());
        packed.extend_from_slice(&self.packed_keys);
        arguments.iter().for_each(|argument| push_bulk(&mut packed, argument));
        packed
    }

    fn client(&self) -> Result<Client, Outage> {
        let info = lock(&self.info).clone();
        Client::open(info).map_err(|error| Outage::Unavailable(error.to_string()))
    }

    /// Whether a caller that needed a connection at `called` may try to get one, or shares the failure of another.
    fn may_connect(&self, called: Instant) -> Ready {
        let breaker = lock(&self.breaker);
        let Some(failed) = &breaker.last else { return Ready::Connect };
        let now = Instant::now();
        let is_spared = self.on_outage == OnOutage::Degrade
            && now < failed.spared_until
            && failed.ended.duration_since(failed.began) > SLOW_TRY;
        if failed.began >= called || is_spared {
            return Ready::Fail(failed.outage.clone());
        }
        match RETRY_PAUSE.checked_sub(now.saturating_duration_since(failed.ended)) {
            Some(left) if !left.is_zero() => Ready::Pause(left),
            _ => Ready::Connect,
        }
    }

    /// Whether the latest connection attempt failed.
    fn is_out(&self) -> bool {
        lock(&self.breaker).last.is_some()
    }

    fn connected(&self, instance: u64) {
        *lock(&self.breaker) = Breaker::default();
        self.instance.store(instance, Ordering::Relaxed);
    }

    fn not_connected(&self, error: &RedisError, began: Instant) -> Outage {
        let mut breaker = lock(&self.breaker);
        breaker.failures = breaker.failures.saturating_add(1);
        // The node may be dead and replaced by its replica: the address in the url leads to it.
        *lock(&self.info) = self.given.clone();
        let pause = Duration::from_millis(20 << breaker.failures.min(6)).mul_f64(0.5 + fastrand::f64());
        let refused = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
            || error.kind() == ErrorKind::AuthenticationFailed;
        let outage = if refused {
            let why = error.detail().unwrap_or("wrong user or password");
            Outage::Denied(format!("authentication to {} failed: {why}; correct user and password", self.shown))
        } else if error.to_string().contains("DB index is out of range") {
            Outage::Misnamed(format!("{} has no such database; correct the number at the end of the url", self.shown))
        } else {
            let fix = "start the server, or name another one by the url";
            Outage::Unavailable(format!("cannot connect to {}: {error}; {fix}", self.shown))
        };
        let ended = Instant::now();
        breaker.last = Some(Failed { began, ended, spared_until: ended + pause, outage: outage.clone() });
        outage
    }

    fn judge(&self, error: &RedisError) -> Next {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Next::Load,
            ErrorKind::Server(ServerErrorKind::Moved) => {
                if let Some((host, port)) = error.redirect_node().and_then(|(node, _)| node.rsplit_once(':'))
                    && let Ok(port) = port.parse()
                {
                    let mut info = lock(&self.info);
                    let asked = matches!(host, "" | "?");
                    let host = if asked { host_of(info.addr()) } else { host.trim_matches(['[', ']']).to_owned() };
                    let addr = match info.addr().clone() {
                        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
                        }
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    *info = info.clone().set_addr(addr);
                }
                Next::Reconnect
            }
            // An address that follows the master may lead to another server by now.
            ErrorKind::Io | ErrorKind::Server(ServerErrorKind::ReadOnly) => Next::Reconnect,
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
            ) => Next::Wait,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Next::Fail(Outage::Denied(error.to_string())),
            _ => match error.code() {
                Some("BUSY") => Next::Wait,
                Some("OOM" | "MISCONF" | "NOREPLICAS") => Next::Fail(Outage::Refused(error.to_string())),
                Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Next::Fail(Outage::Denied(error.to_string())),
                _ if ["ACL failure", "NOPERM", "The user executing the script", "unauthenticated"]
                    .iter()
                    .any(|words| error.to_string().contains(words)) =>
                {
                    Next::Fail(Outage::Denied(error.to_string()))
                }
                _ if error.to_string().contains("OOM command not allowed") => {
                    Next::Fail(Outage::Refused(error.to_string()))
                }
                _ => Next::Fail(Outage::Unavailable(error.to_string())),
            },
        }
    }

    fn give_up(&self, why: &str) -> Outage {
        let (server, patience) = (&self.shown, self.command_timeout);
        Outage::Unavailable(format!("{server}: {why}; no answer after {MAX_TURNS} attempts or {patience:.1?}"))
    }
}

/// Schemes of server addresses.
const SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"];

/// The reason why an address is invalid. The address may contain a password: it is repeated only if it cannot.
fn wrong_url(url: &str) -> String {
    const FORM: &str =
        "write redis://[user:password@]host:port/db, rediss:// for TLS, or redis+unix:///path for a socket";
    match url.split_once("://") {
        None if url.is_empty() => format!("the url of the server is empty; leave it out, or {FORM}"),
        None if url.starts_with('/') => {
            format!("the url of the server, {url:?}, is a path; write redis+unix://{url} if it is a socket, or {FORM}")
        }
        None if url.contains('@') => format!("the url of the server has no scheme; {FORM}"),
        None => format!("the url of the server, {url:?}, has no scheme; {FORM}"),
        Some((scheme, _)) if scheme.contains('@') => format!("the url of the server has no scheme; {FORM}"),
        Some((scheme, _)) if !SCHEMES.contains(&scheme) => {
            format!("the url of the server has the scheme {scheme:?}; {FORM}")
        }
        Some(_) => format!("the url of the server has no host, or a port or database that is not a number; {FORM}"),
    }
}

fn host_of(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => "127.0.0.1".to_owned(),
    }
}

/// Whether the operation does not depend on content, so that it may be sent before the index's owner is known.
pub(crate) fn needs_no_check(op: &Op) -> bool {
    matches!(op, Op::Open { .. } | Op::Rebuild { .. } | Op::Restore { .. } | Op::Finish { .. } | Op::Renew { .. })
}

/// The server's run id, from its INFO; 0 if missing.
fn instance_in(info: &str) -> u64 {
    info.lines()
        .find_map(|line| line.strip_prefix("run_id:"))
        .and_then(|id| u64::from_str_radix(id.trim().get(..16)?, 16).ok())
        .unwrap_or(0)
}

fn memory_in(mut values: Vec<Value>) -> Option<Memory> {
    redis::from_redis_value::<String>(values.pop()?).ok().and_then(|info| Memory::of_info(&info))
}

fn pause_of(turn: u32) -> Duration {
    Duration::from_millis(5 << turn.min(6)).mul_f64(0.5 + fastrand::f64())
}

fn parse(op: &Op, value: Value) -> Result<Answer, Outage> {
    wire::answer(op, value).ok_or_else(|| {
        Outage::Unavailable("the script's answer is not understood; is its version different?".to_owned())
    })
}

/// Connections for blocking threads.
pub(crate) struct Blocking {
    pub server: Server,
    /// The most recently used one is used next, so those at the beginning have been idle for the longest time.
    idle: Mutex<Vec<(Line, Instant)>>,
    /// Held by the thread that tries to connect to a server that does not answer.
    turn: Mutex<()>,
}

/// One connection.
struct Line {
    connection: redis::Connection,
    checked: bool,
}

/// Maximum number of idle connections.
const MAX_IDLE: usize = 256;

/// Number of idle connections that are kept indefinitely.
const KEPT_IDLE: usize = 1;

/// How long further ones are kept.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(2);

impl Blocking {
    pub fn new(server: Server) -> Self {
        Self { server, idle: Mutex::default(), turn: Mutex::default() }
    }

    fn connect(&self) -> Result<Line, Outage> {
        // While the server does not answer, one thread tries at a time, and the others share the result.
        let called = Instant::now();
        let _turn = self.server.is_out().then(|| lock(&self.turn));
        match self.server.may_connect(called) {
            Ready::Connect => {}
            Ready::Pause(pause) => std::thread::sleep(pause),
            Ready::Fail(outage) => return Err(outage),
        }
        let began = Instant::now();
        let client = self.server.client()?;
        let connect = || {
            let mut connection = client.get_connection_with_timeout(self.server.connect_timeout)?;
            connection.set_read_timeout(Some(self.server.command_timeout))?;
            connection.set_write_timeout(Some(self.server.command_timeout))?;
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            let info: Result<String, _> = redis::cmd("INFO").arg("server").query(&mut connection);
            match info {
                Err(error) if error.is_io_error() => Err(error),
                Err(error) if matches!(error.code(), Some("LOADING" | "NOAUTH")) => Err(error),
                info => Ok((connection, instance_in(&info.unwrap_or_default()))),
            }
        };
        let (connection, instance) = connect().map_err(|error| self.server.not_connected(&error, began))?;
        self.server.connected(instance);
        Ok(Line { connection, checked: false })
    }

    /// Runs `job` on a connection until it gets a reply, for at most the time that a command may take.
    fn with_line<R>(
        &self,
        mut job: impl FnMut(&mut Line, bool) -> Result<R, RedisErrorOrDone<R>>,
    ) -> Result<R, Outage> {
        let began = Instant::now();
        let (mut load, mut why) = (false, String::new());
        for turn in 0..MAX_TURNS {
            if turn > 0 && began.elapsed() > self.server.command_timeout {
                break;
            }
            let idle = lock(&self.idle).pop();
            let mut line = match idle {
                Some((line, _)) => line,
                None => self.connect()?,
            };
            let error = match job(&mut line, load) {
                Ok(result) => {
                    self.put_back(line);
                    return Ok(result);
                }
                Err(RedisErrorOrDone::Done(result)) => {
                    self.put_back(line);
                    return Ok(result);
                }
                Err(RedisErrorOrDone::Error(error)) => error,
            };
            why = error.to_string();
            let timed_out = error.is_timeout();
            // A reply that was not understood may be incomplete.
            let is_in_step = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
            match self.server.judge(&error) {
                Next::Load => {
                    load = true;
                    self.put_back(line);
                }
                Next::Reconnect => {
                    // The others are as old as this one.
                    lock(&self.idle).clear();
                    if timed_out {
                        break;
                    }
                }
                Next::Wait => {
                    self.put_back(line);
                    std::thread::sleep(pause_of(turn));
                }
                Next::Fail(outage) => {
                    if is_in_step {
                        self.put_back(line);
                    }
                    return Err(outage);
                }
            }
        }
        Err(self.server.give_up(&why))
    }

    fn put_back(&self, line: Line) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push((line, Instant::now()));
        }
    }

    /// Closes connections that have been idle for a while; returns whether more remain that may be closed later.
    pub fn close_idle(&self) -> bool {
        let mut idle = lock(&self.idle);
        let most = idle.len().saturating_sub(KEPT_IDLE);
        let old = idle[..most].iter().take_while(|(_, since)| since.elapsed() >= IDLE_TIME).count();
        let closed: Vec<_> = idle.drain(..old).collect();
        let are_left = idle.len() > KEPT_IDLE;
        drop(idle);
        drop(closed);
        are_left
    }

    pub fn ask(&self, request: &Request) -> Result<Answer, Outage> {
        let arguments = wire::arguments(request.cache, &request.op);
        let value = self.with_line(|line, load| {
            if !line.checked && !needs_no_check(&request.op) {
                let op = Op::Open { instance: self.server.instance() };
                let open = wire::arguments(request.cache, &op);
                self.server.round_trips.fetch_add(1, Ordering::Relaxed);
                let value = self.server.command(load, &open).query::<Value>(&mut line.connection)?;
                match wire::answer(&op, value.clone()).map(|answer| answer.reply) {
                    Some(Reply::Done) => line.checked = true,
                    _ => return Err(RedisErrorOrDone::Done(value)),
                }
            }
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            let packed = self.server.packed_command(load, &arguments);
            match line.connection.req_packed_command(&packed)? {
                Value::ServerError(error) => Err(RedisError::from(error).into()),
                value => Ok(value),
            }
        })?;
        parse(&request.op, value)
    }

    /// Runs plain commands in one round trip.
    pub fn pipe(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, Outage> {
        self.with_line(|line, _| {
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            Ok(pipeline.query::<Vec<Value>>(&mut line.connection)?)
        })
    }

    /// The first existing key of a predecessor. In a cluster, keys on other nodes are not found.
    pub fn first_predecessor(&self, namespace: &str) -> Option<String> {
        let keys = self.server.predecessors(namespace);
        keys.into_iter().find(|key| {
            let mut pipeline = redis::pipe();
            pipeline.cmd("EXISTS").arg(key);
            matches!(self.pipe(&pipeline).as_deref(), Ok([Value::Int(1)]))
        })
    }

    /// The server's settings that matter to an index.
    pub fn settings(&self) -> Result<std::collections::HashMap<String, String>, Outage> {
        let mut settings = std::collections::HashMap::new();
        for name in ["appendonly", "save"] {
            let mut pipeline = redis::pipe();
            pipeline.cmd("CONFIG").arg("GET").arg(name);
            let value = self.pipe(&pipeline)?.pop().and_then(pairs).ok_or_else(not_understood)?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            settings.extend(value.into_iter().map(|(name, value)| (text(name), text(value))));
        }
        Ok(settings)
    }

    /// The server's memory settings; `None` if it does not report them.
    pub fn memory(&self) -> Option<Memory> {
        memory_in(self.pipe(redis::pipe().cmd("INFO").arg("memory")).ok()?)
    }

    /// Deletes the keys of a predecessor; its locks expire.
    pub fn forget_predecessors(&self, namespace: &str) {
        for key in self.server.predecessors(namespace) {
            let mut pipeline = redis::pipe();
            pipeline.cmd("DEL").arg(key);
            let _ = self.pipe(&pipeline);
        }
    }

    pub fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        let scanned = self.pipe(&self.server.scan(cursor, count))?;
        let (next, entries) = scanned_page(scanned).ok_or_else(not_understood)?;
        if entries.is_empty() {
            return Ok((Vec::new(), next));
        }
        let used = self.pipe(&self.server.last_used(&entries))?;
        with_last_used(entries, used).map(|page| (page, next)).ok_or_else(not_understood)
    }

    pub fn leases(&self) -> Result<Leases, Outage> {
        leases_in(self.pipe(&self.server.all_leases())?).ok_or_else(not_understood)
    }

    /// Delivers keys changed by other processes, until `deliver` returns false or the connection ends.
    pub fn listen(&self, mut deliver: impl FnMut(Option<&[u8]>) -> bool) -> Result<(), Outage> {
        let mut line = self.connect()?;
        let heard = |error: RedisError| Outage::Unavailable(error.to_string());
        let mut events = line.connection.as_pubsub();
        events.subscribe(&self.server.keys[0]).map_err(heard)?;
        events.set_read_timeout(Some(Duration::from_millis(500))).map_err(heard)?;
        loop {
            let go_on = match events.get_message() {
                Ok(message) => deliver(Some(message.get_payload_bytes())),
                Err(error) if error.is_timeout() => deliver(None),
                Err(error) => return Err(heard(error)),
            };
            if !go_on {
                return Ok(());
            }
        }
    }
}

/// Either an error to be judged, or an early reply.
enum RedisErrorOrDone<R> {
    Error(RedisError),
    Done(R),
}

impl<R> From<RedisError> for RedisErrorOrDone<R> {
    fn from(error: RedisError) -> Self {
        Self::Error(error)
    }
}

fn not_understood() -> Outage {
    Outage::Unavailable("the index contains what this version does not understand".to_owned())
}

type Used = Vec<(Vec<u8>, Entry, Option<Micros>)>;

type Scanned = (Option<Vec<u8>>, Vec<(Vec<u8>, Entry)>);

impl Server {
    fn scan(&self, cursor: Option<Vec<u8>>, count: usize) -> redis::Pipeline {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSCAN").arg(&self.keys[1]).arg(cursor.unwrap_or(b"0".to_vec())).arg("COUNT").arg(count);
        pipeline
    }

    fn last_used(&self, entries: &[(Vec<u8>, Entry)]) -> redis::Pipeline {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZMSCORE").arg(&self.keys[2]).arg(entries.iter().map(|(key, _)| key).collect::<Vec<_>>());
        pipeline
    }

    fn all_leases(&self) -> redis::Pipeline {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for key in &self.keys[4..8] {
            pipeline.cmd("HGETALL").arg(key);
        }
        pipeline
    }
}

fn scanned_page(mut values: Vec<Value>) -> Option<Scanned> {
    let Value::Array(parts) = values.pop()? else { return None };
    let mut parts = parts.into_iter();
    let cursor = wire::bytes(parts.next()?)?;
    let entries = pairs(parts.next()?)?
        .into_iter()
        .map(|(key, packed)| Some((key, Entry::unpack(&packed)?)))
        .collect::<Option<Vec<_>>>()?;
    Some(((cursor != b"0").then_some(cursor), entries))
}

fn with_last_used(entries: Vec<(Vec<u8>, Entry)>, mut used: Vec<Value>) -> Option<Used> {
    let Value::Array(scores) = used.pop()? else { return None };
    Some(
        entries
            .into_iter()
            .zip(scores)
            .map(|((key, entry), score)| {
                let score = match score {
                    Value::Double(score) => Some(score as Micros),
                    Value::BulkString(text) => String::from_utf8(text)
                        .ok()
                        .and_then(|text| text.parse::<f64>().ok())
                        .map(|score| score as Micros),
                    _ => None,
                };
                (key, entry, score)
            })
            .collect(),
    )
}

/// A hash, as a flat list or a map.
fn pairs(value: Value) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    match value {
        Value::Map(map) => map.into_iter().map(|(key, value)| Some((wire::bytes(key)?, wire::bytes(value)?))).collect(),
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            let mut pairs = Vec::new();
            while let Some(key) = flat.next() {
                pairs.push((wire::bytes(key)?, wire::bytes(flat.next()?)?));
            }
            Some(pairs)
        }
        _ => None,
    }
}

fn leases_in(values: Vec<Value>) -> Option<Leases> {
    let [time, writers, places, pins, sessions] = <[Value; 5]>::try_from(values).ok()?;
    let Value::Array(time) = time else { return None };
    let now = wire::number(time.first()?)? * 1_000_000 + wire::number(time.get(1)?)?;
    let mut held = Vec::new();
    for (hash, size, kind) in
        [(writers, 40, HeldKind::Writer), (pins, 32, HeldKind::Reader), (places, 24, HeldKind::Waiting)]
    {
        for (key, records) in pairs(hash)? {
            for record in records.chunks_exact(size) {
                let number =
                    |at: usize| record.get(at..at + 8).map(|b| u64::from_be_bytes(b.try_into().expect("eight")));
                let (fence, since) = match kind {
                    HeldKind::Writer => (number(16)?, number(32)?),
                    HeldKind::Reader => (number(16)?, number(24)?),
                    HeldKind::Waiting => (0, 0),
                };
                let token = Token::from_bytes(record[..16].try_into().expect("sixteen"));
                held.push(Held { key: key.clone(), token, fence, since, kind });
            }
        }
    }
    let sessions = pairs(sessions)?
        .into_iter()
        .filter_map(|(id, life)| {
            let (until, owner) = life.split_at_checked(8)?;
            Some((
                u64::from_be_bytes(id.try_into().ok()?),
                u64::from_be_bytes(until.try_into().ok()?),
                String::from_utf8_lossy(owner).into_owned(),
            ))
        })
        .collect();
    Some(Leases { held, sessions, now })
}

/// One connection for many tasks.
pub(crate) struct Asynchronous {
    pub server: Server,
    line: tokio::sync::Mutex<Option<redis::aio::MultiplexedConnection>>,
    /// The number of the connection, and that of the last one that was checked.
    number: AtomicU64,
    checked: AtomicU64,
}

impl Asynchronous {
    pub fn new(server: Server) -> Self {
        Self { server, line: tokio::sync::Mutex::default(), number: AtomicU64::new(0), checked: AtomicU64::new(0) }
    }

    async fn line(&self) -> Result<(redis::aio::MultiplexedConnection, u64), Outage> {
        let called = Instant::now();
        let mut line = self.line.lock().await;
        if let Some(connection) = &*line {
            return Ok((connection.clone(), self.number.load(Ordering::Relaxed)));
        }
        match self.server.may_connect(called) {
            Ready::Connect => {}
            Ready::Pause(pause) => tokio::time::sleep(pause).await,
            Ready::Fail(outage) => return Err(outage),
        }
        let began = Instant::now();
        let client = self.server.client()?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.server.connect_timeout))
            .set_response_timeout(Some(self.server.command_timeout));
        let connect = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            let info: Result<String, _> = redis::cmd("INFO").arg("server").query_async(&mut connection).await;
            match info {
                Err(error) if error.is_io_error() || matches!(error.code(), Some("LOADING" | "NOAUTH")) => Err(error),
                info => Ok((connection, instance_in(&info.unwrap_or_default()))),
            }
        };
        let (connection, instance) = connect.await.map_err(|error| self.server.not_connected(&error, began))?;
        self.server.connected(instance);
        *line = Some(connection.clone());
        Ok((connection, self.number.fetch_add(1, Ordering::Relaxed) + 1))
    }

    async fn broken(&self, number: u64) {
        let mut line = self.line.lock().await;
        if self.number.load(Ordering::Relaxed) == number {
            *line = None;
        }
    }

    async fn turns(&self, cache: u64, op: Option<&Op>, pipeline: &redis::Pipeline) -> Result<Value, Outage> {
        let began = Instant::now();
        let (mut load, mut why) = (false, String::new());
        for turn in 0..MAX_TURNS {
            if turn > 0 && began.elapsed() > self.server.command_timeout {
                break;
            }
            let (mut connection, number) = self.line().await?;
            let result = self.turn(&mut connection, number, cache, op, pipeline, load).await;
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            why = error.to_string();
            let timed_out = error.is_timeout();
            match self.server.judge(&error) {
                Next::Load => load = true,
                Next::Reconnect => {
                    self.broken(number).await;
                    if timed_out {
                        break;
                    }
                }
                Next::Wait => tokio::time::sleep(pause_of(turn)).await,
                Next::Fail(outage) => return Err(outage),
            }
        }
        Err(self.server.give_up(&why))
    }

    async fn turn(
        &self,
        connection: &mut redis::aio::MultiplexedConnection,
        number: u64,
        cache: u64,
        op: Option<&Op>,
        pipeline: &redis::Pipeline,
        load: bool,
    ) -> Result<Value, RedisError> {
        let Some(op) = op else {
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            return pipeline.query_async::<Vec<Value>>(connection).await.map(Value::Array);
        };
        if self.checked.load(Ordering::Relaxed) != number && !needs_no_check(op) {
            let open_op = Op::Open { instance: self.server.instance() };
            let open = wire::arguments(cache, &open_op);
            self.server.round_trips.fetch_add(1, Ordering::Relaxed);
            let value = self.server.command(load, &open).query_async::<Value>(connection).await?;
            match wire::answer(&open_op, value.clone()).map(|answer| answer.reply) {
                Some(Reply::Done) => self.checked.store(number, Ordering::Relaxed),
                _ => return Ok(value),
            }
        }
        self.server.round_trips.fetch_add(1, Ordering::Relaxed);
        self.server.command(load, &wire::arguments(cache, op)).query_async::<Value>(connection).await
    }

    /// Connects, and reads the run id of the server.
    pub async fn ping(&self) -> Result<(), Outage> {
        self.pipe(redis::pipe().cmd("PING")).await.map(drop)
    }

    pub async fn ask(&self, request: &Request) -> Result<Answer, Outage> {
        parse(&request.op, self.turns(request.cache, Some(&request.op), &redis::Pipeline::new()).await?)
    }

    async fn pipe(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, Outage> {
        match self.turns(0, None, pipeline).await? {
            Value::Array(values) => Ok(values),
            _ => Err(not_understood()),
        }
    }

    pub async fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        let scanned = self.pipe(&self.server.scan(cursor, count)).await?;
        let (next, entries) = scanned_page(scanned).ok_or_else(not_understood)?;
        if entries.is_empty() {
            return Ok((Vec::new(), next));
        }
        let used = self.pipe(&self.server.last_used(&entries)).await?;
        with_last_used(entries, used).map(|page| (page, next)).ok_or_else(not_understood)
    }

    pub async fn memory(&self) -> Option<Memory> {
        memory_in(self.pipe(redis::pipe().cmd("INFO").arg("memory")).await.ok()?)
    }

    pub async fn leases(&self) -> Result<Leases, Outage> {
        leases_in(self.pipe(&self.server.all_leases()).await?).ok_or_else(not_understood)
    }
}
