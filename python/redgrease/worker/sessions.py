"""Sessions: run a script, rebuild its session, delete it.

A session is everything that one script created: a namespace that its functions share, and its registered plans. The
methods of ``Sessions`` are called from native code, on any thread, with the session already bound to that thread.
"""

import contextlib
import pickle
import sys
from _thread import allocate_lock, get_ident

from redgrease import _native
from redgrease.worker import builder, pickling, runtime
from redgrease.worker.errors import describe

#: Sessions of this worker, by their number.
_sessions: "dict[int, Session]" = {}

#: Held while a thread is being profiled.
_profiling = allocate_lock()


class Session:
    """One session, opaque to scripts."""

    __slots__ = (
        "client_has_codec",
        "name",
        "namespace",
        "number",
        "profiler",
        "registered",
        "script_plans",
        "script_thread",
    )

    def __init__(self, number, name, namespace):
        self.number = number
        self.name = name
        self.namespace = namespace
        #: Whether the client of the script gets values of the codec.
        self.client_has_codec = True
        #: The ``onRegistered`` functions by number of the plan (or None).
        self.registered = {}
        #: Made when it is used first.
        self.profiler = None
        #: While a script runs: its thread, and the plans registered so far.
        self.script_thread = None
        self.script_plans = []

    def __repr__(self):
        return f"<GearsSession {self.name}>"

    def load(self, number, spec, callbacks):
        """Add the plan of a client; the pickle is of a ``redgrease.plan.builder.Plan``."""
        plan = pickle.loads(callbacks)
        _native.add_plan(number, self.number, plan.source, spec, plan.callbacks)
        self.registered[number] = plan.on_registered

    def number_in_data(self, plan):
        """Return the number that a plan of this session has in its pickle, or the other way round."""
        return _native.plan_in_data(plan, self.number)

    def runs_script_here(self):
        """Whether the calling thread is running this session's script."""
        return self.script_thread == get_ident()


def current():
    """Return the session that the calling thread belongs to, or None."""
    try:
        return _sessions.get(_native.current_session())
    except _native.GearsError:
        return None


builder.current_session = current


