"""Options of the engine, as attributes and as a dict.

>>> gears.config.MaxExecutions = 500            # doctest: +SKIP
>>> gears.config.get("MaxExecutions")           # doctest: +SKIP
{'MaxExecutions': 500}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Generic, TypeVar, overload

from redis.exceptions import ResponseError

from .exchange import Exchange, Request, Shards
from .link import Link
from .utils import CaseInsensitiveDict, bool_ok, safe_bool, safe_str, to_redis_type, transform

T = TypeVar("T")

__all__ = ["Config", "get_option", "get_options", "set_options"]


class _Option(Generic[T]):
    """An option of the engine as an attribute of `Config`."""

    def __init__(self, kind: Callable[[Any], T], settable: bool, doc: str) -> None:
        self.kind, self.settable, self.__doc__ = kind, settable, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, config: None, owner: type) -> _Option[T]: ...
    @overload
    def __get__(self, config: Config, owner: type) -> T: ...
    def __get__(self, config: Config | None, owner: type) -> Any:
        return self if config is None else config.get_single(self.name)

    def __set__(self, config: Config, value: T) -> None:
        if not self.settable:
            raise AttributeError(f"option {self.name} cannot be changed while the server runs")
        config.set({self.name: value})


class Config:
    """Options of the engine. On a cluster they are read from any shard, and set on all.

    Options of redgrease that RedisGears does not have can be read and set by name, with `get` and `set`.

    Args:
        redis: a client of redis-py or valkey-py, or a `redgrease.link.Link`.
    """

    _link: Link
    redis: Any

    MaxExecutions = _Option(int, True, "Number of finished executions that are kept.")
    MaxExecutionsPerRegistration = _Option(
        int, True, "Number of finished executions that are kept for each registration."
    )
    ProfileExecutions = _Option(safe_bool, True, "Whether the steps of executions are timed.")
    PythonAttemptTraceback = _Option(safe_bool, True, "Whether errors include a traceback.")
    DownloadDeps = _Option(safe_bool, False, "Whether dependencies are downloaded.")
    DependenciesUrl = _Option(safe_str, False, "Address of the dependencies.")
    DependenciesSha256 = _Option(safe_str, False, "Checksum of downloaded dependencies.")
    PythonInstallationDir = _Option(safe_str, False, "Directory of the interpreter.")
    CreateVenv = _Option(safe_bool, False, "Whether there is a virtual environment per server.")
    ExecutionThreads = _Option(int, False, "Number of executions that run at the same time.")
    ExecutionMaxIdleTime = _Option(int, True, "Milliseconds without progress after which an execution is aborted.")
    PythonInstallReqMaxIdleTime = _Option(
        int, True, "Milliseconds without progress after which an installation of requirements is aborted."
    )
    SendMsgRetries = _Option(int, True, "Number of retries of a message to a shard; 0: no limit.")

    def __init__(self, redis: Any) -> None:
        link = redis if isinstance(redis, Link) else Link(redis)
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "redis", link.redis)

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(getattr(type(self), name, None), _Option):
            raise AttributeError(f"there is no option {name!r}; set options of your own with set()")
        object.__setattr__(self, name, value)

    def get(self, *names: str | bytes) -> dict[str, Any]:
        """Values of options by name; without names, of all known options.

        The value of a name that the server does not know is a `redis.exceptions.ResponseError` (not raised). Names
        are case-sensitive.
        """
        return self._link.run(get_options(names))

    def get_single(self, name: str | bytes) -> Any:
        """Value of one option.

        Raises:
            KeyError: the server does not know it.
        """
        return self._link.run(get_option(name))

    def set(self, config_dict: Mapping[Any, Any] | None = None, **options: Any) -> bool:
        """Set options; return whether all were accepted. Names that the engine does not know are kept for users.

        Raises:
            redis.exceptions.DataError: a name is not text.
        """
        return self._link.run(set_options({**(config_dict or {}), **options}))

    def __repr__(self) -> str:
        return f"<Config of {self.redis!r}>"


def get_options(names: tuple[str | bytes, ...]) -> Exchange[dict[str, Any]]:
    """RG.CONFIGGET."""
    asked: tuple[str | bytes, ...] = names or tuple(_KINDS_BY_NAME)
    reply = yield Request(("RG.CONFIGGET", *asked))
    found = {}
    for name, value in zip(map(safe_str, asked), reply):
        found[name] = value if isinstance(value, Exception) else transform(value, _KINDS.get(name))
    return found


def get_option(name: str | bytes) -> Exchange[Any]:
    """RG.CONFIGGET of one option."""
    if not isinstance(name, (str, bytes)):
        raise KeyError(name)
    found = yield from get_options((name,))
    value = found[safe_str(name)]
    if isinstance(value, Exception):
        raise KeyError(safe_str(name)) from value
    return value


def set_options(options: Mapping[Any, Any]) -> Exchange[bool]:
    """RG.CONFIGSET on all shards."""
    flat: list[Any] = []
    for name, value in options.items():
        flat += (name, to_redis_type(value))
    if not flat:
        return True
    replies = yield Request(("RG.CONFIGSET", *flat), Shards.ALL)
    return all(not isinstance(each, ResponseError) and bool_ok(each) for reply in replies.values() for each in reply)


_KINDS_BY_NAME = {name: option.kind for name, option in vars(Config).items() if isinstance(option, _Option)}
_KINDS = CaseInsensitiveDict(_KINDS_BY_NAME)
