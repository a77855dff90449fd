"""Clients: redis-py's own, with the commands of the engine under ``.gears``.

>>> import redgrease
>>> r = redgrease.RedisGears()                                      # doctest: +SKIP
>>> r.set("Foo-fighter", 2021)                                      # doctest: +SKIP
>>> redgrease.KeysReader("*-fighter").values().map(int).run(on=r)   # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from . import utils
from .engine import ExecutionID, Gears, RegistrationID, SessionID, TriggerProxy, gears_of, module_fields
from .exchange import Exchange, Request

__all__ = [
    "ExecutionID",
    "Gears",
    "Redis",
    "RedisCluster",
    "RedisGears",
    "RedisGearsModule",
    "RedisMods",
    "RedisModules",
    "RegistrationID",
    "SessionID",
    "TriggerProxy",
    "gears_of",
]

_R = TypeVar("_R", bound="Redis")


class RedisGearsModule:
    """Adds the commands of the engine to a client."""

    @property
    def gears(self) -> Gears:
        """Commands of the engine."""
        gears: Gears | None = self.__dict__.get("_gears")
        if gears is None:
            gears = self.__dict__["_gears"] = Gears(self)
        return gears

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection cannot be pickled: use redgrease.cmd inside functions")


class RedisModules(RedisGearsModule):
    """Adds commands of modules to a client."""

    def module_list(self) -> list[dict[str, str]]:
        """Modules loaded by the server, as dicts of texts."""
        return self.gears._run(module_list())


class Redis(RedisModules, redis.Redis):
    """Client of a server: redis-py's, with ``.gears``.

    Takes the arguments of `redis.Redis`. Without ``socket_timeout`` (seconds) the client waits for a reply without
    limit: the server limits the run time of functions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) < 5:
            kwargs.setdefault("socket_timeout", None)
        super().__init__(*args, **modern(kwargs))

    @classmethod
    def from_url(cls: type[_R], url: str, **kwargs: Any) -> _R:
        """The client for a URL such as ``"redis://user:secret@host:6379/0"``; other arguments as in the constructor."""
        kwargs.setdefault("socket_timeout", None)
        client: _R = super().from_url(url, **modern(kwargs))  # type: ignore[assignment]
        return client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {place_of(self)}>"


