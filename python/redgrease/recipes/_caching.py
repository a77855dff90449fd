"""The server side of `cache_get`: look-ups, shared downloads, leases. Needs no other package.

A request looks into the database, and joins the *flight* for its resource if there is no entry. A flight is one thread
that downloads the resource for all requests of this worker, whether they still wait or not; so a client that gives up
does not cancel the download of others. Between workers a *lease* decides which one downloads: a key with a token and a
short time to live, which its holder renews. If a worker is killed, its flights end with it, and its leases expire.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import random
import sys
import threading
import time
import uuid
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, NoReturn

from .. import runtime
from ._download import OWN_HEADERS, Download, Entry, Refused, check_url, shown, span

__all__ = ["CODE", "FIELDS", "STATISTICS", "Settings", "foreign", "key_of", "serve"]

CODE = "CACHEGET"
"""First word of error replies."""
STATISTICS = "stats"
"""Argument that requests the statistics of this worker instead of a URL."""
FIELDS = ("status", "headers", "body", "error")
"""The fields of the hash that stores a resource."""
EXPIRY_MAX = 10 * 365 * 86400
"""Longest expiry, in seconds."""
TIMEOUT_MAX = 3600
"""Longest timeout, in seconds."""

#: Polling interval of waiting requests, in seconds: an abort takes effect at the next poll. Results do not wait for it.
_LOOK = 0.25
#: Additional seconds that a request waits for a download with the same deadline, so that it gets its result.
_GRACE = 0.25
#: Seconds between two attempts to get a lease that another worker holds: the first, and the longest.
_TRY, _TRY_MAX = 0.01, 0.25

_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
#: Releases the lease and, if it was still held, stores the entry, atomically. -1: the key holds something else.
_PUBLISH = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local old = redis.pcall('HMGET', KEYS[1], 'status', 'headers', 'body', 'error')
local is_ours = not old.err and old[1] and old[2] and old[3] and old[4]
if not is_ours and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[2])
  return -1
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'headers', ARGV[4], 'body', ARGV[5], 'error', ARGV[6])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


@dataclass(frozen=True)
class Settings:
    """Settings of a registration; see `redgrease.recipes.cache_get.on`."""

    expiry: float = 3600.0
    timeout: float = 30.0
    max_bytes: int = 16 << 20
    negative_expiry: float = 10.0
    sliding: bool = False
    full: bool = False
    strict: bool = False
    hosts: tuple[str, ...] = ()
    prefix: str = "cache_get:"
    lease: float = 5.0
    max_downloads: int = 32

    def __post_init__(self) -> None:
        _within("expiry", self.expiry, 0.001, EXPIRY_MAX)
        _within("timeout", self.timeout, 0.001, TIMEOUT_MAX)
        _within("negative_expiry", self.negative_expiry, 0, EXPIRY_MAX)
        _within("max_bytes", self.max_bytes, 0, 256 << 20)
        _within("lease", self.lease, 0.1, TIMEOUT_MAX)
        _within("max_downloads", self.max_downloads, 1, 1024)
        if not all(isinstance(host, str) and host for host in self.hosts):
            raise ValueError(f"hosts are names of hosts, such as '*.example.org', not {self.hosts!r}")
        if not self.prefix or set("{}") & set(self.prefix):
            raise ValueError(f"prefix is the beginning of keys, without braces, not {self.prefix!r}")

    @classmethod
    def loads(cls, text: str) -> Settings:
        """Load settings that `dumps` wrote; unknown ones are ignored."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in json.loads(text).items() if name in known}
        return cls(**{**given, "hosts": tuple(given.get("hosts", ()))})

    def dumps(self) -> str:
        """Serialize the settings."""
        return json.dumps(asdict(self))


def _within(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} is a number from {least:g} to {most:g}, not {value!r}")


