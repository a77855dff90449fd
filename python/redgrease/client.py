"""Clients: redis-py's own, with the commands of the engine under ``.gears``.

>>> import redgrease
>>> r = redgrease.RedisGears()                                      # doctest: +SKIP
>>> r.set("Foo-fighter", 2021)                                      # doctest: +SKIP
>>> redgrease.KeysReader("*-fighter").values().map(int).run(on=r)   # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from typing import Any

import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from . import utils
from .engine import ExecutionID, Gears, RegistrationID, TriggerProxy, gears_of, module_fields
from .link import Link

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
    "TriggerProxy",
    "gears_of",
]


class RedisGearsModule:
    """Adds the commands of the engine to a client."""

    @property
    def gears(self) -> Gears:
        """Commands of the engine."""
        gears: Gears | None = self.__dict__.get("_gears")
        if gears is None:
            gears = self.__dict__["_gears"] = Gears(self)
        return gears

    def __reduce__(self) -> Any:
        raise TypeError("a connection cannot be pickled: use redgrease.cmd inside functions")


class RedisModules(RedisGearsModule):
    """Adds commands of modules to a client."""

    def module_list(self) -> list[dict[str, str]]:
        """Modules loaded by the server, as dicts of texts."""
        modules = module_fields(Link(self).ask("MODULE LIST"))
        return [{name: utils.safe_str(value) for name, value in module.items()} for module in modules]


def _modern(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of older redis-py under their current names, without a client-side time limit for functions."""
    for old, new in (("charset", "encoding"), ("errors", "encoding_errors")):
        if kwargs.get(old) is not None:
            kwargs.setdefault(new, kwargs[old])
        kwargs.pop(old, None)
    return kwargs


class Redis(RedisModules, redis.Redis):
    """Client of a server: redis-py's, with ``.gears``.

    Takes the arguments of `redis.Redis`. Without ``socket_timeout`` (seconds) the client waits for a reply without
    limit: the server limits the run time of functions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _modern(kwargs)
        if len(args) < 5:
            kwargs.setdefault("socket_timeout", None)
        super().__init__(*args, **kwargs)

    def __repr__(self) -> str:
        options = self.connection_pool.connection_kwargs
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        return f"<{type(self).__name__} {place}, db {options.get('db', 0)}>"


class RedisCluster(RedisModules, redis.cluster.RedisCluster):
    """Client of a cluster: redis-py's, with ``.gears``.

    Takes the arguments of `redis.cluster.RedisCluster`; as for `Redis`, there is no ``socket_timeout`` by default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _modern(kwargs)
        kwargs.setdefault("socket_timeout", None)
        nodes = kwargs.get("startup_nodes")
        if nodes is not None:
            kwargs["startup_nodes"] = [_node(node) for node in nodes]
        super().__init__(*args, **kwargs)


def _node(node: Any) -> redis.cluster.ClusterNode:
    if isinstance(node, dict):
        return redis.cluster.ClusterNode(node["host"], int(node["port"]))  # type: ignore[no-untyped-call]
    return node  # type: ignore[no-any-return]


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


class _Either(type):
    """Instances of either client are instances of the factory."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (Redis, RedisCluster))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, (Redis, RedisCluster))


class RedisMods(metaclass=_Either):
    """Client of a server or of a cluster: creates a `Redis` or a `RedisCluster`.

    The constructor asks the server once which of the two it is. If the server cannot be reached, the result is a
    `Redis`, and the first command raises the error.

    Args:
        host: default ``"localhost"``. Any node of a cluster works.
        port: default 6379.
        kwargs: arguments of either client; arguments that are `None` are left out. With ``unix_socket_path``,
            ``connection_pool`` or another ``db`` than 0 it is always a `Redis`.

    >>> r = RedisGears(port=30001)     # doctest: +SKIP
    >>> r.gears.pystats()              # doctest: +SKIP
    PyStats(TotalAllocated=41275404, PeakAllocated=11867779, CurrAllocated=11786368)
    """

    def __new__(cls, host: str | None = None, port: int | None = None, **kwargs: Any) -> Any:  # noqa: D102 - see the class
        given = {name: value for name, value in kwargs.items() if value is not None and name not in _FORGOTTEN}
        _modern(given)
        if host is None and port is None and given.get("startup_nodes"):
            first = _node(given["startup_nodes"][0])
            host, port = first.host, first.port
        single = {name: value for name, value in given.items() if name not in _CLUSTER_ONLY}
        if "connection_pool" not in given and "unix_socket_path" not in given:
            single["host"] = host or "localhost"
            single["port"] = 6379 if port is None else int(port)
            if not given.get("db") and _is_cluster(single):
                both = {name: value for name, value in given.items() if name not in _SINGLE_ONLY}
                return RedisCluster(host=single["host"], port=single["port"], **both)
        return Redis(**single)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Any:
        """The client for a URL such as ``"redis://user:secret@host:6379"``."""
        client = Redis.from_url(url, **kwargs)
        if not client.connection_pool.connection_kwargs.get("db") and _asks_cluster(client):
            client.close()
            return RedisCluster.from_url(url, **kwargs)
        return client


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


RedisGears = RedisMods
"""The usual name of the factory."""


def _is_cluster(arguments: dict[str, Any]) -> bool:
    """Ask the server on one short-lived connection, without retries."""
    options = {**arguments, "retry": Retry(NoBackoff(), 0), "single_connection_client": False, "max_connections": 1}
    options.setdefault("socket_connect_timeout", 5)
    if options.get("socket_timeout") is None:
        options["socket_timeout"] = 5
    with Redis(**options) as probe:
        return _asks_cluster(probe)


def _asks_cluster(client: Any) -> bool:
    try:
        return int(client.info("cluster").get("cluster_enabled", 0)) == 1
    except (RedisError, OSError):
        return False
