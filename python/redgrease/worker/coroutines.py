"""Coroutines of user code: one thread of the process runs all of them on one event loop.

A coroutine runs for the session (and the execution) whose code created it, and so do the tasks that it creates. The
loop starts when it is needed first.
"""

import asyncio
import collections.abc
import threading

from redgrease import _native

_loop = None
_starting = threading.Lock()

#: Tasks of each session, by its number.
_tasks: "dict[int, set[asyncio.Task[object]]]" = {}

#: Futures of calls to the server, by the number of the call.
_awaited: "dict[int, asyncio.Future[object]]" = {}

_NOT_IN_ATOMIC = "await is not allow inside atomic block"


def loop():
    """Return the event loop; its thread is started by the first call."""
    global _loop
    with _starting:
        if _loop is None:
            made = asyncio.new_event_loop()
            made.set_task_factory(_task_factory)
            threading.Thread(target=_run, args=(made,), name="redgrease-loop", daemon=True).start()
            _loop = made
        return _loop


def is_loop(candidate):
    """Whether an object is the event loop."""
    return _loop is not None and candidate is _loop


def _run(made):
    asyncio.set_event_loop(made)
    made.run_forever()


class Bound(collections.abc.Coroutine):  # type: ignore[type-arg]
    """A coroutine whose steps run for an execution (or None) and a session."""

    def __init__(self, coroutine, execution, session):
        self._coroutine = coroutine
        self.execution = execution
        self.session = session

    def send(self, value):
        """Run one step."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error):
        """Run one step with an exception."""
        return self._step(self._coroutine.throw, *error)

    def close(self):
        """End the coroutine."""
        return self._step(self._coroutine.close)

    def __await__(self):
        """Make the coroutine awaitable by other coroutines."""
        return self

    def __iter__(self):
        """Return itself: awaiting iterates."""
        return self

    def __next__(self):
        """Run one step."""
        return self.send(None)

    def _step(self, step, *args):
        before = _native.enter_context(self.execution, self.session)
        try:
            value = step(*args)
            while _native.is_in_atomic_block():
                value = self._coroutine.throw(_native.GearsError(_NOT_IN_ATOMIC))
            return value
        finally:
            _native.leave_context(before)


def _task_factory(made, coroutine, **options):
    if not isinstance(coroutine, Bound):
        coroutine = Bound(coroutine, *_context())
    task = asyncio.Task(coroutine, loop=made, **options)
    tasks = _tasks.setdefault(coroutine.session, set())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _context():
    try:
        return _native.current_execution(), _native.current_session()
    except _native.GearsError:
        return None, 0


def spawn(awaitable: object, future: object, execution: "int | None", session: int) -> None:
    """Run what a step returned; give its result to the ``PyFuture`` of the step."""
    coroutine = awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)
    loop().call_soon_threadsafe(_spawn, Bound(coroutine, execution, session), future)


async def _await(awaitable):
    return await awaitable


def _spawn(bound, future):
    task = loop().create_task(bound)
    task.add_done_callback(lambda task: _finish(task, future))
    if not future._set_task(task):
        # The execution was aborted in the meantime.
        task.cancel()


def _finish(task, future):
    if task.cancelled():
        future.continueFailed("the coroutine was cancelled")
        return
    error = task.exception()
    if error is None:
        future.continueRun(task.result())
    else:
        future.continueFailed(_text(error))


def _text(error):
    text = str(error)
    return text if text else type(error).__name__


def cancel(task: "asyncio.Task[object]") -> None:
    """Cancel a task, from any thread."""
    loop().call_soon_threadsafe(task.cancel)


def cancel_session(session):
    """Cancel the tasks of a session that has ended."""
    if _loop is not None:
        _loop.call_soon_threadsafe(_cancel_all, session)


def _cancel_all(session):
    for task in _tasks.pop(session, ()):
        task.cancel()


async def results(execution):
    """Return results and errors of an execution: two lists."""
    call = _native.number_call()
    future = _awaited[call] = loop().create_future()
    try:
        _native.ask_results(call, execution)
        found, errors = await future
    finally:
        _awaited.pop(call, None)
    return [found, [error if isinstance(error, str) else repr(error) for error in errors]]


def answered(call, value, error):
    """Hand the answer to a call over to the coroutine that awaits it; called on any thread."""
    future = _awaited.get(call)
    if future is None:
        return
    if error is not None:
        loop().call_soon_threadsafe(_set, future, None, _native.GearsError(error))
        return
    decoded = _native.loads(value, allow_pickle=True)
    loop().call_soon_threadsafe(_set, future, decoded, None)


def _set(future, value, error):
    # It may have been cancelled.
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


class Execution(str):
    """The identifier of an execution; awaiting it returns its results and errors: two lists."""

    __slots__ = ()

    def __await__(self):
        """Wait for the end of the execution."""
        return results(str(self)).__await__()


class GearsFuture(asyncio.Future):  # type: ignore[type-arg]
    """A future of the event loop, completed from any thread by ``setFutureResults`` and ``setFutureException``."""


def createFuture():
    """Return a new future of the event loop."""
    return GearsFuture(loop=loop())


def setFutureResults(future, value):
    """Set the result of a future, from any thread."""
    loop().call_soon_threadsafe(_set, future, value, None)


def setFutureException(future, error):
    """Set the exception of a future, from any thread; anything else than an exception is wrapped in one."""
    if not isinstance(error, BaseException):
        error = Exception(error)
    loop().call_soon_threadsafe(_set, future, None, error)


def runCoroutine(coroutine, future=None, delay=0, session=None):
    """Run a coroutine on the event loop, from any thread.

    Args:
        coroutine: The coroutine.
        future: A future of ``createFuture()`` that gets its result.
        delay: Seconds before it begins.
        session: The session that it runs for, of ``getGearsSession()``; else that of the calling code.
    """
    execution, number = _context()
    if session is not None:
        number = session.number
    bound = Bound(coroutine, execution if session is None else None, number)

    def start():
        task = loop().create_task(bound)
        task.add_done_callback(lambda task: _report(task, future))

    def later():
        if delay:
            loop().call_later(delay, start)
        else:
            start()

    loop().call_soon_threadsafe(later)


def _report(task, future):
    if task.cancelled():
        if future is not None:
            _set(future, None, Exception("the coroutine was cancelled"))
        return
    error = task.exception()
    if future is not None:
        _set(future, None if error else task.result(), error)
    elif error is not None:
        before = _native.enter_context(None, task.get_coro().session)
        try:
            _native.log(f"a coroutine failed: {_text(error)}", "warning")
        finally:
            _native.leave_context(before)
