//! Functions for the worker's Python code and for user code: commands, atomic blocks, the log, plans.
//!
//! They are native so that they add no frame to a user's traceback. The Python package gives them their documented names
//! (module `redisgears` in a worker); the names here are private.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple};
use redgrease_core::codec::{Reader, Writer};
use redgrease_core::frame::{Call, FromWorker, LogLevel};
use redgrease_core::id::{ExecutionNo, PlanNo, SessionNo};
use redgrease_core::plan::PlanSpec;

use crate::codec::{Decoder, Foreign, bytes_of_text, encode};
use crate::connection::Connection;
use crate::context::{Context, in_atomic, is_cluster, set_in_atomic};
use crate::errors::{self, force_stopped, gears_error};
use crate::exit::kill_self;
use crate::hooks::{Hooks, Identity};
use crate::lock::lock;
use crate::plan::Plan;
use crate::worker::{CallError, Worker};

/// Sessions of this worker. If there is only one, threads that user code starts belong to it.
static SESSIONS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn worker(py: Python<'_>) -> PyResult<&'static Worker> {
    Worker::get().ok_or_else(|| gears_error(py, "this is only possible inside the server: run it in a gear function"))
}

fn context(py: Python<'_>) -> PyResult<Context> {
    let context = Context::current();
    if context.session != 0 {
        return Ok(context);
    }
    let sessions = lock(&SESSIONS);
    match (sessions.first(), sessions.len()) {
        (Some(only), 1) => Ok(Context { session: *only, ..Context::NONE }),
        _ => {
            drop(sessions);
            Err(gears_error(
                py,
                "this thread belongs to no session: call setGearsSession(session) in it first, with getGearsSession() of the function that starts it",
            ))
        }
    }
}

/// Sends a call to the server; the answer is an encoded value.
fn ask(py: Python<'_>, op: Call<'_>) -> PyResult<Vec<u8>> {
    let worker = worker(py)?;
    if crate::child::is_marked() {
        return Err(gears_error(py, crate::child::NO_CONNECTION));
    }
    let call = worker.begin_call(context(py)?, op);
    match py.detach(|| worker.finish_call(call)) {
        Ok(value) => Ok(value),
        Err(CallError::Text(text)) => Err(gears_error(py, text)),
        Err(CallError::Aborted) => Err(force_stopped(py)),
    }
}

fn ask_for_value<'py>(py: Python<'py>, op: Call<'_>) -> PyResult<Bound<'py, PyAny>> {
    let value = ask(py, op)?;
    Decoder { allow_pickle: false }.value(py, &mut Reader::new(&value))
}

/// Bytes of one argument of a command.
fn argument<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if let Ok(text) = value.cast::<PyString>() {
        return bytes_of_text(text);
    }
    if let Ok(array) = value.cast::<PyByteArray>() {
        return Ok(PyBytes::new(value.py(), &array.to_vec()));
    }
    if let Ok(view) = value.cast::<PyMemoryView>() {
        return Ok(view.call_method0(intern!(value.py(), "tobytes"))?.cast_into::<PyBytes>()?);
    }
    bytes_of_text(&value.str()?)
}

/// Runs a command on the server.
#[pyfunction]
#[pyo3(signature = (*args), text_signature = "(command, *args)")]
fn execute<'py>(py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    if args.is_empty() {
        // As in RedisGears.
        return Ok(PyList::empty(py).into_any());
    }
    if !args.get_item(0)?.is_instance_of::<PyString>() {
        return Err(gears_error(py, "the given command must be a string"));
    }
    let args = args.iter().map(|arg| argument(&arg)).collect::<PyResult<Vec<_>>>()?;
    ask_for_value(py, Call::Execute { argv: args.iter().map(|arg| arg.as_bytes()).collect() })
}

/// Runs the next hook of the command that the running function replaces, or the command itself.
#[pyfunction]
#[pyo3(signature = (*args), text_signature = "(*args)")]
fn call_next<'py>(py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let args = args.iter().map(|arg| argument(&arg)).collect::<PyResult<Vec<_>>>()?;
    ask_for_value(py, Call::CallNext { args: args.iter().map(|arg| arg.as_bytes()).collect() })
}

/// The command whose client waits for the running function: a list of its name and its arguments.
#[pyfunction]
fn get_command(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    ask_for_value(py, Call::GetCommand)
}

/// Gives the client that waits for the running function another reply.
#[pyfunction]
fn override_reply(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut writer = Writer::new();
    encode(&mut writer, value, Foreign::Opaque)?;
    ask(py, Call::OverrideReply { value: writer.as_bytes() })?;
    Ok(())
}

/// Blocks all other clients while it is entered.
#[pyclass(frozen, module = "redisgears", name = "PyAtomic")]
struct Atomic;

