"""Loads files with gear functions into a server, and loads them again when they change.

The program `redgrease` does the same, see the page "Command line". Lines of the log go to the logger
``redgrease.loader``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, Union

import redis.exceptions

from . import _native
from .client import RedisGears

__all__ = [
    "GearsLoader",
    "default_ignore_patterns",
    "default_index_prefix",
    "default_requirements_pattern",
    "default_script_pattern",
    "default_unblocking_pattern",
    "fail",
]

default_index_prefix = "/redgrease/scripts"
"""Prefix of the keys that record what is loaded."""

default_script_pattern = "*.py"
"""Names of scripts."""

default_requirements_pattern = "*requirements*.txt"
"""Names of files that list requirements."""

default_unblocking_pattern = re.compile("unblock")
"""What the paths of scripts contain that run without being waited for."""

default_ignore_patterns = ["_*", ".*"]
"""Names of files and directories that are ignored."""

log = logging.getLogger("redgrease.loader")

_FilePath = Union[str, "os.PathLike[str]"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Arguments of clients with a counterpart in the loader.
_OPTION_OF = {"username": "user", "password": "password", "ssl_ca_certs": "cacert"}
_EXCEPTION_OF: dict[str, Callable[[str], Exception]] = {
    "failed": redis.exceptions.ResponseError,
    "usage": ValueError,
    "unreachable": redis.exceptions.ConnectionError,
    "no-module": redis.exceptions.ResponseError,
    "denied": redis.exceptions.AuthenticationError,
    "tls": redis.exceptions.ConnectionError,
    "timeout": redis.exceptions.TimeoutError,
    "path": OSError,
}


def _exception(kind: str, message: str, exit_code: int) -> Exception:
    """The exception for an error of the extension."""
    error = _EXCEPTION_OF[kind](message)
    error.exit_code = exit_code  # type: ignore[attr-defined]
    return error


def _write(level: str, message: str) -> None:
    log.log(_LEVELS[level], "%s", message)


def fail(exception: type[Exception] | Exception, *messages: str) -> NoReturn:
    """Log messages, and raise an exception with them.

    >>> fail(ValueError, "port is no number", "Write 6379")
    Traceback (most recent call last):
    ValueError: port is no number. Write 6379
    """
    message = ". ".join(messages)
    log.error("%s", message)
    if isinstance(exception, Exception):
        raise exception
    raise exception(message)


class GearsLoader:
    """Loads scripts and requirements from files and directories.

    What a script registers is replaced in one step when the script is loaded again; if that fails, it stays. Errors of
    a file are logged and do not keep other files from being loaded: `failed` has these files.

    Args:
        script_pattern: names of scripts in directories.
        requirements_pattern: names of files that list requirements.
        unblocking_pattern: regular expression, also compiled; scripts with a match in their path are not waited for.
        ignore_patterns: names of files and directories to ignore.
        index_prefix: prefix of the keys that record what is loaded.
        server: host of the server.
        port: port of the server.
        observe: seconds without changes after which a changed file is loaded again; `None`: files are not watched.
        redis_kwargs: arguments of the client `redis`. The loader's own connection uses `username`, `password`, `db`,
            `ssl`, `ssl_ca_certs` and `unix_socket_path`.

    Raises:
        ValueError: a pattern or another argument cannot be used.
        redis.exceptions.ConnectionError: no server answers.
        redis.exceptions.ResponseError: the server does not have the module.

    A loader is a context manager, which stops watching and closes the connections:

        with GearsLoader(server="10.0.2.21", observe=1.0) as loader:
            loader.add_directory("scripts", recursive=True)
            loader.start()
            ...
    """

    def __init__(
        self,
        script_pattern: str | None = None,
        requirements_pattern: str | None = None,
        unblocking_pattern: str | re.Pattern[str] | None = None,
        ignore_patterns: str | Iterable[str] | None = None,
        index_prefix: str | None = None,
        server: str = "localhost",
        port: int = 6379,
        observe: float | None = None,
        **redis_kwargs: Any,
    ) -> None:
        self.script_pattern = script_pattern or default_script_pattern
        self.requirements_pattern = requirements_pattern or default_requirements_pattern
        self.unblocking_pattern = _compiled(unblocking_pattern or default_unblocking_pattern)
        ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns or ())
        self.ignore_patterns = ignored or list(default_ignore_patterns)
        self.index_prefix = index_prefix or default_index_prefix
        self.directories: set[Path] = set()
        self.observe = _delay(observe)
        self._client_arguments: dict[str, Any] = {"host": server, "port": port, **redis_kwargs}
        self._client: Any = None
        self._core = _native.LoaderCore(_write, list(self._options(server, port, redis_kwargs).items()))

    def _options(self, server: str, port: int, redis_kwargs: dict[str, Any]) -> dict[str, list[str]]:
        options = {
            "script-pattern": [self.script_pattern],
            "requirements-pattern": [self.requirements_pattern],
            "unblocking-pattern": [self.unblocking_pattern.pattern],
            "ignore": self.ignore_patterns,
            "index-prefix": [self.index_prefix],
        }
        for name, option in _OPTION_OF.items():
            if redis_kwargs.get(name):
                options[option] = [str(redis_kwargs[name])]
        if redis_kwargs.get("unix_socket_path"):
            return {**options, "url": [f"unix://{redis_kwargs['unix_socket_path']}?db={redis_kwargs.get('db', 0)}"]}
        url = f"redis://localhost/{redis_kwargs.get('db', 0)}"
        tls = ["true"] if redis_kwargs.get("ssl") else []
        return {**options, "url": [url], "server": [server], "port": [str(port)], "tls": tls}

    @property
    def redis(self) -> Any:
        """A client of the server."""
        if self._client is None:
            self._client = RedisGears(**self._client_arguments)
        return self._client

    @property
    def failed(self) -> list[Path]:
        """The files that could not be loaded."""
        return self._core.failed()

    def add_file(self, file: _FilePath) -> None:
        """Load a file, whatever its name: requirements, if its name is of such a file, otherwise a script.

        Raises:
            FileNotFoundError: there is no such file.
            redis.exceptions.RedisError: no file can be loaded: no connection, no permission.
        """
        self._core.add(_file(file), False)

    def add_directory(self, directory: _FilePath, recursive: bool = False) -> None:
        """Load the files of a directory, requirements first; with `recursive` also those below.

        Raises:
            FileNotFoundError: there is no such directory.
            redis.exceptions.RedisError: no file can be loaded: no connection, no permission.
        """
        if not os.path.isdir(directory):
            raise FileNotFoundError(f"there is no directory {os.fspath(directory)!r}")
        self._core.add(directory, recursive)
        self.directories.add(Path(directory).resolve())

    def register_script(self, script_path: _FilePath) -> None:
        """Run a script in its session; what it registered before is replaced in one step.

        Errors of the script are logged.

        Raises:
            FileNotFoundError: there is no such file.
        """
        self._logged(self._core.register_script, _file(script_path))

    def unregister_script(self, script_path: _FilePath) -> None:
        """Remove what a script registered, and its key of the index. Errors of the server are logged."""
        path = Path(script_path)
        self._logged(self._core.unregister_script, path.parent.resolve() / path.name)

    def update_dependencies(self, requirements_path: _FilePath) -> None:
        """Install the requirements that a file lists; scripts that are loaded later have them. Errors are logged.

        Removing a line or the file takes effect on each script when it is loaded again.
        """
        self._logged(self._core.update_dependencies, _file(requirements_path))

    def start(self) -> None:
        """Begin to watch what was added.

        Raises:
            RuntimeError: the loader was made without `observe`.
            redis.exceptions.ResponseError: the system cannot watch more files.
        """
        if self.observe is None:
            raise RuntimeError("nothing is watched: give observe=SECONDS to GearsLoader")
        self._core.start(self.observe)

    def stop(self) -> None:
        """End watching, after the file that is being loaded."""
        self._core.stop()

    def close(self) -> None:
        """End watching, and close the connection of the client."""
        self.stop()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> GearsLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _logged(method: Callable[[_FilePath], None], path: _FilePath) -> None:
        try:
            method(path)
        except redis.exceptions.RedisError as error:
            log.error("%s: %s", os.fspath(path), error)


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    if not isinstance(pattern, (str, re.Pattern)):
        raise ValueError(f"unblocking_pattern is a regular expression, got {pattern!r}")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"unblocking_pattern {pattern!r}: {error}") from error


def _delay(observe: float | None) -> float | None:
    if not observe:
        return None
    if not 0 < observe < float("inf"):
        raise ValueError(f"observe is a number of seconds above 0, got {observe!r}")
    return float(observe)


def _file(path: _FilePath) -> _FilePath:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}")
    return path
