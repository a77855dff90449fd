"""Logging for programs around gear functions: UTC time stamps, fields separated by tabs, configuration from a file.

>>> import logging
>>> record = logging.LogRecord("loader", logging.INFO, "", 7, "%d files", (3,), None, "scan")
>>> log_formatter.format(record).split("\\t")[1:]
['INFO', 'loader.scan@7:', '3 files', 'EOL']
"""

from __future__ import annotations

import configparser
import json
import logging
import logging.config
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

__all__ = [
    "UTC_ISO8601_Formatter",
    "initialize_logger",
    "iso8601_datefmt",
    "log_formatter",
    "log_message_format",
]

iso8601_datefmt = "%Y-%m-%dT%H:%M:%S.%f"
"""Date, ``T``, and time with microseconds."""

log_message_format = "%(asctime)s\t%(levelname)s\t%(name)s.%(funcName)s@%(lineno)d:\t%(message)s\tEOL"
"""Fields separated by tabs: time, level, place, message, and ``EOL``, which ends a message of several lines."""


class UTC_ISO8601_Formatter(logging.Formatter):  # noqa: N801 - name as users of the original know it
    """Formats log records with the time in UTC.

    Args:
        fmt: format of a record.
        datefmt: format of its time, with ``%f`` for microseconds.
        kwargs: further arguments of `logging.Formatter`.

    >>> record = logging.LogRecord("x", logging.INFO, "", 1, "started", (), None)
    >>> record.created = 1.5
    >>> UTC_ISO8601_Formatter("%(asctime)s %(message)s").format(record)
    '1970-01-01T00:00:01.500000 started'
    """

    def __init__(
        self, fmt: str | None = log_message_format, datefmt: str | None = iso8601_datefmt, **kwargs: Any
    ) -> None:
        super().__init__(fmt, datefmt, **kwargs)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - of the base
        """The time of a record, in UTC."""
        return datetime.fromtimestamp(record.created, timezone.utc).strftime(datefmt or iso8601_datefmt)


log_formatter = UTC_ISO8601_Formatter()
"""Formatter of `log_message_format` and `iso8601_datefmt`."""


def initialize_logger(
    level: int | str = logging.DEBUG,
    fmt: str | logging.Formatter | None = None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> None:
    """Set up the root logger, and apply a configuration.

    Handlers of the root logger get the format; without handlers, one that writes to standard error is added.

    Args:
        level: level of the root logger.
        fmt: a formatter, or the format of a record; default: `log_formatter`.
        config: a dict for `logging.config.dictConfig`, or the path of a file: ``.json`` and ``.yaml`` (or ``.yml``;
            needs the package ``pyyaml``) with such a dict, or ``.ini`` for `logging.config.fileConfig`. Files with
            other names may have any of the three formats. Existing loggers stay enabled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the configuration cannot be parsed, or is not one of `logging`.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
    formatter = fmt if isinstance(fmt, logging.Formatter) else UTC_ISO8601_Formatter(fmt) if fmt else log_formatter
    for handler in root.handlers:
        handler.setFormatter(formatter)
    root.setLevel(level)
    if isinstance(config, Mapping):
        _configure(config)
    elif config is not None:
        _configure_from(os.fspath(config))


def _configure(config: Any) -> None:
    if not isinstance(config, Mapping):
        raise ValueError(f"a configuration of logging is a dict, got {type(config).__name__}")
    logging.config.dictConfig({"disable_existing_loggers": False, **config})


def _from_json(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        _configure(json.load(file))


def _from_yaml(path: str) -> None:
    try:
        import yaml  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ModuleNotFoundError:
        raise ValueError(f"{path}: YAML needs the package 'pyyaml', which is not installed") from None
    with open(path, encoding="utf-8") as file:
        try:
            config = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    _configure(config)


def _from_ini(path: str) -> None:
    parser = configparser.ConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        logging.config.fileConfig(parser, disable_existing_loggers=False)
    except (configparser.Error, KeyError, RuntimeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_FORMATS: dict[str, tuple[Callable[[str], None], ...]] = {
    ".json": (_from_json,),
    ".yaml": (_from_yaml,),
    ".yml": (_from_yaml,),
    ".ini": (_from_ini,),
}


def _configure_from(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no configuration of logging at {path!r}")
    problems = []
    for apply in _FORMATS.get(os.path.splitext(path)[1].lower(), (_from_yaml, _from_json, _from_ini)):
        try:
            return apply(path)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    raise ValueError(f"{path!r} is no configuration of logging: {'; '.join(problems)}")