def foreign(key: str) -> str:
    """Error text for a key that holds something else."""
    return (
        f"{shown(key)} is not a resource of this cache, and is not changed: delete it, or register with another prefix"
    )


def key_of(url: str, prefix: str = Settings.prefix) -> str:
    """Key of the resource at `url`. On a cluster it decides which shard gets the request."""
    return f"{prefix}{{{url}}}"


# --------------------------------------------------------------------------------------------------------------
# One request
# --------------------------------------------------------------------------------------------------------------


_settings = functools.lru_cache(Settings.loads)


def serve(options: str, *arguments: Any) -> Any:
    """Answer one request; called by the registered command.

    Args:
        options: serialized settings of the registration.
        arguments: the URL and, if given and not empty, expiry and timeout in seconds.
    """
    settings = _settings(options)
    try:
        if arguments == (STATISTICS,):
            return _statistics()
        url, expiry, timeout = _arguments(settings, *arguments)
        entry, outcome = _get_or_create(settings, url, expiry, timeout)
        _count(outcome, entry)
        if not settings.full:
            if entry.error and settings.strict:
                raise Refused(*entry.error.split(" ", 1))
            return b"" if entry.error else entry.body
        own = {f"{OWN_HEADERS}cache": outcome}
        if entry.error:
            own[f"{OWN_HEADERS}error"] = entry.error
        return entry.status, {**entry.headers, **own}, entry.body
    except Refused as refused:
        _flat_error(f"{CODE} {refused}")


def _arguments(settings: Settings, *arguments: Any) -> tuple[str, float, float]:
    if not 1 <= len(arguments) <= 3:
        raise Refused("argument", f"needed are a URL and at most expiry and timeout, not {len(arguments)} arguments")
    url, expiry, timeout = (*arguments, "", "")[:3]
    return (
        check_url(url, settings.hosts),
        _seconds("expiry", expiry, settings.expiry, EXPIRY_MAX),
        _seconds("timeout", timeout, settings.timeout, TIMEOUT_MAX),
    )


def _seconds(name: str, text: Any, default: float, most: float) -> float:
    if text in ("", b"", None):
        return default
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0.001 <= seconds <= most:
        raise Refused("argument", f"{name} is a number of seconds from 0.001 to {most}, not {shown(text)}")
    return seconds


def _get_or_create(settings: Settings, url: str, expiry: float, timeout: float) -> tuple[Entry, str]:
    began = time.monotonic()
    key = key_of(url, settings.prefix)
    entry, outcome = _read(key), "hit"
    if entry is None:
        # A download gets at least the time that the registration allows: a client's shorter timeout does not fail it.
        flight, own = _Flight.join(settings, key, url, expiry, began + max(timeout, settings.timeout))
        entry = flight.wait(began + timeout)
        outcome = "created" if own and flight.downloaded else "waited"
        if entry is None:
            return Entry(error=f"timeout {shown(url)} is still being downloaded after {timeout:g} s"), outcome
    if settings.sliding and not entry.error and outcome != "created":
        runtime.execute("PEXPIRE", key, _milliseconds(expiry))
    return entry, outcome


# --------------------------------------------------------------------------------------------------------------
# Flights
# --------------------------------------------------------------------------------------------------------------


