"""Flights: one run for all requests that wait for its result, in a worker.

A request looks into the database, and joins the *flight* for its key if there is no entry. A flight is a thread that
makes the entry for all requests of this worker, whether they still wait or not; so a client that gives up does not
cancel the work of others. Between workers a *lease* decides which one works: a key with a token and a short time to
live, which its holder renews. If a worker is killed, its flights end with it, and its leases expire.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Generic, Protocol, TypeVar

from .. import runtime
from . import store
from .messages import Refused, span
from .store import ForeignKeyError

__all__ = ["Counts", "Flight", "Made", "Terms", "Work"]

#: Polling interval of waiting requests, in seconds: an abort takes effect at the next poll. Results do not wait for it.
_LOOK = 0.25
#: Additional seconds that a request waits for a run with the same deadline, so that it gets its result.
_GRACE = 0.25
#: Seconds between two attempts to get a lease that another worker holds: the first, and the longest.
_TRY, _TRY_MAX = 0.01, 0.25


class Made(Protocol):
    """What a flight makes."""

    @property
    def error(self) -> str:
        """Why there is no result, kind first; empty on success."""


class Work(Protocol):
    """A run that has begun, in a thread of its own.

    Attributes:
        done: set when `entry` is final.
        entry: the result.
    """

    done: threading.Event
    entry: Any

    def cancel(self) -> None:
        """Give it up: its result is not used."""


@dataclass(frozen=True)
class Terms:
    """What the flights of a cache keep to; times are in seconds.

    Attributes:
        name: of the cache, for the log.
        lease: time to live of a lease.
        max_running: flights at the same time.
        index: name of the index of a cache with a limited total; `None`: without a limit.
        max_bytes: that limit.
        shares: whether entries are kept, so that other workers can be waited for.
    """

    name: str
    lease: float
    max_running: int
    index: str | None = None
    max_bytes: int = 0
    shares: bool = True


_Entry = TypeVar("_Entry", bound=Made)


class Flight(Generic[_Entry]):
    """One run that all requests for a key in this worker share.

    A subclass says what is made: `fields`, `_decode`, `_encode`, `_failed`, `_begin`, `_keep`.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    """Fields of the hash that stores an entry."""
    what: ClassVar[str] = "an entry"
    """What an entry is called in messages."""
    option: ClassVar[str] = "namespace"
    """The option that decides on the names of keys."""
    doing: ClassVar[str] = "being made"
    """What is done, in messages about one that is not finished."""
    many: ClassVar[str] = "runs"
    """What several of them are called."""

    #: Active flights, by session and key; each subclass has its own.
    _all: ClassVar[dict[tuple[Any, str], Any]] = {}
    _guard: ClassVar[Any] = threading.Lock()

    def __init_subclass__(cls) -> None:
        cls._all = {}
        cls._guard = threading.Lock()

    def __init__(self, terms: Terms, key: str, shown: str, end: float) -> None:
        self.terms = terms
        self.session = store.session()
        self.key = key
        self.shown = shown
        self.end = end
        self.ran = False
        self.refreshes = False
        self._lease = f"{key}:lease"
        self._token = uuid.uuid4().hex
        self._landed = threading.Event()
        self._waiting: list[Callable[[Any], None]] = []
        self._outdated = False
        self._entry: _Entry | None = None
        self._refused: Refused | None = None

    # -- what a subclass says ----------------------------------------------------------------------------------

    @classmethod
    def _decode(cls, values: Sequence[Any]) -> Any:
        """The entry with these fields. Raises `ValueError` if it is not an entry."""
        raise NotImplementedError

    def _encode(self, entry: Any) -> dict[str, Any]:
        """Fields and values of an entry."""
        raise NotImplementedError

    def _failed(self, kind: str, text: str) -> Any:
        """An entry that says why there is no result."""
        raise NotImplementedError

    def _begin(self, seconds: float) -> Work:
        """Begin the run, which may take that long."""
        raise NotImplementedError

    def _keep(self, entry: Any) -> float:
        """Seconds that an entry is kept; 0: it is not."""
        raise NotImplementedError

    def _size(self, content: dict[str, Any]) -> int:
        """Bytes that count for the limit of the total."""
        return len(self.key) + sum(len(store.as_bytes(value)) for value in content.values())

    def _is_fresh(self) -> bool:
        """Whether an entry that was found needs no refresh."""
        return True

    def _hint(self) -> str:
        """What may be the reason if another worker does not end."""
        return ""

    def _described(self, entry: Any) -> str:
        """An entry for the log."""
        return "failed" if entry.error else "made"

    def _alive(self) -> int:
        """Number of runs of this cache that have not ended, including abandoned ones."""
        return 0

    # -- joining -----------------------------------------------------------------------------------------------

    @classmethod
    def look(cls, key: str) -> Any:
        """The entry at a key; `None` if there is none.

        Raises:
            Refused: the key holds something else.
        """
        try:
            values = store.read(key, cls.fields)
            return None if values is None else cls._decode(values)
        except (ForeignKeyError, ValueError):  # ValueError: also for invalid text
            raise Refused("key", store.foreign(key, cls.what, cls.option)) from None

    @classmethod
    def join(cls, key: str, make: Callable[[], Any]) -> tuple[Any, bool]:
        """The flight for a key, and whether it began with this call.

        Args:
            key: key of the entry.
            make: returns the flight if there is none.

        Raises:
            Refused: too many are under way.
        """
        session = store.session()
        with cls._guard:
            flight = cls._all.get((session, key))
            if flight is not None:
                return flight, False
            flight = make()
            name = flight.terms.name
            busy = max(sum(other.terms.name == name for other in cls._all.values()), flight._alive())
            if busy >= flight.terms.max_running:
                limit = flight.terms.max_running
                raise Refused("busy", f"{busy} {cls.many} are under way, and the limit is {limit}")
            try:
                cls._all[session, key] = flight
                flight.start()
            except BaseException:  # such as an abort: no request may wait for a flight that did not start
                cls._all.pop((session, key), None)
                raise
            return flight, True

    @classmethod
    def drop(cls, key: str) -> None:
        """Let requests that come from now on not join the flight for a key, and store nothing of it."""
        with cls._guard:
            flight = cls._all.pop((store.session(), key), None)
        if flight is not None:
            flight._outdated = True

    @classmethod
    def count(cls, session: Any, name: str) -> int:
        """Number of active flights of a session for the cache of that name."""
        with cls._guard:
            return sum(owner is session and flight.terms.name == name for (owner, _), flight in cls._all.items())

    @classmethod
    def count_waiting(cls, session: Any, name: str) -> int:
        """Number of requests that wait for these flights, except those that wait in threads."""
        with cls._guard:
            active = [flight for (owner, _), flight in cls._all.items() if owner is session]
            return sum(len(flight._waiting) for flight in active if flight.terms.name == name)

    def start(self) -> None:
        """Start the flight's thread."""
        threading.Thread(target=self._run, name=f"{self.terms.name} flight", daemon=True).start()

    def wait(self, end: float) -> _Entry | None:
        """The result; `None` if there is none at the time `end`.

        Raises:
            Refused: something else is stored at the key.
        """
        if self.end <= end:
            end = max(end, self.end + _GRACE)
        while not self._landed.wait(max(0.0, min(_LOOK, end - time.monotonic()))):
            if time.monotonic() >= end:
                return None
        if self._refused is not None:
            raise Refused(self._refused.kind, self._refused.text)
        return self._entry

    def call_back(self, waiting: Callable[[Any], None]) -> bool:
        """Call a function with the result, in the flight's thread; return false if the result is there already."""
        with self._guard:
            if self._landed.is_set():
                return False
            self._waiting.append(waiting)
            return True

    @property
    def result(self) -> Any:
        """The result, an entry or a `Refused`, when the flight has ended."""
        return self._refused or self._entry

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        began = time.monotonic()
        try:
            store.native("setGearsSession")(self.session)
            entry = self._obtain(self.end)
        except Refused as refused:
            self._refused = refused
            entry = self._failed(refused.kind, refused.text)
        except Exception as error:  # such as a registration that was removed meanwhile
            entry = self._failed("broken", f"{self.shown} was given up: {error}")
        except BaseException:
            self._land(self._failed("broken", f"{self.shown} was given up"))
            raise
        self._land(entry)
        self._log(entry, time.monotonic() - began)

    def _land(self, entry: Any) -> None:
        self._leave()
        with self._guard:
            self._entry = entry
            self._landed.set()
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            # One whose client or execution has gone must not keep the result from the others.
            with contextlib.suppress(Exception):
                each(self.result)

    def _leave(self) -> None:
        """Accept no further requests: the next one starts another flight."""
        with self._guard:
            if self._all.get((self.session, self.key)) is self:
                del self._all[self.session, self.key]

    def _obtain(self, end: float) -> Any:
        if not self.terms.shares:
            return self._make(end)
        pause = _TRY
        while not self._take_lease():
            if self.refreshes:
                return self._look() or self._failed("busy", f"{self.shown} is {self.doing} elsewhere")
            if time.monotonic() >= end:
                return self._failed("timeout", f"{self.shown} is still {self.doing} elsewhere{self._hint()}")
            if str(runtime.execute("PTTL", self._lease)) == "-1":  # a lease has a time to live
                raise Refused("key", store.foreign(self._lease, self.what, self.option))
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, end - time.monotonic())))
            pause = min(2 * pause, _TRY_MAX)
            entry = self._look()
            if entry is not None:
                return entry
        try:
            # It may have been stored between the first look-up and the lease.
            entry = self._look()
            if entry is not None and (not self.refreshes or self._is_fresh()):
                return entry
            before, entry = entry, self._make(end)
            seconds = self._keep(entry)
            if seconds and not (entry.error and before is not None) and not self._outdated:
                self._publish(entry, seconds, self._token)
            else:
                self._leave()
            return entry
        finally:
            with contextlib.suppress(store.gears_error()):  # it expires
                runtime.execute("EVAL", store.RELEASE, "1", self._lease, self._token)

    def _look(self) -> Any:
        """The entry of this flight; `None` if there is none that can be used."""
        return self.look(self.key)

    def _take_lease(self) -> bool:
        life = store.milliseconds(self.terms.lease)
        try:
            return runtime.execute("SET", self._lease, self._token, "NX", "PX", life) is not None
        except store.gears_error() as error:
            if not str(error).startswith("OOM"):
                raise
            # It cannot be stored, but waiting requests get it.
            runtime.log(f"{self.terms.name}: {self._place()} is not kept: {error}", level="warning")
            return True

    def _make(self, end: float) -> Any:
        self.ran = True
        return self._work(end)

    def _work(self, end: float) -> Any:
        """Run, and renew the lease meanwhile."""
        lease = self.terms.lease
        seconds = max(0.001, end - time.monotonic())
        work = self._begin(seconds)
        try:
            while not work.done.wait(max(0.0, min(lease / 3, end - time.monotonic()))):
                if time.monotonic() >= end:
                    return self._failed("timeout", f"{self.shown} was given up after {span(seconds)}")
                if self.terms.shares:
                    # One that cannot be renewed (writes may be refused for a time) expires, and the run ends anyway.
                    with contextlib.suppress(store.gears_error()):
                        store.renew(self._lease, self._token, lease)
            return work.entry
        finally:
            work.cancel()

    def _publish(self, entry: Any, seconds: float, token: str) -> None:
        """Store an entry, unless the lease is lost: then another worker stores a newer one."""
        content = self._encode(entry)
        limit = None
        if self.terms.index is not None:
            size = self._size(content)
            if size > self.terms.max_bytes:
                why = f"it has {size} bytes, and the limit of all results is {self.terms.max_bytes}"
                runtime.log(f"{self.terms.name}: {self._place()} is not kept: {why}", level="warning")
                return
            limit = self.terms.index, size, self.terms.max_bytes
        why = ""
        try:
            if store.publish(self.key, self._lease, token, seconds, content, limit) == -1:
                why = store.foreign(self.key, self.what, self.option)
        except store.gears_error() as error:  # such as full memory: waiting requests get the entry anyway
            why = str(error)
        if why:
            runtime.log(f"{self.terms.name}: {self._place()} is not kept: {why}", level="warning")

    def _place(self) -> str:
        """The request for the log."""
        return self.shown

    def _log(self, entry: Any, seconds: float) -> None:
        if not self.ran:
            return
        level = "notice" if entry.error else "verbose"
        with contextlib.suppress(Exception):  # the session may have ended
            runtime.log(
                f"{self.terms.name}: {self._place()}: {self._described(entry)}, {seconds * 1000:.0f} ms", level=level
            )


class Counts:
    """Counts of outcomes of this worker, by session."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._all: dict[Any, Counter[str]] = {}
        self._guard = threading.Lock()

    def add(self, *names: str) -> None:
        """Count one request of the calling thread's session."""
        with self._guard:
            self._here().update(names)

    def here(self) -> dict[str, int]:
        """Counts of the calling thread's session."""
        with self._guard:
            return dict(self._here())

    def _here(self) -> Counter[str]:
        return self._all.setdefault(store.session(), Counter(dict.fromkeys(self._names, 0)))
