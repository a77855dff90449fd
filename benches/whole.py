"""Rows about what is built on executions: hooks, coroutines, time events, and many registrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import load
import wire
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, timed, words
from server import Server, run_script

CONNECTIONS = 50
#: Connections of the client beside time events.
BUSY_CONNECTIONS = 20
TIME_EVENTS = 1000
SAVED = 1000
REGISTERED = 10_000

#: As many scripts as that register the functions of `overhead-registry`; a session has at most this many.
PER_SCRIPT = 1000


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows, each on servers of its own."""
    load.generator()
    for name in chosen:
        yield ROWS[name](run, name)


def _rates(run: Run, name: str, works: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {who: [] for who in works}
    for number in run.rounds(name):
        for who, value in zip(works, in_turn(number, *works.values())):
            seen[who].append(value)
    return seen


def _driver(run: Run, server: Server, connections: int, *command: str) -> Callable[[], float]:
    """Drives one command for about a second; returns its rate."""
    requests = load.requests_for(1.0 if run.scale == 1 else 0.3, server.port, connections, *command)
    return lambda: load.drive(server.port, connections, requests, *command).per_second


def _against(run: Run, name: str, question: str, works: dict[str, Callable[[], float]], bars: Bars) -> Measured:
    """The rate of ours as a share of that of the first."""
    yardstick, ours = works
    seen = _rates(run, name, works)
    return Measured(
        row=name,
        question=question,
        ratios=[mine / theirs for mine, theirs in zip(seen[ours], seen[yardstick])],
        yardstick=seen[yardstick],
        ours=seen[ours],
        yardstick_name=yardstick,
        unit="/s",
        bars=bars,
    )


def _hook(run: Run, name: str) -> Measured:
    prefix, other, value = words(run.rng(name), 3)
    hooked, plain = f"{prefix}:1", f"{other}:1"
    with Server(run.server) as server, Server(run.server) as unhooked:
        server.redis.mset({hooked: value, plain: value})
        unhooked.redis.set(plain, value)
        run_script(
            server.redis,
            "GB('CommandReader').map(lambda r: call_next(*r[1:]))"
            f".register(hook='get', keyprefix='{prefix}:', mode='sync')",
        )
        if server.command("GET", hooked) != value.encode():
            raise WrongResultError(f"the hooked command answered {server.command('GET', hooked)!r}, not {value!r}")
        works = {
            "GET": _driver(run, unhooked, CONNECTIONS, "GET", plain),
            "hooked": _driver(run, server, CONNECTIONS, "GET", hooked),
        }
        if not _triggered(server):
            raise WrongResultError("the hook was not run")
        besides = _driver(run, server, CONNECTIONS, "GET", plain)
        measured = _against(run, name, "GET hooked by a sync function that calls call_next", works, Bars())
        share = besides() / Spread.of(measured.yardstick).median
        measured.notes.append(f"a GET of a key without hook beside it: {share:.2f} of the rate without hooks")
        return measured


def _triggered(server: Server) -> int:
    (registration,) = server.command("RG.DUMPREGISTRATIONS")
    data = dict(zip(registration[::2], registration[1::2]))[b"RegistrationData"]
    return int(dict(zip(data[::2], data[1::2]))[b"numTriggered"])


def _coroutine(run: Run, name: str) -> Measured:
    trigger, payload = words(run.rng(name), 2)
    with Server(run.server) as server:
        run_script(
            server.redis,
            "import asyncio\nasync def answer(record):\n    await asyncio.sleep(0)\n    return record[1]\n"
            f"GB('CommandReader').map(answer).register(trigger='{trigger}')",
        )
        if server.command("RG.TRIGGER", trigger, payload) != [payload.encode()]:
            raise WrongResultError("the coroutine gave another result")
        works = {
            "ECHO": _driver(run, server, CONNECTIONS, "ECHO", payload),
            "coroutine": _driver(run, server, CONNECTIONS, "RG.TRIGGER", trigger, payload),
        }
        return _against(run, name, "RG.TRIGGER of a coroutine that awaits once", works, Bars())


def _time_events(run: Run, name: str) -> Measured:
    count = run.size(TIME_EVENTS, run.rng(name))
    with Server(run.server) as server, Server(run.server) as idle:
        run_script(server.redis, f"for _ in range({count}):\n    registerTE(1, lambda: execute('incr', 'calls'))")
        for one in (server, idle):
            one.redis.set("k", "v")
        calls = int(server.redis.get("calls") or 0)
        works = {
            "GET": _driver(run, idle, BUSY_CONNECTIONS, "GET", "k"),
            "beside": _driver(run, server, BUSY_CONNECTIONS, "GET", "k"),
        }
        seconds, measured = timed(
            lambda: _against(run, name, f"GETs beside {count} time events of one second each", works, Bars())
        )
        made = (int(server.redis.get("calls") or 0) - calls) / seconds
        measured.notes.append(f"{made:.0f} calls per second of at most {count}")
        return measured


def _registered(server: Server, count: int, prefix: str) -> None:
    for begin in range(0, count, PER_SCRIPT):
        end = min(count, begin + PER_SCRIPT)
        run_script(
            server.redis,
            f"for number in range({begin}, {end}):\n"
            f"    GB('KeysReader').foreach(lambda r: None).register(f'{prefix}{{number}}:*', eventTypes=['set'])",
        )


def _times(run: Run, name: str, question: str, work: Callable[[Server], object]) -> Measured:
    """Milliseconds of something on a server with registrations, as a difference from one without the module."""
    count = run.size(SAVED, run.rng(name))
    with Server(run.server) as server, Server(run.server, module=None) as plain:
        _registered(server, count, "saved:")
        seen = _rates(
            run,
            name,
            {
                who: lambda one=one: timed(lambda: work(one))[0] * 1000
                for who, one in (("plain", plain), ("ours", server))
            },
        )
        if len(server.command("RG.DUMPREGISTRATIONS")) != count:
            raise WrongResultError("registrations are missing")
    return Measured(
        row=name,
        question=f"{question} with {count} registrations",
        ratios=[mine - theirs for mine, theirs in zip(seen["ours"], seen["plain"])],
        yardstick=seen["plain"],
        ours=seen["ours"],
        yardstick_name="no module",
        unit="ms",
        bars=Bars(less_is_better=True),
        ratio_unit="ms",
        is_noise_judged=False,
    )


def _registry(run: Run, name: str) -> Measured:
    rng = run.rng(name)
    count, commands = run.size(REGISTERED, rng), run.size(200_000, rng)
    packed = wire.windows([["SET", f"unmatched:{rng.randrange(10_000)}", str(number)] for number in range(commands)])
    with Server(run.server) as server, Server(run.server) as one, Server(run.server) as empty:
        _registered(server, count, "matched:")
        _registered(one, 1, "matched:")
        key = f"unmatched:{rng.randrange(10_000)}"
        works = {
            "no registrations": _driver(run, empty, CONNECTIONS, "SET", key, "1"),
            "registered": _driver(run, server, CONNECTIONS, "SET", key, "1"),
        }
        measured = _against(run, name, f"SETs that match none of {count} registrations", works, Bars(final=0.9))
        piped = [
            [commands / wire.send_all(each.port, packed, 1) for each in (empty, one, server)]
            for _ in range(run.pairs + 1)
        ][1:]
        of_none = Spread.of([all_ / none for none, _, all_ in piped]).median
        of_one = Spread.of([all_ / single for _, single, all_ in piped]).median
        measured.notes.append(
            f"in a pipeline {of_none:.2f} of the rate without, {of_one:.2f} of that with one registration"
        )
        return measured


ROWS: dict[str, Callable[[Run, str], Measured]] = {
    "hook-next": _hook,
    "coroutine": _coroutine,
    "time-events": _time_events,
    "save-registrations": lambda run, name: _times(run, name, "SAVE", lambda server: server.redis.save()),
    "load-registrations": lambda run, name: _times(
        run, name, "DEBUG RELOAD", lambda server: server.command("DEBUG", "RELOAD")
    ),
    "overhead-registry": _registry,
}
