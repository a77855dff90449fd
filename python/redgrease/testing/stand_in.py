# ruff: noqa: N802, N815 - names as the module `redisgears` has them in a worker
"""What stands in for the server's functions while `run_local` runs a function."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Callable

from .. import _native

__all__ = ["StandIn"]

_logger = logging.getLogger("redgrease.testing")
_LEVELS = {"debug": logging.DEBUG, "verbose": logging.DEBUG, "notice": logging.INFO, "warning": logging.WARNING}


class StandIn:
    """The attributes of the module ``redisgears`` that `redgrease.runtime` uses.

    Args:
        execute: runs a command, or `None`.
        config: values of the configuration, or `None`.
    """

    GearsError = _native.GearsError
    gearsFutureCtx = staticmethod(_native.gears_future)

    def __init__(self, execute: Callable[..., Any] | None, config: Mapping[str, Any] | None) -> None:
        self._execute = execute
        self._config = config

    def executeCommand(self, command: str, *args: Any) -> Any:
        """Run a command."""
        if self._execute is None:
            raise RuntimeError(
                f"the function ran the command {command}, and run_local has no server: give execute=function, which "
                "gets the command and its arguments, and returns the reply"
            )
        return self._execute(command, *args)

    def atomicCtx(self) -> _Atomic:
        """Make an atomic block."""
        return _Atomic()

    def getMyHashTag(self) -> str:
        """Hash tag of a server that is not part of a cluster."""
        return "06S"

    def log(self, message: str, level: str) -> None:
        """Write to Python's log."""
        if level not in _LEVELS:
            raise _native.GearsError("Log level should be one of the following : debug,verbose,notice,warning")
        _logger.log(_LEVELS[level], "%s", message)

    def config_get(self, key: str) -> Any:
        """Return the value of a configuration key."""
        if self._config is None:
            raise RuntimeError(
                f"the function read the configuration key {key}, and run_local has no server: "
                f"give config={{{key!r}: value}}"
            )
        return self._config.get(key)


class _Atomic:
    """No other client exists: only that blocks are not nested is checked."""

    _entered = threading.local()

    def __enter__(self) -> _Atomic:
        if getattr(self._entered, "is_inside", False):
            raise _native.GearsError("Already inside an atomic block")
        self._entered.is_inside = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._entered.is_inside = False
