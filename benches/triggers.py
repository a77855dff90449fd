"""Trigger rows: the rate of a custom command as a share of what ECHO reaches over the same connections."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import load
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, words
from server import Server, run_script

ECHO, GET = "echo", "one execute('get')"


@dataclass(frozen=True)
class TriggerRow:
    work: str
    mode: str
    connections: int
    bars: Bars


ROWS: dict[str, TriggerRow] = {
    "trigger-echo-1": TriggerRow(ECHO, "async", 1, Bars(final=0.45)),
    "trigger-echo-50": TriggerRow(ECHO, "async", 50, Bars(final=0.62)),
    "trigger-get-1": TriggerRow(GET, "async", 1, Bars(final=0.40)),
    "trigger-get-50": TriggerRow(GET, "async", 50, Bars(final=0.42)),
    "trigger-sync-1": TriggerRow(ECHO, "sync", 1, Bars(final=0.55)),
    "trigger-sync-50": TriggerRow(ECHO, "sync", 50, Bars(final=0.60)),
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows, each on a server of its own."""
    load.generator()
    for name in chosen:
        with ExitStack() as servers:
            ours = servers.enter_context(Server(run.server))
            other = servers.enter_context(Server(run.server, module=run.against)) if run.against else None
            yield _measure_row(run, name, ours, other)


def _register(server: Server, row: TriggerRow, rng: random.Random) -> tuple[list[str], list[str], bytes]:
    """Registers the function: our command, the floor's command, and the reply that is right."""
    trigger, payload, key, value, record = words(rng, 5)
    payload += payload[: rng.randrange(8)]
    server.redis.set(key, value)
    expression, argument, right = f"{record}[1]", payload, payload
    if row.work == GET:
        expression, argument, right = f"execute('get', {record}[1])", key, value
    run_script(
        server.redis,
        f"GB('CommandReader').map(lambda {record}: {expression}).register(trigger={trigger!r}, mode={row.mode!r})",
    )
    floor = ["GET", key] if row.work == GET else ["ECHO", payload]
    return ["RG.TRIGGER", trigger, argument], floor, right.encode()


def _evalsha(server: Server, key: str, right: bytes) -> list[str]:
    """A Lua script that does the same."""
    sha = server.redis.script_load("return redis.call('get', KEYS[1])")
    command = ["EVALSHA", sha, "1", key]
    reply = server.command(*command)
    if reply != right:
        raise WrongResultError(f"EVALSHA answered {reply!r}, not {right!r}")
    return command


def _counters(server: Server) -> dict[bytes, int]:
    (registration,) = server.command("RG.DUMPREGISTRATIONS")
    fields: dict[bytes, Any] = dict(zip(registration[::2], registration[1::2]))
    data = fields[b"RegistrationData"]
    numbers = dict(zip(data[::2], data[1::2]))
    return {name: int(numbers[name]) for name in (b"numTriggered", b"numSuccess", b"numFailures", b"numAborted")}


def _measure_row(run: Run, name: str, server: Server, other: Server | None) -> Measured:
    row = ROWS[name]
    for one in (server, other) if other else (server,):
        ours, floor, right = _register(one, row, run.rng(name))
        reply = one.command(*ours)
        if reply != [right]:
            raise WrongResultError(f"the trigger answered {reply!r}, not {[right]!r}")
    echo = ["ECHO", ours[2]]
    seconds = 1.0 if run.scale == 1 else 0.3
    echo_requests, our_requests, floor_requests = (
        load.requests_for(seconds, server.port, row.connections, *command) for command in (echo, ours, floor)
    )
    before = _counters(server)
    rates: dict[str, list[float]] = {"echo": [], "ours": [], "floor": [], "evalsha": [], "other": []}
    spent: dict[str, list[tuple[float, float]]] = {"ours": [], "other": []}
    p99 = []

    def drive(who: str, at: Server) -> load.Load:
        before = at.processor_seconds()
        seen = load.drive(at.port, row.connections, our_requests, *ours)
        by_server, by_workers = (now - then for then, now in zip(before, at.processor_seconds()))
        spent[who].append((by_server / our_requests * 1e6, by_workers / our_requests * 1e6))
        return seen

    works = {
        "echo": lambda: load.drive(server.port, row.connections, echo_requests, *echo),
        "ours": lambda: drive("ours", server),
        "floor": lambda: load.drive(server.port, row.connections, floor_requests, *floor),
    }
    if row.work == GET:
        evalsha = _evalsha(server, floor[1], right)
        evalsha_requests = load.requests_for(seconds, server.port, row.connections, *evalsha)
        works["evalsha"] = lambda: load.drive(server.port, row.connections, evalsha_requests, *evalsha)
    if other:
        works["other"] = lambda: drive("other", other)
    for number in run.rounds(name):
        seen = dict(zip(works, in_turn(number, *works.values())))
        for who, one_load in seen.items():
            rates[who].append(one_load.per_second)
        p99.append(seen["ours"].p99_ms)
    _check_counters(before, _counters(server), our_requests * run.pairs)
    notes = [f"p99 {Spread.of(p99).median:.2g} ms", f"processor time per trigger {_processor_time(spent['ours'])}"]
    if other:
        times = Spread.of([mine / theirs for mine, theirs in zip(rates["ours"], rates["other"])])
        notes.append(f"{times.median:.2f} [{times.q1:.2f}..{times.q3:.2f}] times the other module's rate")
        notes.append(f"its processor time {_processor_time(spent['other'])}")
    if row.work == GET:
        of_get, of_evalsha = (
            Spread.of([mine / theirs for mine, theirs in zip(rates["ours"], rates[who])])
            for who in ("floor", "evalsha")
        )
        notes.append(f"of the rate of GET {of_get.median:.2f}, of EVALSHA with one GET {of_evalsha.median:.2f}")
    return Measured(
        row=name,
        question=f"RG.TRIGGER {row.work}, {row.mode}, connections: {row.connections}",
        ratios=[mine / theirs for mine, theirs in zip(rates["ours"], rates["echo"])],
        yardstick=rates["echo"],
        ours=rates["ours"],
        yardstick_name="ECHO",
        unit="/s",
        bars=row.bars,
        notes=notes,
        extra={
            "floor": floor[0],
            "floor_rates": rates["floor"],
            "evalsha_rates": rates["evalsha"],
            "p99_ms": p99,
            "other_rates": rates["other"],
            "processor_us": spent,
        },
    )


def _processor_time(spent: list[tuple[float, float]]) -> str:
    server, workers = (Spread.of([one[side] for one in spent]).median for side in (0, 1))
    return f"{server + workers:.1f} us (server {server:.1f}, worker {workers:.1f})"


def _check_counters(before: dict[bytes, int], after: dict[bytes, int], requests: int) -> None:
    """The generator only counts replies; the registration's own counters tell whether they were good ones."""
    done = {name: after[name] - before[name] for name in after}
    if done[b"numSuccess"] < requests or done[b"numFailures"] or done[b"numAborted"]:
        raise WrongResultError(f"of {requests} triggers the registration counted {done}")
