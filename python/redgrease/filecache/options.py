"""The options of a cache: type checks, and a representation without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from .errors import CacheConfigError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Options", "redacted"]


@dataclass(frozen=True)
class Options:
    """The arguments of `FileCache`; see its documentation."""

    directory: bytes
    url: str | None = None
    namespace: str = "redgrease-cache"
    lease: float | timedelta = 10.0
    max_bytes: int | None = None
    max_entries: int | None = None
    max_entry_bytes: int | None = None
    min_free_bytes: int | None = None
    max_age: float | timedelta | None = None
    max_idle: float | timedelta | None = None
    low_mark: float | None = None
    durability: str = "full"
    check: str = "always"
    file_mode: int = 0o640
    directory_mode: int = 0o750
    connect_timeout: float | timedelta = 2.0
    command_timeout: float | timedelta = 5.0
    on_outage: str = "fail"
    adopt: bool = False
    read_only: bool = False
    maintenance: float | timedelta | None = 30.0

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Collects the options from the arguments of a constructor."""
        options = {option.name: arguments[option.name] for option in fields(cls)}
        options["directory"] = os.path.abspath(os.fsencode(options["directory"]))
        if not os.fsencode(arguments["directory"]):
            raise CacheConfigError("directory is empty: name the directory of the cache")
        return cls(**options)

    @classmethod
    def of_environment(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options from the environment, overridden by those that are given."""
        names = {
            "directory": "REDGREASE_CACHE_DIR",
            "url": "REDGREASE_CACHE_URL",
            "namespace": "REDGREASE_CACHE_NAMESPACE",
        }
        found = {option: os.environ[name] for option, name in names.items() if os.environ.get(name)}
        merged = {**found, **options}
        if "directory" not in merged:
            raise CacheConfigError("REDGREASE_CACHE_DIR is not set: set it, or give `directory`")
        return merged

    def adopted(self) -> Options:
        """The same options for opening the cache again."""
        return replace(self, adopt=False) if self.adopt else self

    def native(self) -> dict[str, Any]:
        """Options for the native part, which checks types and values."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def __str__(self) -> str:
        shown = [repr(os.fsdecode(self.directory))]
        for option in fields(self)[1:]:
            value = getattr(self, option.name)
            if value != option.default:
                shown.append(f"{option.name}={redacted(value) if option.name == 'url' else value!r}")
        return ", ".join(shown)

    __repr__ = __str__


def redacted(url: str | None) -> str | None:
    """A server's address with its password masked.

    >>> redacted("redis://app:secret@localhost:6379/0"), redacted("unix:///run/redis.sock?password=secret&db=1")
    ('redis://app:***@localhost:6379/0', 'unix:///run/redis.sock?password=***&db=1')
    """
    if not isinstance(url, str):
        return None
    # The last @ ends the password, which may contain an unescaped one.
    shown = re.sub(r"^([^:/]*://[^:/@?]*:).*@", r"\1***@", url)
    return re.sub(r"([?&](?:password|pass)=)[^&#]*", r"\1***", shown, flags=re.IGNORECASE)
