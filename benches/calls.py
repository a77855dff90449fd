"""Call rows: the time of one `execute` in a function that calls one after the other, alone and beside busy clients."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import load
from judge import Bars, Measured, Spread
from rounds import Run, in_turn, words
from server import Server, run_script

CALLS = 4000
BUSY_CLIENTS = 20
#: The share of their rate that busy clients must keep.
RATE_KEPT_MIN = 0.9

ROWS: dict[str, Bars] = {
    "execute-idle": Bars(final=6, less_is_better=True),
    "execute-busy": Bars(final=30, less_is_better=True),
}

FUNCTION = """
import time
def calls(record):
    number, key = int(record[1]), record[2]
    start = time.perf_counter()
    for _ in range(number):
        execute('get', key)
    return (time.perf_counter() - start) / number * 1e6
GB('CommandReader').map(calls).register(trigger={trigger!r}, mode='async')
"""


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows, each on servers of their own."""
    for name in chosen:
        with ExitStack() as servers:
            ours = servers.enter_context(Server(run.server))
            other = servers.enter_context(Server(run.server, module=run.against)) if run.against else None
            yield _measure_row(run, name, ours, other)


def _measure_row(run: Run, name: str, ours: Server, other: Server | None) -> Measured:
    trigger, key, value = words(run.rng(name), 3)
    busy = name == "execute-busy"
    servers = {"ours": ours} | ({"other": other} if other else {})
    for server in servers.values():
        server.redis.set(key, value)
        run_script(server.redis, FUNCTION.format(trigger=trigger))
    calls = run.size(CALLS, run.rng(name))
    micros: dict[str, list[float]] = {who: [] for who in servers}
    kept: dict[str, list[float]] = {who: [] for who in servers}

    def once(who: str, server: Server) -> None:
        if not busy:
            micros[who].append(float(server.command("RG.TRIGGER", trigger, str(calls), key)[0]))
            return
        with _busy_clients(server, key):
            alone = _rate(server, lambda: time.sleep(0.3), 0)
            together = _rate(server, lambda: micros[who].append(_call(server, trigger, calls, key)), calls)
        kept[who].append(together / alone)

    for number in run.rounds(name):
        in_turn(number, *(lambda who=who, server=server: once(who, server) for who, server in servers.items()))
    notes = []
    if busy:
        share = Spread.of(kept["ours"])
        verdict = "kept" if share.median >= RATE_KEPT_MIN else f"below {RATE_KEPT_MIN}"
        notes.append(f"GETs of {BUSY_CLIENTS} clients at {share.median:.2f} of their rate without calls ({verdict})")
    if other:
        times = Spread.of([theirs / mine for theirs, mine in zip(micros["other"], micros["ours"])])
        notes.append(f"{times.median:.2f} [{times.q1:.2f}..{times.q3:.2f}] times the other module's speed")
    return Measured(
        row=name,
        question=f"execute('get') in a loop{f', beside {BUSY_CLIENTS} busy clients' if busy else ''}",
        ratios=micros["ours"],
        yardstick=micros["ours"],
        ours=micros["ours"],
        yardstick_name="-",
        unit="us",
        bars=ROWS[name],
        notes=notes,
        ratio_unit="us",
        is_noise_judged=False,
        extra={"kept": kept, "other_us": micros.get("other", [])},
    )


def _call(server: Server, trigger: str, calls: int, key: str) -> float:
    return float(server.command("RG.TRIGGER", trigger, str(calls), key)[0])


def _rate(server: Server, work: object, own_commands: int) -> float:
    """Commands of others per second while `work` runs."""
    before, start = _processed(server), time.perf_counter()
    work()  # type: ignore[operator]
    return (_processed(server) - before - own_commands) / (time.perf_counter() - start)


def _processed(server: Server) -> int:
    return int(server.redis.info("stats")["total_commands_processed"])


@contextmanager
def _busy_clients(server: Server, key: str) -> Iterator[None]:
    line = [load.generator(), "-p", str(server.port), "-c", str(BUSY_CLIENTS), "-n", "1000000000", "-q", "GET", key]
    clients = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.1)  # until they are connected
        yield
    finally:
        clients.kill()
        clients.wait()
