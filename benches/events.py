"""Event rows: time until all events are processed, as a multiple of the plain commands on a server without module.

Judged are commands sent by a redis-py pipeline, the yardstick client of all rows. Beside it stands the multiple of
commands that were packed beforehand: that floor is the server's own speed, and no client reaches it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import wire
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, word, words
from server import Server, run_script

DEADLINE_S = 60.0
GROUP = "bench"
#: Lines per reply, by which the sender counts replies.
LINES = {"SET": 1, "XADD": 2}


@dataclass(frozen=True)
class EventRow:
    question: str
    verb: str
    count: int
    bars: Bars
    #: The registration; `{...}` are filled in per round.
    script: str


STREAM = ".register({prefix!r}, batch=1000, duration=50, mode='async', trimStream=False)"
ROWS: dict[str, EventRow] = {
    "xadd-batch": EventRow(
        "XADD until all processed, batch 1000, one incrby per batch",
        "XADD",
        100_000,
        Bars(final=3, less_is_better=True),
        "GB('StreamReader').accumulate(lambda a, r: (a or 0) + 1)"
        ".foreach(lambda n: execute('incrby', {counter!r}, str(n)))" + STREAM,
    ),
    "xadd-each": EventRow(
        "XADD until all processed, batch 1000, one incr per message",
        "XADD",
        100_000,
        Bars(final=3, less_is_better=True),
        "GB('StreamReader').foreach(lambda {record}: execute('incr', {counter!r}))" + STREAM,
    ),
    "set-async": EventRow(
        "SET pipelined until all processed, async event with one incr",
        "SET",
        50_000,
        Bars(final=4, less_is_better=True),
        "GB('KeysReader').foreach(lambda {record}: execute('incr', {counter!r})).register({prefix!r}, mode='async')",
    ),
    "set-sync": EventRow(
        "SET pipelined until all processed, sync event with one incr",
        "SET",
        50_000,
        Bars(final=4, less_is_better=True),
        "GB('KeysReader').foreach(lambda {record}: execute('incr', {counter!r})).register({prefix!r}, mode='sync')",
    ),
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    with Server(run.server, module=None) as plain:
        for name in chosen:
            with ExitStack() as servers:
                ours = servers.enter_context(Server(run.server))
                other = servers.enter_context(Server(run.server, module=run.against)) if run.against else None
                yield _measure_row(run, name, plain, ours, other)


def _measure_row(run: Run, name: str, plain: Server, ours: Server, other: Server | None) -> Measured:
    row, rng = ROWS[name], run.rng(name)
    count = max(1000, round(run.size(row.count, rng), -3))
    times: dict[str, list[list[float]]] = {"redis-py": [], "packed": []}
    others: dict[str, list[float]] = {"redis-py": [], "packed": []}
    by_consumer: list[float] = []
    for number in range(-1, run.pairs):  # round -1 warms up
        if number >= 0:
            run.progress.show(f"{name}: {number + 1} of {run.pairs}")
        for how, sender in (("redis-py", _send_by_client), ("packed", send_packed)):
            stem, rest, counter = words(rng, 3)
            commands = _commands(row.verb, f"{stem}:{rest}", count, word(rng))
            script = row.script.format(prefix=f"{stem}:*", counter=counter, record=word(rng))
            measured = [ours, other] if other else [ours]
            seconds = in_turn(
                number,
                sender(plain, commands),
                *(_until_processed(server, script, sender(server, commands), counter, count) for server in measured),
            )
            for server in (plain, *measured):
                server.redis.flushall()
            if number >= 0:
                times[how].append(seconds[:2])
                others[how] += seconds[2:]
            if number >= 0 and how == "redis-py" and name == "xadd-each":
                by_consumer.append(_by_consumer(plain, commands, counter, count)())
                plain.redis.flushall()
    judged, packed = times["redis-py"], times["packed"]
    at_speed = Spread.of([mine / floor for floor, mine in packed])
    mine_s = Spread.of([mine for _, mine in packed]).median
    notes = [f"packed beforehand: {at_speed.median:.1f} times the floor, {count / mine_s:,.0f} events/s"]
    if by_consumer:
        share = Spread.of([theirs / mine for theirs, (_, mine) in zip(by_consumer, judged)])
        notes.append(f"a consumer group loop of redis-py needs {share.median:.2f} times our time")
    for how, seconds_of_other in others.items():
        if seconds_of_other:
            times_other = Spread.of([theirs / mine for theirs, (_, mine) in zip(seconds_of_other, times[how])])
            notes.append(f"{how}: {times_other.median:.2f} times the other module's speed")
    return Measured(
        row=name,
        question=row.question,
        ratios=[mine / floor for floor, mine in judged],
        yardstick=[floor * 1e3 for floor, _ in judged],
        ours=[mine * 1e3 for _, mine in judged],
        yardstick_name=f"plain {row.verb}",
        unit="ms",
        bars=row.bars,
        notes=notes,
        extra={
            "events": count,
            "script": script,
            "packed_floor_and_ours_s": packed,
            "other_s": others,
            "consumer_s": by_consumer,
        },
    )


def _commands(verb: str, key: str, count: int, field: str) -> list[list[str]]:
    if verb == "XADD":
        return [["XADD", key, "*", field, str(number)] for number in range(count)]
    return [["SET", f"{key}:{number}", str(number)] for number in range(count)]


def _send_by_client(server: Server, commands: list[list[str]]) -> Callable[[], float]:
    """Sends by redis-py, a pipeline of a thousand at a time; the call returns the seconds until all are answered."""

    def send() -> float:
        start = time.perf_counter()
        pipeline = server.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            if len(pipeline) == wire.WINDOW:
                pipeline.execute()
        pipeline.execute()
        return time.perf_counter() - start

    return send


def send_packed(server: Server, commands: list[list[str]]) -> Callable[[], float]:
    """The same at the server's own speed."""
    return partial(wire.send_all, server.port, wire.windows(commands), LINES[commands[0][0]])


