"""Cluster rows: the cost of a function on three shards of one machine, over the same function on one server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial

import machine
from cluster import Cluster
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, timed, word, words
from server import Server, run_script

SHARDS = 3
#: Strings of nine words, as those of the batch rows.
STRINGS = 200_000
WORDS = 5000
#: Runs whose median is the fixed cost of one round.
RUNS = 50
#: Records of a repartition, and their bytes.
RECORDS, RECORD_BYTES = 1_000_000, 100
SAMPLE_S = 0.05

ROWS: dict[str, str] = {
    "shards-word-count": "processor time of flatmap to nine words, countby, on three shards",
    "shards-fixed": "time of a run of one record that all shards take part in",
    "shards-repartition": "growth of the largest shard while records move between shards",
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows on one cluster, and on one server beside it."""
    with Cluster(run.server, SHARDS) as cluster, Server(run.server) as one:
        rows = {"shards-word-count": _word_count, "shards-fixed": _fixed, "shards-repartition": _repartition}
        for name in chosen:
            yield rows[name](run, name, cluster, one)


def _load(run: Run, name: str, cluster: Cluster, one: Server) -> tuple[str, str, int]:
    """Loads the same strings; returns their prefix, what separates words, and the number of words."""
    rng = run.rng(name)
    prefix, separator = word(rng), rng.choice(" ;|/")
    vocabulary = words(rng, WORDS)
    count = run.size(STRINGS, rng)
    run.progress.show("loading the keys of the cluster rows")
    pipelines = {server.port: server.redis.pipeline(transaction=False) for server in [*cluster.servers, one]}
    for number in range(count):
        key, value = f"{prefix}:{number}", separator.join(rng.choices(vocabulary, k=9))
        for server in (cluster.owner(key), one):
            pipelines[server.port].set(key, value)
        if number % 1000 == 999 or number == count - 1:
            for pipeline in pipelines.values():
                pipeline.execute()
    return prefix, separator, count * 9


def _word_count(run: Run, name: str, cluster: Cluster, one: Server) -> Measured:
    prefix, separator, total = _load(run, name, cluster, one)
    script = (
        f"GB('KeysReader').flatmap(lambda r: r['value'].split({separator!r})).countby(lambda w: w)"
        f".aggregate(0, lambda a, r: a + r['value'], lambda a, b: a + b).run('{prefix}:*')"
    )

    def cost(servers: Sequence[Server]) -> tuple[float, float]:
        before = sum(sum(server.processor_seconds()) for server in servers)
        took, result = timed(lambda: run_script(servers[0].redis, script))
        if result != [str(total).encode()]:
            raise WrongResultError(f"{result} words, not {total}")
        return sum(sum(server.processor_seconds()) for server in servers) - before, took

    # The first runs start workers.
    cost([one])
    cost(cluster.servers)
    plain, ours, times = [], [], []
    for number in run.rounds(name):
        alone, together = in_turn(number, lambda: cost([one]), lambda: cost(cluster.servers))
        plain.append(alone[0])
        ours.append(together[0])
        times.append(together[1] / alone[1])
    spread = Spread.of(times)
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=[mine / theirs for mine, theirs in zip(ours, plain)],
        yardstick=plain,
        ours=ours,
        yardstick_name="one server",
        unit="s",
        bars=Bars(final=1.5, less_is_better=True),
        notes=[f"it takes {spread.median:.2f} [{spread.q1:.2f}..{spread.q3:.2f}] of the time"],
    )


def _fixed(run: Run, name: str, cluster: Cluster, one: Server) -> Measured:
    number_of = run.rng(name).randrange(1000)
    script = f"GB('PythonReader').map(lambda x: x + {number_of}).count().run(lambda: iter([1]))"

    def median_ms(server: Server, expected: int) -> float:
        took = []
        for _ in range(RUNS):
            seconds, result = timed(lambda: run_script(server.redis, script))
            if result != [str(expected).encode()]:
                raise WrongResultError(f"{result}, not {expected}")
            took.append(seconds)
        return Spread.of(took).median * 1000

    plain, ours = [], []
    for number in run.rounds(name):
        asked = cluster.servers[number % SHARDS]
        alone, together = in_turn(number, partial(median_ms, one, 1), partial(median_ms, asked, SHARDS))
        plain.append(alone)
        ours.append(together)
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=ours,
        yardstick=plain,
        ours=ours,
        yardstick_name="one server",
        unit="ms",
        bars=Bars(final=5.0, less_is_better=True),
        ratio_unit="ms",
    )


class _Peak:
    """The largest resident memory of each server with its workers, sampled during the block."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before = self._now()
        self.most = list(self.before)

    def _now(self) -> list[int]:
        return [machine.resident_bytes(server.processes()) for server in self._servers]

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.most = [max(pair) for pair in zip(self.most, self._now())]

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def growth_mib(self) -> float:
        return max(most - before for most, before in zip(self.most, self.before)) / (1 << 20)


def repartition(servers: Sequence[Server], each: int) -> tuple[float, float]:
    """Moves so many records of each shard; returns the seconds, and the growth of the largest shard in MiB."""
    source = f"lambda: ('%08d' % (n * 7919 % {each}) + 'x' * {RECORD_BYTES - 8} for n in range({each}))"
    script = f"GB('PythonReader').repartition(lambda r: r[:8]).map(lambda r: len(r)).count().run({source})"
    with _Peak(servers) as peak:
        seconds, result = timed(lambda: run_script(servers[0].redis, script))
    records = each * len(servers)
    if result != [str(records).encode()]:
        raise WrongResultError(f"{result}, not {records}")
    return seconds, peak.growth_mib()


def _repartition(run: Run, name: str, cluster: Cluster, one: Server) -> Measured:
    each = run.size(RECORDS, run.rng(name)) // SHARDS
    growth: list[float] = []
    rates: list[float] = []

    def once() -> None:
        seconds, grown = repartition(cluster.servers, each)
        growth.append(grown)
        rates.append(each * SHARDS / seconds)

    repartition(cluster.servers, 1000)
    for _ in run.rounds(name):
        once()
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=growth,
        yardstick=[1.0] * len(growth),
        ours=growth,
        yardstick_name="none",
        unit="MiB",
        bars=Bars(final=64, less_is_better=True),
        notes=[f"{each * SHARDS} records of {RECORD_BYTES} bytes, {Spread.of(rates).median:.0f} in a second"],
        ratio_unit="MiB",
        is_noise_judged=False,
    )
