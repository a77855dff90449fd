"""Answers the calls of a cached command, in a worker.

A call whose result is kept is answered at once. Else it joins the flight of its key and waits: without a thread where
the server allows it (a future), otherwise in the thread of its execution.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, ClassVar

from .. import calls, codec, runtime
from . import store
from .flights import Counts, Flight, Terms
from .messages import Refused
from .settings import CacheSettings
from .store import ForeignKeyError

__all__ = ["ACTIONS", "CODE", "CONTROL", "FIELDS", "Server", "chain"]

CODE = "CACHED"
"""First word of error replies of the cache itself."""
CONTROL = "redgrease:cache"
"""First argument of requests to the cache of a command instead of to its function."""
ACTIONS = ("stats", "invalidate", "invalidate-key", "get", "call")
"""Second argument of such a request: see `Server`."""
FIELDS = ("value", "proof", "error")
"""The fields of the hash that stores a result."""

_OWN = os.path.dirname(os.path.abspath(__file__))
#: Seconds until a result is made again in the background after that failed, at least.
_COOLING = 1.0
_COOLING_MAX = 10_000

#: Keys of the calls that the running function was called for, the first one first.
_chain: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("redgrease_cached_calls", default=())


def chain() -> tuple[str, ...]:
    """Keys of the cached calls that the running function was called for."""
    return _chain.get()


@dataclass(frozen=True)
class Answer:
    """A result, or the reason why there is none."""

    value: Any = None
    #: The result in the package's codec.
    data: bytes = b""
    #: If `data` holds a pickle: the proof that a worker of this command wrote it.
    proof: bytes = b""
    error: str = ""


class _Waits:
    """Which running calls wait for which others, to refuse a wait that would never end."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._for: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def of(self, caller: str | None, key: str, text: str) -> Iterator[Callable[[], None]]:
        """Note that a call waits for another one; gives a function that ends it, which an exception calls, too.

        Raises:
            Refused: the other one waits for the caller.
        """
        if caller is None:
            yield _nothing
            return
        with self._guard:
            path = self._path(key, caller, ())
            if path is not None:
                raise Refused("deadlock", f"{text} waits for its own caller: {' -> '.join((caller, *path))}")
            self._for.setdefault(caller, []).append(key)

        def end() -> None:
            with self._guard:
                waited = self._for.get(caller, [])
                if key in waited:
                    waited.remove(key)
                if not waited:
                    self._for.pop(caller, None)

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

    #: Number of runs that have not ended, including abandoned ones.
    alive = 0
    _counting = threading.Lock()

    def __init__(self, server: Server, chain: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.done = threading.Event()
        self.entry = Answer(error=f"{CODE} broken the function did not end")
        self._server = server
        self._chain = chain
        self._session = store.session()
        self._args, self._kwargs = args, kwargs
        self._thread: threading.Thread | None = None
        self._task: Any = None
        self._loop: Any = None

    def start(self) -> _Run:
        """Start."""
        with _Run._counting:
            _Run.alive += 1
        try:
            if inspect.iscoroutinefunction(self._server.function):
                store.native("runCoroutine")(self._await(), session=self._session)
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
            store.native("setGearsSession")(self._session)
            _chain.set(self._chain)
            self.entry = self._server.encode(self._server.function(*self._args, **self._kwargs))
        except BaseException as error:
            self.entry = Answer(error=error_text(error))
        finally:
            self._end()

    async def _await(self) -> None:
        import asyncio  # costly, and most commands are plain functions

        try:
            self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
            _chain.set(self._chain)
            self.entry = self._server.encode(await self._server.function(*self._args, **self._kwargs))
        except BaseException as error:
            self.entry = Answer(error=error_text(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        with _Run._counting:
            _Run.alive -= 1
        self.done.set()


def error_text(error: BaseException) -> str:
    """The text of an error reply for an exception of the function: its traceback, without the frames of this package."""
    if isinstance(error, store.native("GearsFlatError")):
        return str(error)
    try:
        described = traceback.TracebackException(type(error), error, error.__traceback__)
        described.stack[:] = [frame for frame in described.stack if not frame.filename.startswith(_OWN)]  # type: ignore[index]
        return str(list(described.format()))
    except Exception:  # such as one whose text cannot be made
        return f"Error type: {type(error)}, Value: <no text>"


class _Call(Flight[Answer]):
    """One run of the function for all calls with the same key."""

    fields = FIELDS
    what = "a result"
    doing = "being computed"
    many = "calls"

    #: When results may be made again in the background after that failed, by key.
    _cooling: ClassVar[dict[str, float]] = {}

    def __init__(self, server: Server, key: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(server.terms, key, text, time.monotonic() + server.settings.timeout)
        self.server = server
        self._args, self._kwargs = args, kwargs
        self._running: _Run | None = None
        self._chain = (*_chain.get(), key)

    @classmethod
    def alive(cls) -> int:
        return _Run.alive

    @classmethod
    def _decode(cls, values: Sequence[Any]) -> Any:
        # The fields as they are: only `Server.decode` has the secret of the command.
        return Stored(*map(store.as_bytes, values))

    def _encode(self, entry: Answer) -> dict[str, Any]:
        return {"value": entry.data, "proof": entry.proof, "error": entry.error}

    def _failed(self, kind: str, text: str) -> Answer:
        return Answer(error=f"{CODE} {kind} {text}")

    def _begin(self, seconds: float) -> _Run:
        self._running = _Run(self.server, self._chain, self._args, self._kwargs)
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
            self._cool()
        return entry

    def _cool(self) -> None:
        while len(self._cooling) >= _COOLING_MAX:
            with contextlib.suppress(KeyError, StopIteration, RuntimeError):
                del self._cooling[next(iter(self._cooling))]
        self._cooling[self.key] = time.monotonic() + max(_COOLING, self.server.settings.negative_ttl)

    @classmethod
    def is_cooling(cls, key: str) -> bool:
        """Whether making a result again failed just now."""
        until = cls._cooling.get(key)
        if until is None or time.monotonic() < until:
            return until is not None
        cls._cooling.pop(key, None)
        return False

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
    - ``get ARGUMENTS``: outcome and result of a call;
    - ``call CHAIN ARGUMENTS``: a call from a function that runs for the calls with the keys in ``CHAIN``, a JSON list.

    Args:
        name: name of the command.
        function: what is run.
        settings: the options.
        key: see `redgrease.calls.call_text`.
        secret: shared by the workers of the command: they load only pickles that one of them wrote.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], settings: CacheSettings, key: Any, secret: bytes
    ) -> None:
        self.name = name
        self.function = function
        self.settings = settings
        self._key = key
        self._secret = secret
        self._signature = calls.signature_of(function)
        self._counts = Counts("hit", "created", "waited", "failed", "refreshed")
        self._terms: Terms | None = None

    def __reduce__(self) -> Any:
        return Server, (self.name, self.function, self.settings, self._key, self._secret)

    def __call__(self, record: Sequence[Any]) -> Any:
        """Answer one request."""
        words = list(record[1:])
        try:
            if not words or words[0] != CONTROL:
                return self._answer(words, False)
            return self._control(*words[1:])
        except Refused as refused:
            store.flat_error(f"{CODE} {refused}")
        except ForeignKeyError as error:
            store.flat_error(f"{CODE} key {store.foreign(str(error), _Call.what, _Call.option)}")

    def _control(self, action: Any = None, *words: Any) -> Any:
        if action == "stats" and not words:
            return self._statistics()
        if action == "invalidate":
            args, kwargs = calls.unpack(words)
            return self._forget(self.key_of(args, kwargs)[0])
        if action == "invalidate-key" and len(words) == 1:
            return self._forget(self.settings.key_of(str(words[0])))
        if action == "get":
            return self._answer(words, True)
        if action == "call" and words:
            before = _chain.set(tuple(map(str, json.loads(words[0]))))
            try:
                return self._answer(words[1:], False)
            finally:
                _chain.reset(before)
        raise Refused("argument", f"{CONTROL} is followed by one of {', '.join(ACTIONS)}, and what belongs to it")

    # -- calls -------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> Terms:
        """What the flights keep to."""
        if self._terms is None:
            settings = self.settings
            index = f"{settings.namespace}:index:{{{runtime.hashtag()}}}:{self.name}" if settings.max_bytes else None
            shares = bool(settings.ttl) and settings.coalesce
            self._terms = Terms(self.name, settings.lease, settings.max_running, index, settings.max_bytes, shares)
        return self._terms

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
        """Key and text of a call."""
        text = calls.call_text(self.name, self._signature, self._key, args, kwargs)
        return self.settings.key_of(text), text

    def _answer(self, words: Sequence[Any], with_outcome: bool) -> Any:
        args, kwargs = calls.unpack(words)
        try:
            key, text = self.key_of(args, kwargs)
        except TypeError as error:
            store.flat_error(error_text(error.with_traceback(None)))
        found = self.find(key) if self.settings.ttl else None
        if found is not None:
            if self.settings.stale and not found.error and not self.is_fresh(key):
                self._refresh(key, text, args, kwargs)
            elif self.settings.sliding and not found.error:
                store.touch(key, self.settings.ttl, self.terms.index)
            return self._reply("hit", found, with_outcome)
        callers = _chain.get()
        if key in callers:
            raise Refused("deadlock", f"{text} calls itself: {' -> '.join((*callers, key))}")
        if not self.settings.coalesce:
            return self._reply("created", self._alone(key, text, args, kwargs), with_outcome)
        if not store.native("isAsyncAllow")():
            raise Refused("transaction", f"{text} is not there, and inside a transaction or script nothing can wait")
        future = runtime.gearsFuture()
        with _waits.of(callers[-1] if callers else None, key, text) as ended:
            flight, own = _Call.join(key, lambda: _Call(self, key, text, args, kwargs))
            if flight.call_back(lambda got: self._complete(future, flight, own, got, with_outcome, ended)):
                return future
            ended()
        return self._reply(self._outcome(flight, own), self._answer_of(flight.result), with_outcome)

    @staticmethod
    def _outcome(flight: _Call, own: bool) -> str:
        return "created" if own and flight.ran else "waited"

    @staticmethod
    def _answer_of(result: Any) -> Answer:
        answer: Answer = Answer(error=f"{CODE} {result}") if isinstance(result, Refused) else result
        return answer

    def _complete(
        self, future: Any, flight: _Call, own: bool, result: Any, with_outcome: bool, ended: Callable[[], None]
    ) -> None:
        ended()
        answer, outcome = self._answer_of(result), self._outcome(flight, own)
        self._count(outcome, answer)
        if answer.error:
            future.continueFailed(answer.error)
        else:
            future.continueRun([outcome, answer.value] if with_outcome else answer.value)

    def _reply(self, outcome: str, answer: Answer, with_outcome: bool) -> Any:
        self._count(outcome, answer)
        if answer.error:
            store.flat_error(answer.error)
        return [outcome, answer.value] if with_outcome else answer.value

    def _count(self, outcome: str, answer: Answer) -> None:
        self._counts.add(*([outcome, "failed"] if answer.error else [outcome]))

    def _alone(self, key: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        """Run for this call only, and keep the result."""
        flight = _Call(self, key, text, args, kwargs)
        answer: Answer = flight._make(flight.end)
        seconds = flight._keep(answer)
        if seconds:
            flight._publish(answer, seconds, "")
        return answer

    def _refresh(self, key: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make a result again in the background."""
        if _Call.is_cooling(key):
            return

        def make() -> _Call:
            flight = _Call(self, key, text, args, kwargs)
            flight.refreshes = True
            return flight

        with contextlib.suppress(Refused):  # too many under way: the next call tries again
            if _Call.join(key, make)[1]:
                self._counts.add("refreshed")

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
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()

    def _forget(self, key: str) -> bool:
        _Call.drop(key)
        _Call._cooling.pop(key, None)
        return store.forget(key, f"{key}:lease", FIELDS, self.terms.index)

    def _statistics(self) -> dict[str, int]:
        counts = {**self._counts.here(), "under_way": _Call.count(store.session())}
        if self.terms.index is not None:
            counts["entries"], counts["bytes"] = store.usage(self.terms.index)
        return counts
