"""A web cache as a command of the server: ``RG.TRIGGER cache_get URL`` returns the resource at a URL.

The first request for a resource downloads it and stores it in the database; later requests are served from there, and
concurrent requests wait for that download. All clients, in any language, share the cache.

>>> import redgrease
>>> from redgrease.recipes import cache_get
>>> r = redgrease.RedisGears()                               # doctest: +SKIP
>>> get = cache_get.on(r, expiry=600)                        # doctest: +SKIP
>>> logo = get("http://example.org/logo.png")                # doctest: +SKIP
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, overload

from redis.exceptions import ResponseError

from .. import utils
from ..caching import shards
from ..commands import Commands, ExecuteOptions
from ..engine import Gears, gears_of
from ..exceptions import DuplicateTriggerError
from ..exchange import Exchange, is_async
from ..reader import CommandReader
from ._caching import CODE, FIELDS, STATISTICS, Settings, foreign, key_of, serve
from ._download import OWN_HEADERS

if TYPE_CHECKING:
    from ..data import Registration

__all__ = ["CacheGet", "CacheGetError", "Response", "key_of", "on"]

_R = TypeVar("_R")
_DESCRIPTION = "redgrease.recipes.cache_get "


class CacheGetError(ResponseError):
    """The cache refused a request; with ``strict`` also: the resource is not available.

    Attributes:
        kind: one word: ``url``, ``host``, ``argument``, ``key`` (something else is stored at the key of the URL) or
            ``busy`` for requests that are refused; ``status``, ``timeout``, ``unreachable``, ``tls``, ``redirect``,
            ``too_large`` or ``broken`` for resources.
        text: a sentence.
    """

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text

    def __reduce__(self) -> Any:
        return type(self), (self.kind, self.text)


class Response(NamedTuple):
    """The response of the source, for commands registered with ``full=True``."""

    status: int
    """HTTP status; 0 if the source gave no valid response."""
    headers: dict[str, str]
    """Headers by lower-case name; those that begin with ``redgrease-`` are added by the cache."""
    body: bytes
    """The content, as received."""

    @property
    def ok(self) -> bool:
        """Whether the resource is available."""
        return not self.error

    @property
    def outcome(self) -> str:
        """``"hit"`` (from the cache), ``"created"`` (this request downloaded it) or ``"waited"`` (another one did)."""
        return self.headers.get(f"{OWN_HEADERS}cache", "")

    @property
    def error(self) -> str:
        """Why the resource is not available, kind first (see `CacheGetError`); ``""`` if it is."""
        return self.headers.get(f"{OWN_HEADERS}error", "")


class CacheGet(Generic[_R]):
    """The registered command; calling it returns a resource. Made by `on`.

    On a cluster each request goes to the shard that owns the key of its URL.

    Attributes:
        trigger: name of the command.
        settings: the settings of the registration.
    """

    def __init__(self, server: Any, trigger: str, settings: Settings) -> None:
        self._gears = _blocking(server)
        self._redis = self._gears._redis
        self.trigger = trigger
        self.settings = settings

    def __call__(self, url: str, expiry: float | None = None, timeout: float | None = None) -> _R:
        """Return the resource at `url`.

        Args:
            url: address of the resource, with ``http://`` or ``https://``.
            expiry: seconds that the resource is kept, if this request causes the download (with ``sliding``: always,
                from this request on). Default: that of the registration.
            timeout: seconds that this request may take after it has started; it may have to wait for a free thread
                before, see the option ``ExecutionThreads`` of the server. Default: that of the registration. A client
                with a shorter ``socket_timeout`` waits this long plus its own timeout (at least 5 s).

        Returns:
            The body as `bytes`, empty if the resource is not available; with ``full`` a `Response`.

        Raises:
            CacheGetError: the cache refused the request; with ``strict`` also: the resource is not available.
            redis.exceptions.ResponseError: the command is not registered (any more), or its worker died.
        """
        arguments = ("" if each is None else each for each in (expiry, timeout))
        result: _R = self._result(self._ask(self.key_of(url), timeout, url, *arguments))
        return result

    def key_of(self, url: str) -> str:
        """Key of the hash that stores the resource."""
        return key_of(utils.safe_str(url), self.settings.prefix)

    def forget(self, url: str) -> bool:
        """Remove a resource from the cache; return whether it was there.

        Raises:
            CacheGetError: its key holds something else, which is not changed.
        """
        key = self.key_of(url)
        try:
            found = {utils.safe_str(name) for name in self._redis.hkeys(key)}
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            found = {""}
        if not found:
            return False
        if not found.issuperset(FIELDS):
            raise CacheGetError("key", foreign(key))
        return bool(self._redis.unlink(key))

    def stats(self) -> dict[str, int]:
        """Counts of outcomes since the worker (on a cluster: each worker) started.

        ``hit``, ``created`` and ``waited`` (see `Response.outcome`) add up to all requests; ``failed``
        counts requests that did not get the resource. ``under_way`` is the number of current downloads.
        """
        return self._gears._run(shards.statistics(self._gears._commands, self.trigger, STATISTICS))

    def unregister(self) -> None:
        """Remove the command. Cached resources stay until they expire."""
        self._gears._run(shards.unregister(self._gears._commands, self.trigger))

    def __repr__(self) -> str:
        return f"<cache {self.trigger!r} on {self._redis!r}>"

    def _ask(self, key: str, timeout: float | None, *arguments: Any) -> Any:
        patience = self.settings.timeout if timeout is None else float(timeout)
        asking = shards.call(
            self._gears._commands, key, patience, self.trigger, *arguments, code=CODE, refused=CacheGetError
        )
        return self._gears._run(asking).records[0]

    def _result(self, record: Any) -> Any:
        if not self.settings.full:
            return utils.to_bytes(record)
        status, headers, body = record
        texts = {utils.safe_str(name): utils.safe_str(value) for name, value in utils.to_kwargs(headers).items()}
        return Response(int(status), texts, utils.to_bytes(body))


@overload
def on(
    server: Any,
    *,
    full: Literal[True],
    trigger: str = ...,
    expiry: float = ...,
    timeout: float = ...,
    max_bytes: int = ...,
    negative_expiry: float = ...,
    sliding: bool = ...,
    strict: bool = ...,
    hosts: str | Iterable[str] | None = ...,
    prefix: str = ...,
    lease: float = ...,
    max_downloads: int = ...,
    replace: bool | None = ...,
) -> CacheGet[Response]: ...


@overload
def on(
    server: Any,
    *,
    full: Literal[False] = ...,
    trigger: str = ...,
    expiry: float = ...,
    timeout: float = ...,
    max_bytes: int = ...,
    negative_expiry: float = ...,
    sliding: bool = ...,
    strict: bool = ...,
    hosts: str | Iterable[str] | None = ...,
    prefix: str = ...,
    lease: float = ...,
    max_downloads: int = ...,
    replace: bool | None = ...,
) -> CacheGet[bytes]: ...


def on(
    server: Any,
    *,
    trigger: str = "cache_get",
    expiry: float = Settings.expiry,
    timeout: float = Settings.timeout,
    max_bytes: int = Settings.max_bytes,
    negative_expiry: float = Settings.negative_expiry,
    sliding: bool = Settings.sliding,
    full: bool = Settings.full,
    strict: bool = Settings.strict,
    hosts: str | Iterable[str] | None = None,
    prefix: str = Settings.prefix,
    lease: float = Settings.lease,
    max_downloads: int = Settings.max_downloads,
    replace: bool | None = None,
) -> CacheGet[Any]:
    """Register the command on a server, or on all shards of a cluster. Repeating it changes nothing.

    Args:
        server: a `redgrease.RedisGears`, a `redgrease.Gears`, or any redis-py client, also one for a cluster.
        trigger: name of the command.
        expiry: seconds that a resource is kept.
        timeout: seconds that a request may take. A download gets this long, even if its client gives up before.
        max_bytes: maximum size of a resource; the download of a larger one is cancelled.
        negative_expiry: seconds that a failure (no response, or a status other than success) is kept; 0: not at all.
        sliding: whether each request restarts the expiry. Otherwise a resource is downloaded again at that age, however
            often it is requested.
        full: return ``(status, headers, body)`` instead of the body.
        strict: return an error instead of an empty body if the resource is not available.
        hosts: glob patterns of allowed host names, at least one; `None`: any host that the server can reach, including
            its own network.
        prefix: beginning of the names of keys. Registrations with the same prefix share their resources.
        lease: seconds after which a lease expires that is not renewed: how long a resource is blocked if its worker is
            killed during the download.
        max_downloads: maximum number of concurrent downloads of a worker; further ones are refused.
        replace: what to do if a command of that name is registered with other options: `None` raises, `False` keeps the
            old one, `True` replaces it.

    Returns:
        A callable that returns resources.

    Raises:
        ValueError: an option is out of its range, or a command of that name exists that is not a cache or has other
            options.
        redis.exceptions.ResponseError: this client may not register functions.
    """
    if not isinstance(trigger, str) or not trigger.strip():
        raise ValueError(f"trigger is the name of the command, such as 'cache_get', not {trigger!r}")
    settings = Settings(
        expiry=expiry,
        timeout=timeout,
        max_bytes=max_bytes,
        negative_expiry=negative_expiry,
        sliding=sliding,
        full=full,
        strict=strict,
        hosts=_hosts(hosts),
        prefix=prefix,
        lease=lease,
        max_downloads=max_downloads,
    )
    gears = _blocking(server)
    return CacheGet(gears, trigger, gears._run(_registering(gears._commands, trigger, settings, replace)))


def _blocking(server: Any) -> Gears:
    """The commands of a server argument.

    Raises:
        TypeError: it has coroutines.
    """
    gears: Gears = gears_of(server)
    if is_async(gears._redis):
        raise TypeError(
            "cache_get needs a client without coroutines: use redgrease.RedisGears, and in coroutines "
            "`await asyncio.to_thread(get, url)`"
        )
    return gears


def _hosts(hosts: str | Iterable[str] | None) -> tuple[str, ...]:
    """Hosts for `Settings`, where an empty list means any host: so an empty argument is refused."""
    if hosts is None:
        return Settings.hosts
    names = (hosts,) if isinstance(hosts, str) else tuple(hosts)
    if not names:
        raise ValueError(
            f"hosts is {hosts!r}, so no host is allowed; name hosts, such as '*.example.org', or leave it out to "
            "allow any host"
        )
    return names


def _registering(commands: Commands, trigger: str, settings: Settings, replace: bool | None) -> Exchange[Settings]:
    """Register; return the settings that are registered now."""
    options = settings.dumps()
    function = (
        CommandReader(desc=_DESCRIPTION + options)
        .apply(functools.partial(serve, options))
        .register(trigger=trigger, mode="async_local")
    )
    if replace:
        yield from commands.pyexecute(function, ExecuteOptions(replace=True))
        return settings
    there = yield from _registrations(commands, trigger)
    if not there:
        try:
            yield from commands.pyexecute(function, ExecuteOptions())
        except DuplicateTriggerError:  # another client was faster
            there = yield from _registrations(commands, trigger)
        else:
            return settings
    known = _described(there[0]) if there else None
    if known is None:
        raise ValueError(
            f"a command {trigger!r} exists, and it is not a cache; use replace=True to replace it, or "
            "give another trigger"
        )
    if replace is None and known != settings:
        raise ValueError(
            f"a cache {trigger!r} exists with other options ({_differences(known, settings)}); use replace=True to "
            "replace it, or replace=False to keep the old one"
        )
    return known


def _registrations(commands: Commands, trigger: str) -> Exchange[list[Registration]]:
    return commands.dumpregistrations(reader="CommandReader", trigger=trigger)


def _described(registration: Registration) -> Settings | None:
    """The settings of a registration; `None` if it is not one of this recipe."""
    text = utils.safe_str(registration.desc)
    if not text.startswith(_DESCRIPTION):
        return None
    try:
        return Settings.loads(text[len(_DESCRIPTION) :])
    except (ValueError, TypeError, AttributeError):
        return None


def _differences(known: Settings, wanted: Settings) -> str:
    there, here = asdict(known), asdict(wanted)
    return ", ".join(
        f"{name} is {there[name]!r} there, not {here[name]!r}" for name in there if there[name] != here[name]
    )
