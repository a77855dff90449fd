"""Answers the calls of a cached command, in a worker.

A call whose result is kept is answered at once. Else it joins the flight of its key and waits: without a thread where
the server allows it (a future), otherwise in the thread of its execution.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import inspect
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, ClassVar

from .. import calls, codec, runtime
from . import store
from .flights import Counts, Flight, Terms
from .messages import Refused
from .settings import CacheSettings
from .store import ForeignKeyError

__all__ = ["ACTIONS", "CODE", "CONTROL", "FIELDS", "Answer", "Server"]

CODE = "CACHED"
"""First word of error replies of the cache itself."""
CONTROL = "redgrease:cache"
"""First argument of requests to the cache of a command instead of to its function."""
ACTIONS = ("stats", "invalidate", "invalidate-key", "get")
"""Second argument of such a request: see `Server`."""
FIELDS = ("value", "proof", "error")
"""The fields of the hash that stores a result."""

_OWN = os.path.dirname(os.path.abspath(__file__))
#: Seconds until a result is made again in the background after that failed, at least.
_COOLING = 1.0
_COOLING_MAX = 10_000

#: What the running function was called for.
_caller: contextvars.ContextVar[_Caller | None] = contextvars.ContextVar("redgrease_cached_call", default=None)


@dataclass(frozen=True)
class _Caller:
    """Keys of the cached calls that a function runs for, the first one first, and its session."""

    keys: tuple[str, ...]
    session: Any


@dataclass(frozen=True)
class Answer:
    """A result, or the reason why there is none."""

    value: Any = None
    #: The result in the package's codec.
    data: bytes = b""
    #: If `data` holds a pickle: the proof that a worker of this command wrote it.
    proof: bytes = b""
    error: str = ""


class _Request:
    """One call: its arguments, and what identifies it.

    Raises:
        TypeError: the arguments do not fit.
    """

    def __init__(self, server: Server, words: Sequence[Any]) -> None:
        self.words = tuple(words)
        self.text = server.texts(self.words)
        self.key = server.settings.key_of(self.text)


class _Waits:
    """Which running calls wait for which others, to refuse a wait that would never end."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._for: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def of(self, caller: _Caller | None, request: _Request) -> Iterator[Callable[[], None]]:
        """Note that a call waits for another one; gives a function that ends it, which an exception calls, too.

        Raises:
            Refused: the other one waits for the caller.
        """
        if caller is None:
            yield _nothing
            return
        waits, key = caller.keys[-1], request.key
        with self._guard:
            path = self._path(key, waits, ())
            if path is not None:
                raise Refused("deadlock", f"{request.text} waits for its own caller: {' -> '.join((waits, *path))}")
            self._for.setdefault(waits, []).append(key)

        def end() -> None:
            with self._guard:
                waited = self._for.get(waits, [])
                if key in waited:
                    waited.remove(key)
                if not waited:
                    self._for.pop(waits, None)

        try:
            yield end
        except BaseException:
            end()
            raise

    def _path(self, key: str, goal: str, seen: tuple[str, ...]) -> tuple[str, ...] | None:
        if key == goal:
            return (*seen, key)
        for other in self._for.get(key, ()):
            found = None if other in seen else self._path(other, goal, (*seen, key))
            if found is not None:
                return found
        return None


_waits = _Waits()


def _nothing() -> None:
    """End no wait."""


