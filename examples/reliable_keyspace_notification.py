"""Reliable keyspace notification: every change of a person is kept in a stream, with its content, in its order.

Notifications by publish/subscribe are lost when no client listens. Here the function runs inside the command that
changed the key: when the client has its answer, the change is in the stream.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import common
import redgrease

CHANGES = (
    ("person:anders", {"gender": "male", "behaviour": "friendly"}),
    ("dog:fido", {"behaviour": "barks"}),
    ("person:berit", {"gender": "female", "behaviour": "curious"}),
    ("person:anders", {"behaviour": "tired"}),
)
STREAM = "notifications-stream"

VANILLA = """
def keep(record):
    execute('XADD', 'notifications-stream', '*', 'key', record['key'], 'value', str(record['value']))

GearsBuilder('KeysReader').foreach(keep).register('person:*', mode='sync', eventTypes=['hset', 'hmset'])
"""


def keep(record: dict[str, Any]) -> None:
    """Append a change to the stream."""
    redgrease.cmd.xadd("notifications-stream", {"key": record["key"], "value": str(record["value"])})


REDGREASE = redgrease.KeysReader().foreach(keep).register("person:*", mode="sync", eventTypes=["hset", "hmset"])


def main(r: Any, changes: Sequence[tuple[str, Mapping[str, str]]] = CHANGES) -> common.Comparison:
    """Make ``changes`` under both forms: the notifications that were kept."""
    outcomes = []
    for function in (VANILLA, REDGREASE):
        r.gears.pyexecute(function)
        for key, fields in changes:
            r.hset(key, mapping=dict(fields))
        entries = [fields for _, fields in r.xrange(STREAM)]
        outcomes.append([f"{entry[b'key'].decode()} {entry[b'value'].decode()}" for entry in entries])
        common.clean_up(r)
    return common.Comparison("Reliable keyspace notification", *outcomes)


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
