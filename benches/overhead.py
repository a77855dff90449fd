"""Overhead rows: pipelined commands on a server with the module and no registrations, and on two without it."""

from __future__ import annotations

from collections.abc import Iterator

import wire
from judge import Bars, Measured, Spread
from rounds import Run, in_turn, word
from server import Server

COMMANDS = {"overhead-set": "SET", "overhead-get": "GET", "overhead-xadd": "XADD"}
#: A difference that cannot be told from chance on a quieter machine either.
TOLERANCE = 0.02


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """The second server without the module shows what chance alone does."""
    with (
        Server(run.server, module=None) as plain,
        Server(run.server, module=None) as other,
        Server(run.server) as ours,
    ):
        for name in chosen:
            yield _measure_row(run, name, plain, other, ours)


def _measure_row(run: Run, name: str, plain: Server, other: Server, ours: Server) -> Measured:
    rng = run.rng(name)
    verb = COMMANDS[name]
    count = run.size(300_000, rng)
    key = word(rng)
    spread_over = rng.randrange(5_000, 20_000)
    if verb == "XADD":
        commands = [["XADD", key, "*", "field", str(number)] for number in range(count)]
    elif verb == "SET":
        commands = [["SET", f"{key}:{rng.randrange(spread_over)}", str(number)] for number in range(count)]
    else:
        commands = [["GET", f"{key}:{rng.randrange(spread_over)}"] for _ in range(count)]
    packed = wire.windows(commands)
    lines = {"SET": 1, "GET": 2, "XADD": 2}[verb]
    servers = (plain, other, ours)
    if verb == "GET":
        for server in servers:
            server.redis.mset({f"{key}:{number}": "some value" for number in range(spread_over)})

    def send(server: Server) -> float:
        seconds = wire.send_all(server.port, packed, lines)
        if verb == "XADD":
            server.redis.delete(key)
        return seconds

    times: list[list[float]] = []
    for number in range(-1, run.pairs):  # round -1 warms up
        if number >= 0:
            run.progress.show(f"{name}: {number + 1} of {run.pairs}")
        seconds = in_turn(number, *(lambda server=server: send(server) for server in servers))
        if number >= 0:
            times.append(seconds)
    chance = Spread.of([one / two for one, two, _ in times])
    ratios = [one / mine for one, _, mine in times]
    least = min(chance.q1, 1 - TOLERANCE)
    return Measured(
        row=name,
        question=f"{verb} pipelined, module loaded, no registrations",
        ratios=ratios,
        yardstick=[count / one for one, _, _ in times],
        ours=[count / mine for _, _, mine in times],
        yardstick_name="no module",
        unit="/s",
        bars=Bars(final=round(least, 3)),
        own_verdict="within noise" if Spread.of(ratios).median >= least else "slower than noise",
        notes=[f"two servers without module {chance.median:.2f} [{chance.q1:.2f}..{chance.q3:.2f}]"],
        extra={"commands": count, "chance": [one / two for one, two, _ in times]},
    )