class RedisCluster(RedisModules, redis.cluster.RedisCluster):
    """Client of a cluster: redis-py's, with ``.gears``.

    Takes the arguments of `redis.cluster.RedisCluster`; as for `Redis`, there is no ``socket_timeout`` by default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("socket_timeout", None)
        nodes = kwargs.get("startup_nodes")
        if nodes is not None:
            kwargs["startup_nodes"] = [_node(node) for node in nodes]
        super().__init__(*args, **modern(kwargs))


def _node(node: Any) -> redis.cluster.ClusterNode:
    if isinstance(node, Mapping):
        return redis.cluster.ClusterNode(node["host"], int(node["port"]))  # type: ignore[no-untyped-call]
    return node  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------------------
# Detection
# --------------------------------------------------------------------------------------------------------------


class Either(type):
    """Metaclass of factories: instances of the clients that a factory makes are instances of the factory."""

    clients: tuple[type, ...] = ()

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.clients)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.clients)


if TYPE_CHECKING:
    RedisMods = Redis
else:

    class RedisMods(metaclass=Either):
        """Client of a server or of a cluster: creates a `Redis` or a `RedisCluster`.

        The constructor asks the server once which of the two it is. If the server cannot be reached, the result is a
        `Redis`, and the first command raises the error. As a type it stands for both.

        Args:
            host: default ``"localhost"``. Any node of a cluster works.
            port: default 6379.
            kwargs: arguments of either client; arguments that are `None` are left out. With ``unix_socket_path``,
                ``connection_pool`` or another ``db`` than 0 it is always a `Redis`.

        >>> r = RedisGears(port=30001)     # doctest: +SKIP
        >>> r.gears.pystats()              # doctest: +SKIP
        PyStats(TotalAllocated=41275404, PeakAllocated=11867779, CurrAllocated=11786368)
        """

        clients = (Redis, RedisCluster)

        def __new__(cls, host: str | None = None, port: int | None = None, **kwargs: Any) -> Any:  # noqa: D102 - see above
            given = Arguments.of(host, port, kwargs)
            for probe in given.probes():
                answer = _asks_cluster(lambda options: Redis(**options), probe)
                if answer:
                    return RedisCluster(host=probe["host"], port=probe["port"], **given.cluster)
                if answer is not None:
                    break
            return Redis(**given.single)

        @classmethod
        def from_url(cls, url: str, **kwargs: Any) -> Any:
            """The client for a URL such as ``"redis://user:secret@host:6379"``; further arguments as in `Redis`."""
            client = Redis.from_url(url, **kwargs)
            if may_be_cluster(client) and _asks_cluster(lambda options: Redis.from_url(url, **options), kwargs):
                client.close()
                return RedisCluster.from_url(url, **kwargs)
            return client


RedisGears = RedisMods
"""The usual name of the factory."""


def _asks_cluster(make: Callable[[dict[str, Any]], Redis], options: dict[str, Any]) -> bool | None:
    """Ask a server on one short-lived connection, without retries; `None` if it does not answer."""
    with make(probing(options, Retry(NoBackoff(), 0))) as probe:
        try:
            return is_enabled(probe.info("cluster"))
        except (RedisError, OSError):
            return None


# -- shared with the clients of `redgrease.asyncio` --

#: Arguments that only one of the two clients takes.
_CLUSTER_ONLY = frozenset(
    (
        "startup_nodes",
        "cluster_error_retry_attempts",
        "require_full_coverage",
        "reinitialize_steps",
        "read_from_replicas",
        "load_balancing_strategy",
        "dynamic_startup_nodes",
        "address_remap",
        "policy_resolver",
    )
)
_SINGLE_ONLY = frozenset(("db", "unix_socket_path", "connection_pool", "single_connection_client"))
#: Arguments of the cluster client of older redis-py; they no longer have a meaning.
_FORGOTTEN = frozenset(
    (
        "max_connections_per_node",
        "init_slot_cache",
        "readonly_mode",
        "skip_full_coverage_check",
        "nodemanager_follow_cluster",
        "connection_class",
        "cluster_down_retry_attempts",
        "host_port_remap",
    )
)


class Arguments(NamedTuple):
    """Arguments of a factory, for either client.

    Attributes:
        single: those of the client of a server.
        cluster: those of the client of a cluster, without host and port.
        places: host and port of servers that may be part of a cluster.
    """

    single: dict[str, Any]
    cluster: dict[str, Any]
    places: list[tuple[str, int]]

    @classmethod
    def of(cls, host: str | None, port: Any, kwargs: dict[str, Any]) -> Arguments:
        """Sort arguments; those that are `None` are left out."""
        given = modern({name: value for name, value in kwargs.items() if value is not None and name not in _FORGOTTEN})
        single = {name: value for name, value in given.items() if name not in _CLUSTER_ONLY}
        cluster = {name: value for name, value in given.items() if name not in _SINGLE_ONLY}
        if "connection_pool" in given or "unix_socket_path" in given:
            return cls(single, cluster, [])
        places = [(host or "localhost", 6379 if port is None else int(port))]
        if host is None and port is None and given.get("startup_nodes"):
            places = [_place(node) for node in given["startup_nodes"]]
        single["host"], single["port"] = places[0]
        return cls(single, cluster, [] if given.get("db") else places)

    def probes(self) -> Iterator[dict[str, Any]]:
        """Arguments of clients that ask each of the places."""
        for host, port in self.places:
            yield {**self.single, "host": host, "port": port}


def __getattr__(name: str) -> Any:
    # Scripts that RedGrease had as constants of this module.
    scripts = {
        "get_python_version": "GB('ShardsIDReader').map(lambda _: __import__('sys').version).run()",
        "get_gears_version": "GB('ShardsIDReader').flatmap(lambda _: execute('MODULE', 'LIST')).run()",
    }
    if name in scripts:
        warnings.warn(
            f"{__name__}.{name} will be removed: use the methods python_version and gears_version of redgrease.Gears",
            DeprecationWarning,
            stacklevel=2,
        )
        return scripts[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _place(node: Any) -> tuple[str, int]:
    if isinstance(node, Mapping):
        return node["host"], int(node["port"])
    return node.host, int(node.port)


def modern(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of older redis-py under their current names; changes the dict."""
    for old, new in (("charset", "encoding"), ("errors", "encoding_errors")):
        if kwargs.get(old) is not None:
            kwargs.setdefault(new, kwargs[old])
        kwargs.pop(old, None)
    return kwargs


def probing(options: dict[str, Any], retry: Any) -> dict[str, Any]:
    """Arguments of a client for one question."""
    options = {**options, "retry": retry, "single_connection_client": False, "max_connections": 1}
    for name in ("socket_connect_timeout", "socket_timeout"):
        if options.get(name) is None:
            options[name] = 5
    return options


def may_be_cluster(client: Any) -> bool:
    """Whether a client of a server, made from a URL, may be that of a node of a cluster."""
    options = client.connection_pool.connection_kwargs
    return not options.get("db") and not options.get("path")


def is_enabled(info: Any) -> bool:
    """Whether the section "cluster" of INFO is that of a node of a cluster."""
    return int(info.get("cluster_enabled", 0)) == 1


def place_of(client: Any) -> str:
    """Host, port and database of a client, for people."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}, db {options.get('db', 0)}"


def module_list() -> Exchange[list[dict[str, str]]]:
    """MODULE LIST."""
    reply = yield Request(("MODULE LIST",))
    return [{name: utils.safe_str(value) for name, value in module.items()} for module in module_fields(reply)]