#[pymethods]
impl Atomic {
    #[new]
    fn new() -> Atomic {
        Atomic
    }

    fn __enter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let py = slf.py();
        if in_atomic() {
            return Err(gears_error(py, "Already inside an atomic block"));
        }
        ask(py, Call::AtomicEnter)?;
        set_in_atomic(true);
        Ok(slf)
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(slf: Bound<'_, Self>, _args: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let py = slf.py();
        if !in_atomic() {
            return Err(gears_error(py, "Not inside an atomic block"));
        }
        set_in_atomic(false);
        ask(py, Call::AtomicExit)?;
        Ok(false)
    }
}

/// Whether the calling thread is inside an atomic block.
#[pyfunction]
fn is_in_atomic_block() -> bool {
    in_atomic()
}

fn level_of(name: &str) -> Option<LogLevel> {
    [LogLevel::Debug, LogLevel::Verbose, LogLevel::Notice, LogLevel::Warning]
        .into_iter()
        .find(|level| level.name() == name)
}

/// Writes a line to the server's log.
#[pyfunction]
#[pyo3(signature = (*args, **options), text_signature = "(message, level='notice')")]
fn log(py: Python<'_>, args: &Bound<'_, PyTuple>, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let option = |name: &str| options.and_then(|options| options.get_item(name).ok().flatten());
    let mut message = args.get_item(0).ok().or_else(|| option("message"));
    let mut level = args.get_item(1).ok().or_else(|| option("level"));
    // The old form was log(level, message).
    if let (Some(first), Some(second)) = (&message, &level)
        && first.extract::<String>().is_ok_and(|text| level_of(&text).is_some())
        && second.extract::<String>().is_ok_and(|text| level_of(&text).is_none())
        && args.len() == 2
    {
        std::mem::swap(&mut message, &mut level);
    }
    let message = message.ok_or_else(|| gears_error(py, "log function must get a log message as input"))?;
    let message = message.cast_into::<PyString>().map_err(|_| gears_error(py, "Log message must be a string"))?;
    let level = match level {
        None => LogLevel::Notice,
        Some(level) => {
            let name = level
                .extract::<String>()
                .map_err(|_| gears_error(py, "Log level must be a sting (debug/verbose/notice/warning)"))?;
            level_of(&name.to_lowercase()).ok_or_else(|| {
                gears_error(py, "Log level should be one of the following : debug,verbose,notice,warning")
            })?
        }
    };
    let worker = worker(py)?;
    let Context { session, .. } = context(py).unwrap_or(Context::NONE);
    worker.connection.append(&FromWorker::Log {
        session: Some(SessionNo(session)).filter(|session| session.0 > 0),
        level,
        message: bytes_of_text(&message)?.as_bytes(),
    });
    if Context::current().session == 0 {
        // No other call makes a thread of user code flush.
        py.detach(|| worker.connection.flush());
    }
    Ok(())
}

/// Value of a configuration key of the server, or `None`.
#[pyfunction]
#[pyo3(signature = (*args), text_signature = "(key)")]
fn config_get<'py>(py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    if args.len() != 1 {
        return Err(gears_error(py, "get_config function must get a single key input"));
    }
    let key =
        args.get_item(0)?.cast_into::<PyString>().map_err(|_| gears_error(py, "get_config key must be a string"))?;
    ask_for_value(py, Call::ConfigGet { key: bytes_of_text(&key)?.as_bytes() })
}

/// A short text that hashes to a slot of this shard.
#[pyfunction]
fn hashtag(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    ask_for_value(py, Call::HashTag)
}

/// Raises an error whose text reaches the client as it is.
#[pyfunction]
fn flat_error(py: Python<'_>, message: Py<PyAny>) -> PyResult<()> {
    Err(errors::flat_error(py, message))
}

/// Number of the session that the calling thread belongs to.
#[pyfunction]
fn current_session(py: Python<'_>) -> PyResult<u64> {
    Ok(context(py)?.session)
}

/// Number of the execution that the calling thread runs, if it runs one.
#[pyfunction]
fn current_execution() -> Option<u64> {
    Context::current().exec.map(|exec| exec.0)
}

/// Binds the calling thread to a session; 0 unbinds it.
#[pyfunction]
fn set_session(session: u64) {
    Context { session, ..Context::current() }.enter();
}

/// Makes the calling thread run the coroutine of a session, and an execution if there is one; returns what
/// `leave_context` takes.
#[pyfunction]
fn enter_context(exec: Option<u64>, session: u64) -> (Option<u64>, u64, bool) {
    let before = Context::current();
    Context { exec: exec.map(ExecutionNo), session, is_coroutine: exec.is_some() }.enter();
    (before.exec.map(|exec| exec.0), before.session, before.is_coroutine)
}

