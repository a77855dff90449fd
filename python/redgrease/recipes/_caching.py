"""The server side of `cache_get`: what a resource is, as flights of `redgrease.caching` make and keep it.

Needs no other package.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..caching import store
from ..caching.flights import Counts, Flight, Terms
from ..caching.messages import Refused, shown
from ..caching.settings import EXPIRY_MAX, TIMEOUT_MAX, within
from ._download import OWN_HEADERS, Download, Entry, check_url

__all__ = ["CODE", "FIELDS", "STATISTICS", "Settings", "foreign", "key_of", "serve"]

CODE = "CACHEGET"
"""First word of error replies."""
STATISTICS = "stats"
"""Argument that requests the statistics of this worker instead of a URL."""
_NAME = "cache_get"
FIELDS = ("status", "headers", "body", "error")
"""The fields of the hash that stores a resource."""


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
        within("expiry", self.expiry, 0.001, EXPIRY_MAX)
        within("timeout", self.timeout, 0.001, TIMEOUT_MAX)
        within("negative_expiry", self.negative_expiry, 0, EXPIRY_MAX)
        within("max_bytes", self.max_bytes, 0, 256 << 20)
        within("lease", self.lease, 0.1, TIMEOUT_MAX)
        within("max_downloads", self.max_downloads, 1, 1024)
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


def foreign(key: str) -> str:
    """Error text for a key that holds something else."""
    return store.foreign(key, _Flight.what, _Flight.option)


def key_of(url: str, prefix: str = Settings.prefix) -> str:
    """Key of the resource at `url`. On a cluster it decides which shard gets the request."""
    return f"{prefix}{{{url}}}"


_settings = functools.lru_cache(Settings.loads)
_counts = Counts("hit", "created", "waited", "failed")


def serve(options: str, *arguments: Any) -> Any:
    """Answer one request; called by the registered command.

    Args:
        options: serialized settings of the registration.
        arguments: the URL and, if given and not empty, expiry and timeout in seconds.
    """
    settings = _settings(options)
    try:
        if arguments == (STATISTICS,):
            return {**_counts.here(), "under_way": _Flight.count(store.session(), _NAME)}
        url, expiry, timeout = _arguments(settings, *arguments)
        entry, outcome = _get_or_create(settings, url, expiry, timeout)
        _counts.add(*([outcome, "failed"] if entry.error else [outcome]))
        if not settings.full:
            if entry.error and settings.strict:
                raise Refused(*entry.error.split(" ", 1))
            return b"" if entry.error else entry.body
        own = {f"{OWN_HEADERS}cache": outcome}
        if entry.error:
            own[f"{OWN_HEADERS}error"] = entry.error
        return entry.status, {**entry.headers, **own}, entry.body
    except Refused as refused:
        store.flat_error(f"{CODE} {refused}")


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
    entry, outcome = _Flight.look(key), "hit"
    if entry is None:
        # A download gets at least the time that the registration allows: a client's shorter timeout does not fail it.
        end = began + max(timeout, settings.timeout)
        flight, own = _Flight.join(key, lambda: _Flight(settings, key, url, expiry, end))
        entry = flight.wait(began + timeout)
        outcome = "created" if own and flight.ran else "waited"
        if entry is None:
            return Entry(error=f"timeout {shown(url)} is still being downloaded after {timeout:g} s"), outcome
    if settings.sliding and not entry.error and outcome != "created":
        store.touch(key, expiry)
    return entry, outcome


class _Flight(Flight[Entry]):
    """One download that all requests for a resource in this worker share."""

    fields: ClassVar[tuple[str, ...]] = FIELDS
    what = "a resource"
    option = "prefix"
    doing = "being downloaded"
    many = "downloads"

    def __init__(self, settings: Settings, key: str, url: str, expiry: float, end: float) -> None:
        super().__init__(Terms(_NAME, settings.lease, settings.max_downloads), key, shown(url), end)
        self._settings = settings
        self._url = url
        self._expiry = expiry

    def _alive(self) -> int:
        return Download.alive

    @classmethod
    def _decode(cls, values: Sequence[Any]) -> Entry:
        status, headers, body, error = values
        entry = Entry(
            int(status), json.loads(store.as_bytes(headers)), store.as_bytes(body), store.as_bytes(error).decode()
        )
        if not isinstance(entry.headers, dict):
            raise ValueError(f"headers are not {entry.headers!r}")
        return entry

    def _encode(self, entry: Entry) -> dict[str, Any]:
        values = (str(entry.status), json.dumps(entry.headers), entry.body, entry.error)
        return dict(zip(FIELDS, values))

    def _failed(self, kind: str, text: str) -> Entry:
        return Entry(error=f"{kind} {text}")

    def _begin(self, seconds: float) -> Download:
        return Download(self._url, self._settings.max_bytes, self._settings.hosts, seconds).start()

    def _keep(self, entry: Entry) -> float:
        return self._settings.negative_expiry if entry.error else self._expiry

    def _described(self, entry: Entry) -> str:
        what = f"failed ({entry.error.split(' ', 1)[0]})" if entry.error else f"{len(entry.body)} bytes"
        return f"{what}, status {entry.status}"

    def _place(self) -> str:
        """The URL without its query, which often contains secrets."""
        return shown(self._url.partition("?")[0])
