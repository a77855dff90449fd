"""Custom commands: a leaderboard as two commands of the server, for clients in any language.

``RG.TRIGGER score PLAYER POINTS`` adds points and answers with the player's rank. ``RG.TRIGGER leaders N`` lists the
best players. The rules (no negative points, a history of all changes) are in one place, the server.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import common
import redgrease

POINTS = (("Ada", 10), ("Grace", 30), ("Alan", 20), ("Ada", 25))


@redgrease.command(mode=redgrease.TriggerMode.AsyncLocal)
def score(player: str, points: str) -> int:
    """Add points to a player; the rank of the player, 1 is the best."""
    if not points.isdigit():
        raise ValueError(f"points are a number from 0 on, not {points!r}")
    with redgrease.atomic():  # no other client sees the points without the history
        redgrease.cmd.zincrby("leaders", int(points), player)
        redgrease.cmd.xadd("history", {"player": player, "points": points})
        return int(redgrease.cmd.zrevrank("leaders", player)) + 1


@redgrease.command(mode=redgrease.TriggerMode.AsyncLocal)
def leaders(length: str = "3") -> list[list[Any]]:
    """The best players and their points."""
    best = redgrease.cmd.zrevrange("leaders", 0, int(length) - 1, withscores=True)
    return [[str(player), int(points)] for player, points in best]


def main(r: Any, points: Sequence[tuple[str, int]] = POINTS, length: int = 3) -> tuple[list[int], list[list[Any]]]:
    """Register the commands and give ``points``; the ranks after each, and the best players."""
    add, best = score.on(r, replace=True), leaders.on(r, replace=True)
    ranks = [int(add(player, number)) for player, number in points]
    found: list[list[Any]] = best(length).value
    common.clean_up(r)
    return ranks, found


if __name__ == "__main__":
    _, table = main(common.connect(common.arguments(__doc__).parse_args()))
    for place, (player, total) in enumerate(table, 1):
        print(f"{place}. {player}: {total}")
    sys.exit(0)
