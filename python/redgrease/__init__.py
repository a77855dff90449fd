"""Gear functions for Redis and Valkey: Python functions that run in the server, next to the data.

Importing this package is fast and needs only the standard library: each name is loaded on first use. The same package
is the client (it builds functions and sends them) and the runtime (it runs them in the server's workers). When a name
is used, the presence of the module ``redisgears``, which only workers have, decides which of the two it is.

>>> import redgrease
>>> redgrease.KeysReader("user:*").count()
KeysReader('user:*').count()
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0.dev0"
__author__ = "The redgrease developers"
__contact__ = "the project's issue tracker"
__copyright__ = "Copyright the redgrease developers"
__licence__ = "MIT OR Apache-2.0"

if TYPE_CHECKING:
    from . import utils as utils
    from .client import Gears as Gears
    from .client import Redis as Redis
    from .client import RedisCluster as RedisCluster
    from .client import RedisGears as RedisGears
    from .client import RedisMods as RedisMods
    from .func import command as command
    from .func import trigger as trigger
    from .gears import ClosedGearFunction as ClosedGearFunction
    from .gears import GearFunction as GearFunction
    from .gears import OpenGearFunction as OpenGearFunction
    from .reader import CommandReader as CommandReader
    from .reader import GearReader as GearReader
    from .reader import KeysOnlyReader as KeysOnlyReader
    from .reader import KeysReader as KeysReader
    from .reader import PythonReader as PythonReader
    from .reader import ShardsIDReader as ShardsIDReader
    from .reader import StreamReader as StreamReader
    from .requirements import Requirement as Requirement
    from .requirements import Version as Version
    from .requirements import read_requirements as read_requirements
    from .requirements import resolve_requirements as resolve_requirements
    from .runtime import GB as GB
    from .runtime import GEARS_RUNTIME as GEARS_RUNTIME
    from .runtime import GearsBuilder as GearsBuilder
    from .runtime import atomic as atomic
    from .runtime import configGet as configGet
    from .runtime import execute as execute
    from .runtime import gearsConfigGet as gearsConfigGet
    from .runtime import gearsFuture as gearsFuture
    from .runtime import hashtag as hashtag
    from .runtime import hashtag3 as hashtag3
    from .runtime import log as log
    from .runtime_client import cmd as cmd
    from .sugar import FailurePolicy as FailurePolicy
    from .sugar import KeyType as KeyType
    from .sugar import LogLevel as LogLevel
    from .sugar import ReaderType as ReaderType
    from .sugar import TriggerMode as TriggerMode

#: The module of each exported name. Names that need third-party packages are in `_OPTIONAL`.
_BARE = {
    "command": "func",
    "trigger": "func",
    "GearFunction": "gears",
    "OpenGearFunction": "gears",
    "ClosedGearFunction": "gears",
    "GearReader": "reader",
    "KeysReader": "reader",
    "KeysOnlyReader": "reader",
    "StreamReader": "reader",
    "PythonReader": "reader",
    "ShardsIDReader": "reader",
    "CommandReader": "reader",
    "GearsBuilder": "runtime",
    "GB": "runtime",
    "atomic": "runtime",
    "execute": "runtime",
    "hashtag": "runtime",
    "hashtag3": "runtime",
    "log": "runtime",
    "configGet": "runtime",
    "gearsConfigGet": "runtime",
    "gearsFuture": "runtime",
    "GEARS_RUNTIME": "runtime",
    "ReaderType": "sugar",
    "TriggerMode": "sugar",
    "KeyType": "sugar",
    "FailurePolicy": "sugar",
    "LogLevel": "sugar",
    "utils": "",
}
_OPTIONAL = {
    "Gears": ("client", ("redis", "cloudpickle", "packaging")),
    "Redis": ("client", ("redis", "cloudpickle", "packaging")),
    "RedisCluster": ("client", ("redis", "cloudpickle", "packaging")),
    "RedisMods": ("client", ("redis", "cloudpickle", "packaging")),
    "RedisGears": ("client", ("redis", "cloudpickle", "packaging")),
    "cmd": ("runtime_client", ("redis", "cloudpickle", "packaging")),
    "Requirement": ("requirements", ("packaging",)),
    "Version": ("requirements", ("packaging",)),
    "read_requirements": ("requirements", ("packaging",)),
    "resolve_requirements": ("requirements", ("packaging",)),
}
_SUBMODULES = frozenset(
    (
        "caching",
        "calls",
        "asyncio",
        "cli",
        "client",
        "codec",
        "commands",
        "config",
        "data",
        "display",
        "engine",
        "exceptions",
        "exchange",
        "filecache",
        "formatting",
        "func",
        "gearialization",
        "gears",
        "hysteresis",
        "link",
        "loader",
        "operations",
        "progress",
        "pytest_plugin",
        "reader",
        "recipes",
        "requirements",
        "runtime",
        "runtime_client",
        "sources",
        "sugar",
        "testing",
        "typing",
        "utils",
        "worker",
    )
)
#: Names that in a worker are objects of the module `redisgears`, with their names there.
_NATIVE = {
    "GearsBuilder": "GearsBuilder",
    "GB": "GearsBuilder",
    "atomic": "atomicCtx",
    "execute": "executeCommand",
    "hashtag": "getMyHashTag",
    "gearsFuture": "gearsFutureCtx",
}


def _exported() -> list[str]:
    """Names that can be resolved: all whose third-party packages are installed."""
    have: dict[str, bool] = {}
    for package in ("redis", "cloudpickle", "packaging"):
        have[package] = package in sys.modules or importlib.util.find_spec(package) is not None
    optional = [name for name, (_, needs) in _OPTIONAL.items() if all(have[need] for need in needs)]
    return [*_BARE, *optional]


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _exported()
    if name in _NATIVE and "redisgears" in sys.modules:
        native = getattr(sys.modules["redisgears"], _NATIVE[name], None)
        if native is not None:
            return native
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _BARE:
        return getattr(importlib.import_module(f"{__name__}.{_BARE[name]}"), name)
    if name in _OPTIONAL:
        module, needs = _OPTIONAL[name]
        try:
            # Remembered: functions use `redgrease.cmd` for each record.
            globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return globals()[name]
        except ModuleNotFoundError as missing:
            if missing.name is None or missing.name.partition(".")[0] not in needs:
                raise
            raise ModuleNotFoundError(
                f"redgrease.{name} needs the package {missing.name!r}, which is not installed here",
                name=missing.name,
            ) from missing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_exported(), *_SUBMODULES})