class Sessions:
    """The methods that native code calls."""

    #: The profiler that is running: its session may end, or drop it, meanwhile.
    _running = None

    def script(self, number, name, source, paths, traceback, tagged):
        """Run ``source``; return the text of its error (or None) and the pickle of its registered plans."""
        session = None
        try:
            _use(paths)
            session = self._open(number, name, source)
            session.script_thread = get_ident()
            session.client_has_codec = tagged
            code = compile(source, "<string>", "exec", dont_inherit=True)
            exec(code, session.namespace)
            return None, _pickle(session)
        except BaseException as error:
            if _native.is_forked():
                raise
            return describe(error, traceback), b""
        finally:
            if session is not None:
                session.script_thread = None
                session.script_plans = []
            _flush_output()

    def load(self, number, name, function, paths, traceback):
        """Load the function of a client: number of its plan, encoded plan, pickle; return as ``script``."""
        try:
            _use(paths)
            self._open(number, name, b"").load(*function)
            return None, b""
        except BaseException as error:
            if _native.is_forked():
                raise
            return describe(error, traceback), b""
        finally:
            _flush_output()

    def restore(self, number, name, function, blobs, paths):
        """Rebuild a session from pickles."""
        try:
            _use(paths)
            session = self._open(number, name, b"")
            if function is not None:
                session.load(*function)
            for blob in blobs:
                try:
                    plans = pickling.loads(blob, session.namespace)
                except Exception as error:
                    return f"Error occured when deserialized a python callback, error={_text(error)}", b""
                for in_data, spec, callbacks, on_registered, *source in plans:
                    plan = session.number_in_data(in_data)
                    _native.add_plan(plan, number, source[0] if source else None, spec, callbacks)
                    session.registered[plan] = on_registered
            return None, b""
        except BaseException as error:
            return describe(error, True), b""

    def registered(self, plan):
        """Call the ``onRegistered`` of a plan; an exception is only logged."""
        session = current()
        callback = session.registered.get(plan) if session is not None else None
        if callback is None:
            return
        try:
            made = callback()
            if hasattr(made, "close") and hasattr(made, "send"):
                made.close()
                _native.log("onRegistered returned a coroutine: async functions are not supported there", "warning")
        except BaseException as error:
            if _native.is_forked():
                raise
            _native.log("onRegistered failed: " + describe(error, True), "warning")

    def forget_plans(self, plans):
        """Delete the data of plans (their steps are native)."""
        for session in list(_sessions.values()):
            for plan in plans:
                session.registered.pop(plan, None)

    def forget_session(self, number):
        """Delete a session: its plans and the names of its script."""
        _native.remove_session(number)
        session = _sessions.pop(number, None)
        if session is not None:
            _cancel_coroutines(number)
            # Functions and namespace refer to each other: break the cycle here.
            session.namespace.clear()
            session.registered.clear()
        _flush_output()

    def spawn(self, awaitable, future, execution, number):
        """Run what a step returned on the event loop."""
        from redgrease.worker import coroutines

        coroutines.spawn(awaitable, future, execution, number)

    def cancel(self, task):
        """Cancel a task of ``spawn``."""
        from redgrease.worker import coroutines

        coroutines.cancel(task)

    def answered(self, call, value, error):
        """Hand the answer to a call over to the coroutine that awaits it."""
        from redgrease.worker import coroutines

        coroutines.answered(call, value, error)

    def profile_begin(self, number):
        """Profile the calling thread for a session; False if another thread is being profiled."""
        session = _sessions.get(number)
        # A profiler counts one thread at a time, and since Python 3.12 there is one for the process.
        if session is None or not _profiling.acquire(blocking=False):
            return False
        if session.profiler is None:
            import cProfile

            session.profiler = cProfile.Profile()
        self._running = session.profiler
        try:
            self._running.enable()
        except ValueError:  # user code has a profiler of its own
            self._running = None
            _profiling.release()
            return False
        return True

    def profile_end(self, _number):
        """End what ``profile_begin`` began."""
        profiler, self._running = self._running, None
        if profiler is not None:
            profiler.disable()
            _profiling.release()

    def profile(self, number, order):
        """Return the statistics of a session as text, in that order; without an order, delete them."""
        session = _sessions.get(number)
        if order is None:
            if session is not None:
                session.profiler = None
            return ""
        if session is None or session.profiler is None:
            raise TypeError("nothing was profiled: set ProfileExecutions to 1 and run the session's functions")
        return runtime.profileGetInfo(session.profiler, order)

    def exit(self):
        """Exit the process; called on a thread of its own while others may run."""
        import os

        _flush_output()
        os._exit(0)

    @staticmethod
    def _open(number, name, source):
        before = _sessions.get(number)
        session = _sessions[number] = Session(number, name, runtime.namespace(source))
        if before is not None:
            session.registered.update(before.registered)
        _native.add_session(number)
        return session


def _cancel_coroutines(number):
    # Only a process that has run coroutines has imported it.
    coroutines = sys.modules.get("redgrease.worker.coroutines")
    if coroutines is not None:
        coroutines.cancel_session(number)


def _flush_output():
    """Flush incomplete lines: the next output may belong to another session."""
    for stream in (sys.stdout, sys.stderr):
        # Users may have replaced them.
        with contextlib.suppress(Exception):
            stream.flush()


def _pickle(session):
    if not session.script_plans:
        return b""
    return pickling.dumps(session.script_plans, session.namespace)


def _text(error):
    try:
        return str(error)
    except Exception:
        return type(error).__name__


def _use(paths):
    """Add directories of requirements to the import path.

    They come before site-packages, so that users get the versions they asked for, and after the standard library.
    The worker imports its own dependencies first: a requirement cannot replace them.
    """
    new = [path for path in paths if path not in sys.path]
    if not new:
        return
    import importlib

    for name in ("cloudpickle", "redgrease", "redis"):
        try:
            importlib.import_module(name)
        except ImportError:
            # Without `redis`, `redgrease.cmd` raises an error on first use.
            continue
    at = next(
        (index for index, path in enumerate(sys.path) if path.rstrip("/").endswith(("site-packages", "dist-packages"))),
        len(sys.path),
    )
    sys.path[at:at] = new
    importlib.invalidate_caches()
