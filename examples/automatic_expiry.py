"""Automatic expiry: every key that is written expires after an hour.

The function runs in mode ``sync``, inside the command that wrote the key, so there is no moment in which the key has
no time to live. Redis 7.0 cannot log such a write behind the one that caused it, and redgrease refuses it there; on
that server the function runs a moment later instead (mode ``async_local``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import common
import redgrease

VALUES = {"Foo": "Bar", "Baz": "Qux"}

VANILLA = """
(GearsBuilder('KeysReader')
    .filter(lambda record: record['event'] != 'expire')
    .foreach(lambda record: execute('EXPIRE', record['key'], {seconds}))
    .register('*', mode={mode!r}, readValue=False))
"""


def expire_after(seconds: int, mode: str) -> redgrease.ClosedGearFunction[Any]:
    """A gear function that sets the time to live of every key that is written."""
    return (
        redgrease.KeysReader()
        .filter(lambda record: record["event"] != "expire")
        .foreach(lambda record: redgrease.cmd.expire(record["key"], seconds))
        .register("*", mode=mode, readValue=False)
    )


def best_mode(r: Any) -> str:
    """``sync`` where the server can do it."""
    server = r.info("server")
    is_redis_7_0 = "valkey_version" not in server and str(server["redis_version"]).startswith("7.0.")
    return redgrease.TriggerMode.AsyncLocal if is_redis_7_0 else redgrease.TriggerMode.Sync


def main(r: Any, values: Mapping[str, str] = VALUES, seconds: int = 3600) -> common.Comparison:
    """Write ``values`` under both forms: the time to live that each key got."""
    outcomes = []
    mode = best_mode(r)
    for function in (VANILLA.format(seconds=seconds, mode=mode), expire_after(seconds, mode)):
        r.gears.pyexecute(function)
        for name, value in values.items():
            r.set(name, value)
        if mode != redgrease.TriggerMode.Sync:
            common.wait_until(lambda: all(r.ttl(name) > 0 for name in values), "every key has a time to live")
        outcomes.append({name: f"{seconds} s" if 0 <= seconds - r.ttl(name) <= 10 else r.ttl(name) for name in values})
        common.clean_up(r)
    return common.Comparison("Automatic expiry", *outcomes)


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
