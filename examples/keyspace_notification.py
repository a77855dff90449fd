"""Keyspace notification processing: capture events at once, process them later.

Step one captures, inside the server's own command, the name of every key that expires, in a stream of the shard.
Step two processes the streams in the background, in batches: it writes each name to the server's log (and to a
list, so that this program can show it).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import common
import redgrease

NAMES = ("Foo", "Bar", "Baz")

VANILLA = """
import time

def capture(record):
    execute('XADD', 'expired:' + hashtag(), '*', 'key', record['key'])

def process(message):
    key = message['value']['key']
    log("Key '%s' expired at %s" % (key, time.time()))
    execute('RPUSH', 'processed', key)

GearsBuilder('KeysReader').foreach(capture).register('*', mode='sync', eventTypes=['expired'], readValue=False)
GearsBuilder('StreamReader').foreach(process).register('expired:*', batch=100, duration=1)
"""


def capture(record: dict[str, Any]) -> None:
    """Keep the name of a key that expired."""
    redgrease.cmd.xadd(f"expired:{redgrease.hashtag()}", {"key": record["key"]})


def process(message: dict[str, Any]) -> None:
    """Do something with it."""
    key = message["value"]["key"]
    redgrease.log(f"Key '{key}' expired at {time.time()}")
    redgrease.cmd.rpush("processed", key)


REDGREASE = (
    redgrease.KeysReader().foreach(capture).register(mode="sync", eventTypes=["expired"], readValue=False),
    redgrease.StreamReader().foreach(process).register("expired:*", batch=100, duration=1),
)


def main(r: Any, names: Sequence[str] = NAMES, milliseconds: int = 50) -> common.Comparison:
    """Let keys of these names expire under both forms: which were processed, in which order."""
    outcomes = []
    for functions in ((VANILLA,), REDGREASE):
        for function in functions:
            r.gears.pyexecute(function)
        for number, name in enumerate(names):
            r.set(name, "value", px=milliseconds * (number + 1))
        # A key expires when a client reads it, or when the server looks through its keys a little later.
        common.wait_until(lambda: not r.exists(*names) and r.llen("processed") == len(names), "all are processed")
        outcomes.append(sorted(name.decode() for name in r.lrange("processed", 0, -1)))
        common.clean_up(r)
    return common.Comparison("Keyspace notification processing", *outcomes)


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