class _Run:
    """The function, running for a call, in a thread or, if it is a coroutine function, on the worker's event loop."""

    def __init__(self, server: Server, caller: _Caller, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.done = threading.Event()
        self.entry = Answer(error=f"{CODE} broken the function did not end")
        self._server = server
        self._caller = caller
        self._args, self._kwargs = args, kwargs
        self._thread: threading.Thread | None = None
        self._task: Any = None
        self._loop: Any = None

    def start(self) -> _Run:
        """Start."""
        self._server.count_runs(1)
        try:
            if inspect.iscoroutinefunction(self._server.function):
                store.native("runCoroutine")(self._await(), session=self._caller.session)
            else:
                self._thread = threading.Thread(target=self._call, name="cached command", daemon=True)
                self._thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def cancel(self) -> None:
        """Cancel a coroutine that has not ended. A thread cannot be ended: it is abandoned."""
        if self._loop is not None and self._task is not None and not self.done.is_set():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def where(self) -> str:
        """The line of the function that is running, if it can be found."""
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread is not None else None
        code = getattr(inspect.unwrap(self._server.function), "__code__", None)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return "" if frame is None else f" in line {frame.f_lineno} of {os.path.basename(frame.f_code.co_filename)}"

    def _call(self) -> None:
        try:
            store.native("setGearsSession")(self._caller.session)
            _caller.set(self._caller)
            self.entry = self._server.encode(self._server.function(*self._args, **self._kwargs))
        except BaseException as error:
            self.entry = Answer(error=error_text(error))
        finally:
            self._end()

    async def _await(self) -> None:
        import asyncio  # costly, and most commands are plain functions

        try:
            self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
            _caller.set(self._caller)
            self.entry = self._server.encode(await self._server.function(*self._args, **self._kwargs))
        except BaseException as error:
            self.entry = Answer(error=error_text(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        self._server.count_runs(-1)
        self.done.set()


def error_text(error: BaseException) -> str:
    """The text of an error reply for an exception: its traceback, without the frames of this package."""
    if isinstance(error, store.native("GearsFlatError")):
        return str(error)
    try:
        described = traceback.TracebackException(type(error), error, error.__traceback__)
        described.stack[:] = [frame for frame in described.stack if not frame.filename.startswith(_OWN)]
        return str(list(described.format()))
    except Exception:  # such as one whose text cannot be made
        return f"Error type: {type(error)}, Value: <no text>"


class _Call(Flight[Answer]):
    """One run of the function for all calls with the same key."""

    fields = FIELDS
    what = "a result"
    doing = "being computed"
    many = "calls"

    def __init__(self, server: Server, request: _Request) -> None:
        end = time.monotonic() + server.settings.timeout
        super().__init__(server.terms, request.key, request.text, end)
        self.server = server
        self._request = request
        self._running: _Run | None = None
        caller = _caller.get()
        self._caller = _Caller((*(caller.keys if caller else ()), self.key), self.session)

    def _alive(self) -> int:
        return self.server.alive

    @classmethod
    def _decode(cls, values: Sequence[Any]) -> Any:
        # The fields as they are: only `Server.decode` has the secret of the command.
        return Stored(*map(store.as_bytes, values))

    def _encode(self, entry: Answer) -> dict[str, Any]:
        return {"value": entry.data, "proof": entry.proof, "error": entry.error}

    def _failed(self, kind: str, text: str) -> Answer:
        return Answer(error=f"{CODE} {kind} {text}")

    def _begin(self, seconds: float) -> _Run:
        self._running = _Run(self.server, self._caller, *calls.unpack(self._request.words))
        return self._running.start()

    def _look(self) -> Answer | None:
        return self.server.find(self.key)

    def _work(self, end: float) -> Any:
        entry = super()._work(end)
        running = self._running
        if entry.error.startswith(f"{CODE} timeout") and running is not None:
            entry = self._failed(
                "timeout",
                f"{self.shown} was not finished after {self.server.settings.timeout:g} s{running.where()}: if the "
                "function calls itself with the same arguments, the two calls wait for each other; else give timeout=",
            )
        if self.refreshes and entry.error:
            self.server.cool(self.key)
        return entry

    def _keep(self, entry: Answer) -> float:
        settings = self.server.settings
        if entry.error:
            return settings.negative_ttl
        if len(entry.data) > settings.max_value_bytes:
            runtime.log(
                f"{self.terms.name}: {self._place()} is not kept: it has {len(entry.data)} bytes, and the limit is "
                f"{settings.max_value_bytes}",
                level="warning",
            )
            return 0
        return settings.ttl + settings.stale

    def _hint(self) -> str:
        seconds = self.server.settings.timeout
        return f" after {seconds:g} s: if that run waits for this one, neither can end; else give timeout="

    def _is_fresh(self) -> bool:
        return self.server.is_fresh(self.key)

    def _described(self, entry: Answer) -> str:
        return "failed" if entry.error else f"{len(entry.data)} bytes"

    def _place(self) -> str:
        """The name only: arguments may be secrets."""
        return self.server.name


@dataclass(frozen=True)
class Stored:
    """The fields of a kept result."""

    value: bytes
    proof: bytes
    message: bytes

    @property
    def error(self) -> str:
        """Why there is no result; empty on success."""
        return self.message.decode("utf-8", "replace")


class Server:
    """What answers the calls of one command: called with the record of the reader, the command's name first.

    Requests to the cache are calls with `CONTROL` as first argument, and then

    - ``stats``: counts of outcomes of this worker;
    - ``invalidate ARGUMENTS``: forget the result of that call;
    - ``invalidate-key TEXT``: forget the result with that key, without prefix and braces;
    - ``get ARGUMENTS``: outcome and result of a call.

    Functions in the same worker call it with `call`; in other workers they have a `Server` of their own for the same
    command, and the leases in the database keep them apart.

    Args:
        name: name of the command.
        function: what is run.
        settings: the options.
        key: see `redgrease.calls.call_text`.
        secret: shared by the workers of the command: they load only pickles that one of them wrote.
    """

    #: What answers commands in this process, by their names.
    all: ClassVar[weakref.WeakValueDictionary[str, Server]] = weakref.WeakValueDictionary()

    def __init__(
        self, name: str, function: Callable[..., Any], settings: CacheSettings, key: Any, secret: bytes
    ) -> None:
        self.name = name
        self.function = function
        self.settings = settings
        self._key = key
        self._secret = secret
        self.texts = calls.CallTexts(name, calls.signature_of(function), key)
        self._counts = Counts("hit", "created", "waited", "failed", "refreshed")
        self._terms: Terms | None = None
        #: Number of runs that have not ended, including abandoned ones.
        self.alive = 0
        self._counting = threading.Lock()
        #: When results may be made again in the background after that failed, by key.
        self._cooling: dict[str, float] = {}
        Server.all[name] = self

    def __reduce__(self) -> Any:
        return Server, (self.name, self.function, self.settings, self._key, self._secret)

    def __call__(self, record: Sequence[Any]) -> Any:
        """Answer one request."""
        words = list(record[1:])
        try:
            if not words or words[0] != CONTROL:
                return self._serve(words, False)
            return self._control(*words[1:])
        except Refused as refused:
            store.flat_error(f"{CODE} {refused}")

    def _control(self, action: Any = None, *words: Any) -> Any:
        if action == "stats" and not words:
            return self._statistics()
        if action == "invalidate":
            return self.invalidate(words)
        if action == "invalidate-key" and len(words) == 1:
            return self.invalidate_key(str(words[0]))
        if action == "get":
            return self._serve(words, True)
        raise Refused("argument", f"{CONTROL} is followed by one of {', '.join(ACTIONS)}, and what belongs to it")

    # -- calls -------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> Terms:
        """What the flights keep to."""
        if self._terms is None:
            settings = self.settings
            index = f"{settings.namespace}:index:{{{store.local_tag()}}}:{self.name}" if settings.max_bytes else None
            shares = bool(settings.ttl) and settings.coalesce
            self._terms = Terms(self.name, settings.lease, settings.max_running, index, settings.max_bytes, shares)
        return self._terms

    def count_runs(self, change: int) -> None:
        """Count a run that begins (1) or has ended (-1)."""
        with self._counting:
            self.alive += change

    def call(self, words: Sequence[Any]) -> tuple[str, Answer]:
        """Outcome and answer of a call from a function, which waits in its thread.

        Args:
            words: arguments, as they are sent.

        Raises:
            TypeError: the arguments do not fit.
            Refused: the cache refuses the call.
        """
        caller = _caller.get()
        if caller is not None and store.session() is None:  # a thread that the function started
            store.native("setGearsSession")(caller.session)
        if caller is None and not store.native("isAsyncAllow")():
            raise Refused("transaction", f"{self.name}: a call waits, which is not possible here")
        request = _Request(self, words)
        found = self._at_once(request)
        if found is not None:
            return found
        with _waits.of(caller, request) as ended:
            flight, own = self._join(request)
            entry = flight.wait(time.monotonic() + self.settings.timeout)
            ended()
        if entry is None:
            entry = flight._failed("timeout", f"{request.text} is still {flight.doing}")
        return self._done(flight, own, entry)

    def _serve(self, words: Sequence[Any], with_outcome: bool) -> Any:
        """Answer a request of a client; a future where it has to wait."""
        try:
            request = _Request(self, words)
        except TypeError as error:
            store.flat_error(error_text(error.with_traceback(None)))
        found = self._at_once(request)
        if found is None:
            if not store.native("isAsyncAllow")():
                raise Refused(
                    "transaction", f"{request.text} is not there, and inside a transaction or script nothing can wait"
                )
            future = runtime.gearsFuture()
            flight, own = self._join(request)

            def complete(result: Any) -> None:
                outcome, answer = self._done(flight, own, result)
                if answer.error:
                    future.continueFailed(answer.error)
                else:
                    future.continueRun([outcome, answer.value] if with_outcome else answer.value)

            if flight.call_back(complete):
                return future
            found = self._done(flight, own, flight.result)
        outcome, answer = found
        if answer.error:
            store.flat_error(answer.error)
        return [outcome, answer.value] if with_outcome else answer.value

    def _at_once(self, request: _Request) -> tuple[str, Answer] | None:
        """Outcome and answer of a call that needs not wait for others; `None`: it has to."""
        settings = self.settings
        found = self.find(request.key) if settings.ttl else None
        if found is not None:
            if settings.stale and not found.error and not self.is_fresh(request.key):
                self._refresh(request)
            elif settings.sliding and not found.error:
                store.touch(request.key, settings.ttl, self.terms.index)
            return self._counted("hit", found)
        caller = _caller.get()
        if caller is not None and request.key in caller.keys:
            raise Refused("deadlock", f"{request.text} calls itself: {' -> '.join((*caller.keys, request.key))}")
        return None if settings.coalesce else self._counted("created", self._alone(request))

    def _join(self, request: _Request, refreshes: bool = False) -> tuple[_Call, bool]:
        _ = self.terms  # the first time it asks the server, which must not happen under the lock of `join`

        def make() -> _Call:
            flight = _Call(self, request)
            flight.refreshes = refreshes
            return flight

        return _Call.join(request.key, make)

    def _done(self, flight: _Call, own: bool, result: Any) -> tuple[str, Answer]:
        answer: Answer = Answer(error=f"{CODE} {result}") if isinstance(result, Refused) else result
        return self._counted("created" if own and flight.ran else "waited", answer)

    def _counted(self, outcome: str, answer: Answer) -> tuple[str, Answer]:
        self._counts.add(*([outcome, "failed"] if answer.error else [outcome]))
        return outcome, answer

    def _alone(self, request: _Request) -> Answer:
        """Run for this call only, and keep the result."""
        flight = _Call(self, request)
        answer: Answer = flight._make(flight.end)
        seconds = flight._keep(answer)
        if seconds:
            flight._publish(answer, seconds, "")
        return answer

    def _refresh(self, request: _Request) -> None:
        """Make a result again in the background."""
        if self._is_cooling(request.key):
            return
        with contextlib.suppress(Refused):  # too many under way: the next call tries again
            if self._join(request, refreshes=True)[1]:
                self._counts.add("refreshed")

    def cool(self, key: str) -> None:
        """Do not make a result again in the background for a time, after that failed."""
        while len(self._cooling) >= _COOLING_MAX:
            with contextlib.suppress(KeyError, StopIteration, RuntimeError):
                del self._cooling[next(iter(self._cooling))]
        self._cooling[key] = time.monotonic() + max(_COOLING, self.settings.negative_ttl)

    def _is_cooling(self, key: str) -> bool:
        until = self._cooling.get(key)
        if until is None or time.monotonic() < until:
            return until is not None
        self._cooling.pop(key, None)
        return False

    # -- what is kept ------------------------------------------------------------------------------------------

    def find(self, key: str) -> Answer | None:
        """The result that is kept at a key; `None` if there is none that can be used."""
        stored = _Call.look(key)
        return None if stored is None else self.decode(stored)

    def is_fresh(self, key: str) -> bool:
        """Whether a kept result is not older than `ttl`."""
        return int(runtime.execute("PTTL", key)) > self.settings.stale * 1000

    def encode(self, value: Any) -> Answer:
        """A result as it is kept.

        Raises:
            TypeError: it cannot be sent to clients.
        """
        try:
            return Answer(value, codec.dumps(value, pickle=False))
        except Exception:  # a type that the codec does not know
            pass
        try:
            data = codec.dumps(value)
        except Exception as error:
            raise TypeError(f"the result of {self.name}, a {type(value).__name__}, cannot be sent: {error}") from None
        return Answer(value, data, self._proof(data))

    def decode(self, stored: Stored) -> Answer | None:
        """A kept result; `None` if it cannot be used: it holds a pickle of another writer, or of other code."""
        if stored.message:
            return Answer(error=stored.error)
        try:
            return Answer(codec.loads(stored.value, allow_pickle=self._is_ours(stored)), stored.value, stored.proof)
        except Exception:
            return None

    def _is_ours(self, stored: Stored) -> bool:
        return bool(stored.proof) and stored.proof == self._proof(stored.value)

    def _proof(self, data: bytes) -> bytes:
        if not self._secret:
            return b""
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()

    def invalidate(self, words: Sequence[Any]) -> bool:
        """Forget the result of a call; return whether there was one."""
        return self._forget(_Request(self, words).key)

    def invalidate_key(self, text: str) -> bool:
        """Forget the result with a key, given without namespace and braces."""
        return self._forget(self.settings.key_of(text))

    def _forget(self, key: str) -> bool:
        _Call.drop(key)
        self._cooling.pop(key, None)
        try:
            return store.forget(key, f"{key}:lease", FIELDS, self.terms.index)
        except ForeignKeyError:
            raise Refused("key", store.foreign(key, _Call.what, _Call.option)) from None

    def _statistics(self) -> dict[str, int]:
        session = store.session()
        counts = self._counts.here()
        counts.update(under_way=_Call.count(session, self.name), waiting=_Call.count_waiting(session, self.name))
        if self.terms.index is not None:
            counts["entries"], counts["bytes"] = store.usage(self.terms.index)
        return counts