/// Restores the context before `enter_context`.
#[pyfunction]
fn leave_context(before: (Option<u64>, u64, bool)) {
    let (exec, session, is_coroutine) = before;
    Context { exec: exec.map(ExecutionNo), session, is_coroutine }.enter();
}

/// A number for a call that a coroutine awaits.
#[pyfunction]
fn number_call(py: Python<'_>) -> PyResult<u64> {
    Ok(worker(py)?.number_awaited())
}

/// Asks for results and errors of an execution, under a number of `number_call`.
#[pyfunction]
fn ask_results(py: Python<'_>, call: u64, execution: &str) -> PyResult<()> {
    let (worker, context) = (worker(py)?, context(py)?);
    py.detach(|| worker.send_awaited(call, context, Call::Results { execution }));
    Ok(())
}

/// Adds a session to this worker.
#[pyfunction]
fn add_session(session: u64) {
    lock(&SESSIONS).insert(session);
}

/// Removes a session from this worker, with its plans.
#[pyfunction]
fn remove_session(py: Python<'_>, session: u64) -> PyResult<()> {
    lock(&SESSIONS).remove(&session);
    worker(py)?.plans.remove_of(session);
    Ok(())
}

/// Adds a plan under a number.
#[pyfunction]
fn add_plan(
    py: Python<'_>,
    number: u64,
    session: u64,
    source: Option<Py<PyAny>>,
    spec: &[u8],
    callbacks: Vec<Bound<'_, PyTuple>>,
) -> PyResult<()> {
    let spec = PlanSpec::decode(spec).map_err(|error| gears_error(py, error.to_string()))?;
    let plan = Plan::new(py, session, source, &spec, &callbacks)?;
    if worker(py)?.plans.add(number, plan) {
        Ok(())
    } else {
        Err(PyValueError::new_err(format!("plan number {number} is in use already")))
    }
}

/// The number of a plan in the data of its session, or back from there.
#[pyfunction]
fn plan_in_data(number: u64, session: u64) -> u64 {
    PlanNo(number).in_data_of(SessionNo(session)).0
}

/// Removes plans.
#[pyfunction]
fn remove_plans(py: Python<'_>, numbers: Vec<u64>) -> PyResult<()> {
    worker(py)?.plans.remove(&numbers);
    Ok(())
}

/// Calls a plan again and again; whether its key was free.
#[pyfunction]
fn register_time_event<'py>(
    py: Python<'py>,
    number: u64,
    spec: &[u8],
    blob: &[u8],
    period_s: u64,
    key: Option<&[u8]>,
) -> PyResult<Bound<'py, PyAny>> {
    ask_for_value(py, Call::TimeEvent { plan: PlanNo(number), spec, blob, period_s, key })
}

/// Starts an execution of a plan; its id. `blob`: its pickle for other shards, or nothing.
#[pyfunction]
fn run_plan<'py>(py: Python<'py>, number: u64, spec: &[u8], blob: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    ask_for_value(py, Call::Run { plan: PlanNo(number), spec, blob })
}

/// Whether the server is one of several shards.
#[pyfunction(name = "is_cluster")]
fn is_one_of_several() -> bool {
    is_cluster()
}

/// Registers a plan; the registration's id.
#[pyfunction]
fn register_plan<'py>(py: Python<'py>, number: u64, spec: &[u8], blob: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    ask_for_value(py, Call::Register { plan: PlanNo(number), spec, blob })
}

/// Serves the server at the other end of the socket `fd` until the server ends the worker.
#[pyfunction]
fn serve(
    py: Python<'_>,
    fd: i32,
    sessions: Py<PyAny>,
    describe: Py<PyAny>,
    python: String,
    package: String,
    isolation: String,
) -> PyResult<()> {
    // A panic is a bug. The server notices the exit of the process and starts another worker.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        kill_self();
    }));
    let connection = Connection::accept(own(py, fd)?);
    let worker = Worker::install(connection, Hooks { sessions, describe }, Identity { python, package, isolation })
        .ok_or_else(|| PyRuntimeError::new_err("this process serves already"))?;
    worker.serve(py)
}