def _until_processed(
    server: Server, script: str, send: Callable[[], float], counter: str, count: int
) -> Callable[[], float]:
    """Registers, sends and waits; the call returns the seconds from the first command to the last event's effect."""

    def work() -> float:
        run_script(server.redis, script)
        (registration,) = server.command("RG.DUMPREGISTRATIONS")
        start = time.perf_counter()
        send()
        processed = wait_for_count(server, counter, count)
        seconds = time.perf_counter() - start
        server.command("RG.UNREGISTER", registration[1])
        if processed > count:
            raise WrongResultError(f"{processed} events were processed of {count} sent")
        return seconds

    return work


def wait_for_count(server: Server, counter: str, count: int) -> int:
    """Waits until the counter has reached the count, and returns it."""
    start = time.perf_counter()
    while (processed := int(server.redis.get(counter) or 0)) < count:
        if time.perf_counter() - start > DEADLINE_S:
            raise WrongResultError(f"{processed} of {count} events were processed after {DEADLINE_S:.0f} s")
        time.sleep(0.002)
    return processed


def _by_consumer(plain: Server, commands: list[list[str]], counter: str, count: int) -> Callable[[], float]:
    """The same increments by a consumer group on a server without module, in a process of its own."""
    key = commands[0][1]

    def work() -> float:
        plain.redis.xgroup_create(key, GROUP, id="0", mkstream=True)
        command = [sys.executable, str(Path(__file__).with_name("consumer.py")), str(plain.port), key, GROUP, counter]
        with subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            try:
                if consumer.stdout.readline() != "ready\n":
                    raise RuntimeError("the consumer did not start")
                start = time.perf_counter()
                _send_by_client(plain, commands)()
                wait_for_count(plain, counter, count)
                return time.perf_counter() - start
            finally:
                consumer.terminate()

    return work