class _Flight:
    """One download that all requests for a resource in this worker share."""

    #: Active flights, by session and key.
    _all: ClassVar[dict[tuple[Any, str], _Flight]] = {}
    _guard = threading.Lock()

    def __init__(self, settings: Settings, session: Any, key: str, url: str, expiry: float, end: float) -> None:
        self.settings = settings
        self.session = session
        self.key = key
        self.url = url
        self.expiry = expiry
        self.end = end
        self.downloaded = False
        self._lease = f"{key}:lease"
        self._token = uuid.uuid4().hex
        self._landed = threading.Event()
        self._entry: Entry | None = None
        self._refused: Refused | None = None

    @classmethod
    def join(cls, settings: Settings, key: str, url: str, expiry: float, end: float) -> tuple[_Flight, bool]:
        """The flight for a resource, and whether it began with this call, to last until the time `end`."""
        session = _session()
        with cls._guard:
            flight = cls._all.get((session, key))
            if flight is not None:
                return flight, False
            busy = max(len(cls._all), Download.alive)
            if busy >= settings.max_downloads:
                raise Refused("busy", f"{busy} downloads are under way, and the limit is {settings.max_downloads}")
            flight = cls(settings, session, key, url, expiry, end)
            try:
                cls._all[session, key] = flight
                threading.Thread(target=flight._run, name="cache_get flight", daemon=True).start()
            except BaseException:  # such as an abort: no request may wait for a flight that did not start
                cls._all.pop((session, key), None)
                raise
            return flight, True

    @classmethod
    def count(cls, session: Any) -> int:
        """Number of active flights of a session."""
        with cls._guard:
            return sum(owner is session for owner, _ in cls._all)

    def wait(self, end: float) -> Entry | None:
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

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        began = time.monotonic()
        entry = Entry(error=f"broken {shown(self.url)} was given up")
        try:
            _native("setGearsSession")(self.session)
            entry = self._obtain(self.end)
        except Refused as refused:
            self._refused = refused
        except Exception as error:  # such as a registration that was removed meanwhile
            entry = replace(entry, error=f"{entry.error}: {error}")
        finally:
            self._leave()
            self._entry = entry
            self._landed.set()
        self._log(entry, time.monotonic() - began)

    def _leave(self) -> None:
        """Accept no further requests: the next one starts another flight."""
        with self._guard:
            if self._all.get((self.session, self.key)) is self:
                del self._all[self.session, self.key]

    def _obtain(self, end: float) -> Entry:
        pause = _TRY
        while not self._take_lease():
            if time.monotonic() >= end:
                return Entry(error=f"timeout {shown(self.url)} is still being downloaded elsewhere")
            if str(runtime.execute("PTTL", self._lease)) == "-1":  # a lease has a time to live
                raise Refused("key", foreign(self._lease))
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, end - time.monotonic())))
            pause = min(2 * pause, _TRY_MAX)
            entry = _read(self.key)
            if entry is not None:
                return entry
        try:
            # It may have been stored between the first look-up and the lease.
            entry = _read(self.key)
            if entry is not None:
                return entry
            self.downloaded = True
            entry = self._download(end)
            keep = self.settings.negative_expiry if entry.error else self.expiry
            if keep:
                self._publish(entry, keep)
            else:
                self._leave()
            return entry
        finally:
            runtime.execute("EVAL", _RELEASE, "1", self._lease, self._token)

    def _take_lease(self) -> bool:
        life = _milliseconds(self.settings.lease)
        try:
            return runtime.execute("SET", self._lease, self._token, "NX", "PX", life) is not None
        except _gears_error() as error:
            if not str(error).startswith("OOM"):
                raise
            # It cannot be stored, but waiting requests get it.
            runtime.log(f"cache_get: {_place(self.url)} is not kept: {error}", level="warning")
            return True

    def _download(self, end: float) -> Entry:
        """Download, and renew the lease meanwhile."""
        settings = self.settings
        seconds = max(0.001, end - time.monotonic())
        download = Download(self.url, settings.max_bytes, settings.hosts, seconds).start()
        try:
            while not download.done.wait(max(0.0, min(settings.lease / 3, end - time.monotonic()))):
                if time.monotonic() >= end:
                    return Entry(error=f"timeout {shown(self.url)} was given up after {span(seconds)}")
                runtime.execute("EVAL", _RENEW, "1", self._lease, self._token, _milliseconds(settings.lease))
            return download.entry
        finally:
            download.cancel()

    def _publish(self, entry: Entry, seconds: float) -> None:
        """Store an entry, unless the lease is lost: then another worker stores a newer one."""
        content = (str(entry.status), json.dumps(entry.headers), entry.body, entry.error)
        try:
            life = _milliseconds(seconds)
            published = runtime.execute("EVAL", _PUBLISH, "2", self.key, self._lease, self._token, life, *content)
            if str(published) == "-1":
                runtime.log(f"cache_get: {_place(self.url)} is not kept: {foreign(self.key)}", level="warning")
        except _gears_error() as error:  # such as full memory: waiting requests get the entry anyway
            runtime.log(f"cache_get: {_place(self.url)} is not kept: {error}", level="warning")

    def _log(self, entry: Entry, seconds: float) -> None:
        if not self.downloaded:
            return
        what = f"failed ({entry.error.split(' ', 1)[0]})" if entry.error else f"{len(entry.body)} bytes"
        with contextlib.suppress(Exception):  # the session may have ended
            runtime.log(
                f"cache_get: {_place(self.url)}: {what}, status {entry.status}, {seconds * 1000:.0f} ms",
                level="notice" if entry.error else "verbose",
            )


