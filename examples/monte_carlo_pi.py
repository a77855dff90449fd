"""Monte Carlo estimate of pi: throw darts at a square, and count how many hit the circle inside.

Every shard throws its share. (There are better ways to get the value of pi; this one shows how work is spread.)
"""

from __future__ import annotations

import random
import sys
from typing import Any

import common
import redgrease

THROWS = 200_000

VANILLA = """
import random

def estimate(shard):
    dice = random.Random({seed})
    hits = sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range({throws}))
    return 4 * hits / {throws}

GearsBuilder('ShardsIDReader').map(estimate).avg().run()
"""


def average_estimate(throws: int, seed: int) -> redgrease.ClosedGearFunction[float]:
    """A gear function: the average of what the shards estimate, each by so many throws."""

    def estimate(_shard: str) -> float:
        dice = random.Random(seed)
        hits = sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(throws))
        return 4 * hits / throws

    return redgrease.ShardsIDReader().map(estimate).avg().run()


def main(r: Any, throws: int = THROWS, seed: int = 42) -> common.Comparison:
    """Estimate pi in both forms, with the same dice."""
    [vanilla] = r.gears.pyexecute(VANILLA.format(throws=throws, seed=seed)).records
    [objects] = r.gears.pyexecute(average_estimate(throws, seed)).records
    return common.Comparison("Monte Carlo estimate of pi", float(vanilla), objects)


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    parser.add_argument("--throws", type=int, default=THROWS)
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args()
    sys.exit(main(common.connect(given), given.throws, given.seed).show())
