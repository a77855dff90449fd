# ruff: noqa: N801, N802, N803 - magic methods; names as users of the original know them
"""Functions for use inside the server: commands, log, atomic blocks, configuration, futures, the builder.

The names exist on both sides. Inside the server each calls its native counterpart; on a client it raises
`OnlyInServerError`. So they can be imported, typed, completed and pickled anywhere.

>>> from redgrease.runtime import execute, log
>>> def refresh(key):
...     log(f"refreshing {key}")
...     return execute("EXPIRE", key, 3600)
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .gears import ClosedGearFunction, GearFunction, OpenGearFunction, Operation, Register, Run, replay
from .reader import GearReader

if TYPE_CHECKING:
    from collections.abc import Iterable

GEARS_RUNTIME: tuple[int, int] | bool
"""`False` on a client; inside the server the compatible version of the runtime, ``(1, 2)``."""

__all__ = [
    "GB",
    "GEARS_RUNTIME",
    "GearsBuilder",
    "OnlyInServerError",
    "atomic",
    "configGet",
    "execute",
    "gearsConfigGet",
    "gearsFuture",
    "hashtag",
    "hashtag3",
    "log",
    "run",
]


class OnlyInServerError(ModuleNotFoundError):
    """A function that works only inside the server was used on a client."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} works only inside the server: use it in a function that is sent there with run or register",
            name="redisgears",
        )


#: Stands in for the module `redisgears`, where `redgrease.testing` runs a function without a server.
stand_in: ContextVar[Any] = ContextVar("redgrease.runtime.stand_in", default=None)


def _native(name: str, shown: str) -> Any:
    module = stand_in.get() or sys.modules.get("redisgears")
    if module is None:
        raise OnlyInServerError(f"redgrease.{shown}")
    return getattr(module, name)


def __getattr__(name: str) -> Any:
    if name == "GEARS_RUNTIME":
        return (1, 2) if stand_in.get() or "redisgears" in sys.modules else False
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def execute(command: str, *args: Any) -> Any:
    """Run one command on the local shard, as the user that ran or registered this function.

    Args:
        command: the name of the command; sub-commands are arguments (``execute("CONFIG", "GET", "save")``).
        args: `bytes` are sent as they are, everything else as its text.

    Returns:
        The reply: `str`, or `bytes` where it is not UTF-8; `int`; `None`; `list` of these.

    Raises:
        redisgears.GearsError: the server answered with an error.
        OnlyInServerError: this is a client.
    """
    return _native("executeCommand", "execute")(command, *args)


class atomic:
    """Context manager: the server serves no other client until the block ends. Keep it short.

    >>> def move(record):
    ...     with atomic():
    ...         execute("DECR", "from")
    ...         execute("INCR", "to")
    """

    def __init__(self) -> None:
        self._context = _native("atomicCtx", "atomic")()

    def __enter__(self) -> atomic:
        self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self._context.__exit__(kind, error, trace)


def hashtag() -> str:
    """A text that hashes to a slot of the local shard, to build names of keys that are local to it."""
    tag: str = _native("getMyHashTag", "hashtag")()
    return tag


def hashtag3() -> str:
    """`hashtag` in braces, ready for a key's name: ``f"counter:{hashtag3()}"``."""
    return "{" + hashtag() + "}"


def log(message: Any, level: str = "notice") -> None:
    """Write `message` (its ``str()``) to the server's log.

    Args:
        message: anything.
        level: ``"debug"``, ``"verbose"``, ``"notice"`` or ``"warning"``.
    """
    _native("log", "log")(str(message), level=level)


def configGet(key: str) -> Any:
    """Value of a configuration option of the engine, or `None` if it is not set."""
    return _native("config_get", "configGet")(key)


def gearsConfigGet(key: str, default: Any = None) -> Any:
    """Value of a configuration option of the engine, or `default` if it is not set."""
    value = _native("config_get", "gearsConfigGet")(key)
    return default if value is None else value


class gearsFuture:
    """Suspends a step: return it from a callback, and complete it later from another thread.

    ``continueRun(record)`` continues the execution with `record`; ``continueFailed(message)`` fails the record.
    """

    def __new__(cls) -> Any:  # noqa: D102 - see the class
        return _native("gearsFutureCtx", "gearsFuture")()

    if TYPE_CHECKING:

        def continueRun(self, record: Any) -> None:
            """Continue with `record`."""

        def continueFailed(self, message: str) -> None:
            """Fail the record."""


class GearsBuilder(OpenGearFunction[Any]):
    """Builds a function statement by statement, like the server's own builder of the same name.

    Unlike other functions it is mutable: each operation adds to the builder and returns it. `gearfunction` is the
    current state as an immutable function. Type checkers do not know its records, whose type changes.

    >>> builder = GearsBuilder("KeysReader", "user:*")
    >>> _ = builder.map(lambda record: record["value"])
    >>> builder.count().gearfunction
    KeysReader('user:*').map(<lambda>).count()

    Args:
        reader: name of the reader (see `redgrease.ReaderType`).
        defaultArg: its argument if ``run`` has none: a pattern, or the name of a stream.
        desc: text shown in the list of registrations.
        requirements: packages that the functions need.
    """

    def __init__(
        self,
        reader: str = "KeysReader",
        defaultArg: Any = "*",
        desc: str | None = None,
        requirements: Iterable[Any] | None = None,
    ) -> None:
        object.__setattr__(self, "_function", GearReader(reader, defaultArg, desc, requirements=requirements))
        object.__setattr__(self, "_closed", None)

    @property
    def gearfunction(self) -> OpenGearFunction[Any]:
        """The current state, as an immutable open function."""
        function: OpenGearFunction[Any] = self._function  # type: ignore[attr-defined]
        return function

    @property
    def closed(self) -> ClosedGearFunction[Any] | None:
        """The function that the last ``run`` or ``register`` closed, or `None`."""
        closed: ClosedGearFunction[Any] | None = self._closed  # type: ignore[attr-defined]
        return closed

    @property
    def _parts(self) -> Any:  # type: ignore[override]
        return self.gearfunction._parts

    def _add(self, operation: Operation, requirements: Iterable[Any] | None = None) -> GearsBuilder:
        object.__setattr__(self, "_function", self.gearfunction._add(operation, requirements))
        object.__setattr__(self, "_closed", None)
        return self

    def _close(self, action: Run | Register, requirements: Iterable[Any] | None = None) -> ClosedGearFunction[Any]:
        closed = self.gearfunction._close(action, requirements)
        object.__setattr__(self, "_closed", closed)
        return closed

    def __reduce__(self) -> Any:
        return self.gearfunction.__reduce__()

    def __repr__(self) -> str:
        return f"<GearsBuilder {self.gearfunction!r}>"


GB = GearsBuilder
"""Short for `GearsBuilder`."""


def run(function: GearFunction[Any], builder: Any) -> Any:
    """Replay `function` on a builder with the server's methods, and return what its last method returns.

    Args:
        function: any gear function.
        builder: the server's ``GearsBuilder``, or any class with the same methods.
    """
    if isinstance(function, GearsBuilder):
        function = function.closed or function.gearfunction
    return replay(function, builder, "objects")