/// Converts the number of an open socket to an owned descriptor, by sending it through a socket pair: a received
/// descriptor is owned by construction. The original is closed.
fn own(py: Python<'_>, fd: i32) -> PyResult<OwnedFd> {
    use std::os::fd::{AsRawFd, IntoRawFd};

    let (ours, theirs) = UnixStream::pair()?;
    let sockets = py.import("_socket")?;
    let socket = sockets.getattr("socket")?;
    let options = PyDict::new(py);
    options.set_item("fileno", theirs.as_raw_fd())?;
    let sender = socket.call((), Some(&options))?;
    // The Python object closes it.
    let _ = theirs.into_raw_fd();
    let rights = (sockets.getattr("SOL_SOCKET")?, sockets.getattr("SCM_RIGHTS")?, PyBytes::new(py, &fd.to_ne_bytes()));
    sender.call_method1("sendmsg", (PyList::new(py, [PyBytes::new(py, b"x")])?, PyList::new(py, [rights])?))?;
    sender.call_method0("close")?;

    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(
        &ours,
        &mut [std::io::IoSliceMut::new(&mut byte)],
        &mut control,
        rustix::net::RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(std::io::Error::from)?;
    let received = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let owned = received.ok_or_else(|| PyOSError::new_err("the socket did not arrive"))?;
    let flags = rustix::fs::fcntl_getfl(&owned).map_err(std::io::Error::from)?;
    rustix::fs::fcntl_setfl(&owned, flags - rustix::fs::OFlags::NONBLOCK).map_err(std::io::Error::from)?;
    py.import("os")?.call_method1("close", (fd,))?;
    Ok(owned)
}

/// Ends this process when the server ends, and disables core dumps.
#[pyfunction]
fn bind_to_parent() -> PyResult<()> {
    use rustix::process::{Resource, Rlimit, getppid, setrlimit};

    let parent = getppid();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(std::io::Error::from)?;
    if getppid() != parent {
        kill_self();
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(std::io::Error::from)?;
    Ok(())
}

/// Gives the files of this process in `/proc` to its user, after a change of the user.
#[pyfunction]
fn make_visible() -> PyResult<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(std::io::Error::from)?;
    }
    Ok(())
}

/// Makes this process a subreaper, which receives `SIGTERM` when the server ends. See `redgrease.worker.supervise`.
#[pyfunction]
fn become_supervisor() -> PyResult<()> {
    use rustix::process::{Resource, Rlimit, getppid, setrlimit};

    let parent = getppid();
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getpid, set_child_subreaper, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(std::io::Error::from)?;
        set_child_subreaper(Some(getpid())).map_err(std::io::Error::from)?;
    }
    if getppid() != parent {
        kill_self();
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(std::io::Error::from)?;
    Ok(())
}

/// Marks this process as the forked child of a worker, without a connection to the server; returns the descriptor of the
/// connection, if there is one.
#[pyfunction]
fn mark_forked() -> Option<i32> {
    crate::child::mark();
    Worker::get().map(|worker| worker.connection_fd())
}

/// Whether this process is the forked child of a worker.
#[pyfunction]
fn is_forked() -> bool {
    crate::child::is_child()
}

/// Adds everything of this file to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Atomic>()?;
    module.add_function(wrap_pyfunction!(execute, module)?)?;
    module.add_function(wrap_pyfunction!(call_next, module)?)?;
    module.add_function(wrap_pyfunction!(get_command, module)?)?;
    module.add_function(wrap_pyfunction!(override_reply, module)?)?;
    module.add_function(wrap_pyfunction!(is_in_atomic_block, module)?)?;
    module.add_function(wrap_pyfunction!(log, module)?)?;
    module.add_function(wrap_pyfunction!(config_get, module)?)?;
    module.add_function(wrap_pyfunction!(hashtag, module)?)?;
    module.add_function(wrap_pyfunction!(flat_error, module)?)?;
    module.add_function(wrap_pyfunction!(current_session, module)?)?;
    module.add_function(wrap_pyfunction!(current_execution, module)?)?;
    module.add_function(wrap_pyfunction!(set_session, module)?)?;
    module.add_function(wrap_pyfunction!(enter_context, module)?)?;
    module.add_function(wrap_pyfunction!(leave_context, module)?)?;
    module.add_function(wrap_pyfunction!(number_call, module)?)?;
    module.add_function(wrap_pyfunction!(ask_results, module)?)?;
    module.add_function(wrap_pyfunction!(add_session, module)?)?;
    module.add_function(wrap_pyfunction!(remove_session, module)?)?;
    module.add_function(wrap_pyfunction!(add_plan, module)?)?;
    module.add_function(wrap_pyfunction!(plan_in_data, module)?)?;
    module.add_function(wrap_pyfunction!(remove_plans, module)?)?;
    module.add_function(wrap_pyfunction!(register_time_event, module)?)?;
    module.add_function(wrap_pyfunction!(run_plan, module)?)?;
    module.add_function(wrap_pyfunction!(is_one_of_several, module)?)?;
    module.add_function(wrap_pyfunction!(register_plan, module)?)?;
    module.add_function(wrap_pyfunction!(serve, module)?)?;
    module.add_function(wrap_pyfunction!(bind_to_parent, module)?)?;
    module.add_function(wrap_pyfunction!(become_supervisor, module)?)?;
    module.add_function(wrap_pyfunction!(make_visible, module)?)?;
    module.add_function(wrap_pyfunction!(mark_forked, module)?)?;
    module.add_function(wrap_pyfunction!(is_forked, module)?)?;
    Ok(())
}
