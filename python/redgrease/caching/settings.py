"""Options of cached commands, and their ranges."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["EXPIRY_MAX", "TIMEOUT_MAX", "CacheSettings", "within"]

EXPIRY_MAX = 10 * 365 * 86400
"""Longest time that a result is kept, in seconds."""
TIMEOUT_MAX = 3600
"""Longest timeout, in seconds."""


def within(name: str, value: Any, least: float, most: float) -> None:
    """Check that an option is a number in its range.

    Raises:
        ValueError: it is not; the message names option, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} is a number from {least:g} to {most:g}, not {value!r}")


@dataclass(frozen=True)
class CacheSettings:
    """Options of a cached command; times are in seconds.

    Attributes:
        ttl: how long a result is kept; 0: not at all, calls only share a run.
        coalesce: whether equal calls that come while the function runs wait for that run.
        timeout: how long a call may wait, and a run may take.
        negative_ttl: how long a failure is kept; 0: not at all.
        sliding: whether each call restarts `ttl`.
        stale: how long a result is answered after `ttl`, while it is made again in the background.
        lease: how long a call is blocked if the worker that runs it is killed.
        max_value_bytes: longest result that is kept, encoded.
        max_bytes: total of the results that are kept on one shard; those that expire first are removed; 0: no limit.
        max_running: runs at the same time; further ones are refused.
        namespace: beginning of the names of keys.
        direct: whether clients of the package look for the result themselves before they call the command.
        typed: whether arguments keep their types.
    """

    ttl: float = 0
    coalesce: bool = True
    timeout: float = 60.0
    negative_ttl: float = 0
    sliding: bool = False
    stale: float = 0
    lease: float = 5.0
    max_value_bytes: int = 16 << 20
    max_bytes: int = 0
    max_running: int = 64
    namespace: str = "cached"
    direct: bool = False
    typed: bool = False

    def __post_init__(self) -> None:
        if self.ttl:
            within("ttl", self.ttl, 0.001, EXPIRY_MAX)
        else:
            within("ttl", self.ttl, 0, 0)
        within("timeout", self.timeout, 0.001, TIMEOUT_MAX)
        within("negative_ttl", self.negative_ttl, 0, EXPIRY_MAX)
        within("stale", self.stale, 0, EXPIRY_MAX)
        within("lease", self.lease, 0.1, TIMEOUT_MAX)
        within("max_value_bytes", self.max_value_bytes, 0, 256 << 20)
        within("max_bytes", self.max_bytes, 0, 1 << 50)
        within("max_running", self.max_running, 1, 1024)
        if not isinstance(self.namespace, str) or not self.namespace or set("{}") & set(self.namespace):
            raise ValueError(f"namespace is the beginning of keys, without braces, not {self.namespace!r}")
        if not self.ttl:
            needing = {
                "negative_ttl": self.negative_ttl,
                "sliding": self.sliding,
                "stale": self.stale,
                "max_bytes": self.max_bytes,
                "direct": self.direct,
            }
            given = [name for name, value in needing.items() if value]
            if given:
                raise ValueError(f"{', '.join(given)}: results are kept only with ttl=, in seconds")
            if not self.coalesce:
                raise ValueError("without ttl= and without coalesce=True there is nothing to cache")
        if self.sliding and self.stale:
            raise ValueError("give sliding or stale, not both: a result that is used would never be made again")
        if self.direct and (self.sliding or self.stale):
            raise ValueError("direct=True only reads: it cannot be combined with sliding or stale")

    @classmethod
    def loads(cls, text: str) -> CacheSettings:
        """Load settings that `dumps` wrote; unknown ones are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})

    def dumps(self) -> str:
        """Serialize the settings."""
        return json.dumps(asdict(self))

    def key_of(self, text: str) -> str:
        """Key of the call with that text. Its braces decide on which shard of a cluster it is."""
        return f"{self.namespace}:{{{text}}}"