# --------------------------------------------------------------------------------------------------------------
# The database
# --------------------------------------------------------------------------------------------------------------


def _read(key: str) -> Entry | None:
    """The entry at a key; `None` if there is none.

    Raises:
        Refused: the key holds something else.
    """
    # Twice: it may have been stored between the two look-ups.
    for _ in range(2):
        try:
            values = runtime.execute("HMGET", key, *FIELDS)
        except _gears_error() as refusal:
            if "non local key" in str(refusal):
                _moved(key)
            if "WRONGTYPE" in str(refusal):
                raise Refused("key", foreign(key)) from None
            raise
        if None not in values:
            return _entry(key, *values)
        if str(runtime.execute("EXISTS", key)) != "1":
            return None
    raise Refused("key", foreign(key))


def _entry(key: str, status: Any, headers: Any, body: Any, error: Any) -> Entry:
    with contextlib.suppress(ValueError):  # also for invalid text
        found = Entry(int(status), json.loads(_bytes(headers)), _bytes(body), _bytes(error).decode())
        if isinstance(found.headers, dict):
            return found
    raise Refused("key", foreign(key))


def _moved(key: str) -> NoReturn:
    """Redirect a client of a cluster to the owner of a key, with the cluster's error replies."""
    slot = runtime.execute("CLUSTER", "KEYSLOT", key)
    for first, last, owner, *_ in runtime.execute("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            host, port, node = owner[:3]
            if node == runtime.execute("CLUSTER", "MYID"):
                _flat_error(f"TRYAGAIN slot {slot} is just being moved")
            _flat_error(f"MOVED {slot} {host or ''}:{port}")
    _flat_error(f"CLUSTERDOWN slot {slot} is not served")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _place(url: str) -> str:
    """A URL for the log: without its query, which often contains secrets."""
    return shown(url.partition("?")[0])


# --------------------------------------------------------------------------------------------------------------
# The worker
# --------------------------------------------------------------------------------------------------------------


#: Counts of outcomes, by session.
_counts: dict[Any, Counter[str]] = {}
_counting = threading.Lock()


def _count(outcome: str, entry: Entry) -> None:
    with _counting:
        _counts_here().update([outcome, "failed"] if entry.error else [outcome])


def _counts_here() -> Counter[str]:
    return _counts.setdefault(_session(), Counter(hit=0, created=0, waited=0, failed=0))


def _statistics() -> dict[str, int]:
    with _counting:
        counts = dict(_counts_here())
    return {**counts, "under_way": _Flight.count(_session())}


def _native(name: str) -> Any:
    return getattr(sys.modules["redisgears"], name)


def _session() -> Any:
    return _native("getGearsSession")()


def _gears_error() -> Any:
    return _native("GearsError")


def _flat_error(text: str) -> NoReturn:
    raise _native("GearsFlatError")(text)
