"""Basic stream processing: copy every new message of a stream to a hash that is named after the message's id."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import common
import redgrease

MESSAGES = ({"from": "Ada", "say": "hello"}, {"from": "Grace", "say": "bye", "to": "Ada"})

VANILLA = """
def copy(message):
    fields = []
    for name, value in message['value'].items():
        fields += [name, value]
    execute('HSET', message['id'], *fields)

GearsBuilder('StreamReader').foreach(copy).register('mystream')
"""

REDGREASE = (
    redgrease.StreamReader()
    .foreach(lambda message: redgrease.cmd.hset(message["id"], mapping=message["value"]))
    .register("mystream")
)


def main(r: Any, messages: Sequence[Mapping[str, str]] = MESSAGES) -> common.Comparison:
    """Send ``messages`` through both forms: the resulting hashes, and what is left in the stream."""
    outcomes = []
    for function in (VANILLA, REDGREASE):
        r.gears.pyexecute(function)
        ids = [r.xadd("mystream", dict(message)) for message in messages]
        common.wait_until(lambda ids=ids: all(r.exists(name) for name in ids), "every message is copied")
        common.wait_until(lambda: r.xlen("mystream") == 0, "handled messages are taken from the stream")
        hashes = [{k.decode(): v.decode() for k, v in r.hgetall(name).items()} for name in ids]
        outcomes.append({"hashes": hashes, "left in the stream": r.xlen("mystream")})
        common.clean_up(r)
    return common.Comparison("Basic stream processing", *outcomes)


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
