"""Delete by key prefix: delete all keys whose name begins with a prefix, and say how many there were."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import common
import redgrease

PREFIX = "delete_me:"
NAMES = ("delete_me:unimportant", "keep_me:important", "delete_me:data", "dont_delete_me:")

VANILLA = """
(GearsBuilder('KeysReader', {pattern!r})
    .map(lambda record: record['key'])
    .foreach(lambda key: execute('DEL', key))
    .count()
    .run())
"""


def delete_all(prefix: str) -> redgrease.ClosedGearFunction[int]:
    """A gear function that deletes the keys with this prefix."""
    return redgrease.KeysReader(f"{prefix}*").keys().foreach(redgrease.cmd.delete).count().run()


def main(r: Any, names: Sequence[str] = NAMES, prefix: str = PREFIX) -> common.Comparison:
    """Make keys of these names and delete those with the prefix, in both forms: how many went, and which stayed."""
    outcomes = []
    for function in (VANILLA.format(pattern=f"{prefix}*"), delete_all(prefix)):
        for name in names:
            r.set(name, "value")
        deleted = sum(int(count) for count in r.gears.pyexecute(function).records)
        outcomes.append({"deleted": deleted, "left": sorted(name.decode() for name in r.scan_iter())})
        common.clean_up(r)
    return common.Comparison("Delete by key prefix", *outcomes)


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
