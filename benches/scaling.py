"""How the cost of a function on a cluster grows: runs of several sizes, and a model fitted to them.

    .venv/bin/python benches/scaling.py                          # all, about two minutes
    .venv/bin/python benches/scaling.py --shards 3,6 --records 1000,100000 --json

Messages and bytes are counted in the simulation of clusters, time and memory on servers of this machine. Each model is
a sum of terms with coefficients of zero or more, fitted by least squares to relative errors. What it says of a size
that was not run is marked "extrapolated".
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import machine
import numpy as np
from cluster import Cluster
from judge import Spread
from rounds import Progress, WrongResultError, timed
from server import ROOT, Server, default_server, find_server, run_script
from shards import repartition

#: Shards of the simulation.
SIMULATED = (3, 10, 30, 100, 200)
#: Steps of the simulated runs, and the records of those that are looked at: so many that each shard has some to count,
#: so few that what they do not cost is seen. A simulated worker sends each record by itself.
SIMULATED_STEPS = {"count": 1000, "repartition, count": 100}
#: Shards on this machine, and runs of one record for each.
SHARDS, RUNS = (3, 6, 12, 24), 100
#: Records of a repartition on three shards, and runs of each size.
RECORDS, REPEATS = (10_000, 100_000, 1_000_000, 10_000_000), 3
#: What is asked of the models.
MANY_SHARDS, MANY_RECORDS = 200, 10_000_000

TERMS: dict[str, Callable[[float], float]] = {
    "1": lambda _: 1.0,
    "n": lambda n: n,
    # Of n shards, those that are not the initiator.
    "(n-1)": lambda n: n - 1,
    "(n-1)^2": lambda n: (n - 1) ** 2,
}
#: Terms of what grows with shards.
OF_SHARDS = ("1", "(n-1)", "(n-1)^2")


@dataclass
class Model:
    """A quantity by the number of shards or records."""

    name: str
    unit: str
    #: What is counted.
    by: str
    #: Names of TERMS.
    terms: tuple[str, ...]
    sizes: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    def add(self, size: float, value: float) -> None:
        self.sizes.append(size)
        self.measured.append(value)

    def coefficients(self) -> list[float]:
        """Fitted to relative errors; a term whose coefficient would be negative is left out."""
        kept = list(self.terms)
        while True:
            rows = [[TERMS[term](size) / value for term in kept] for size, value in zip(self.sizes, self.measured)]
            found, *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)), rcond=None)
            least = int(np.argmin(found))
            if found[least] >= 0 or len(kept) == 1:
                by_term = dict(zip(kept, found))
                return [float(by_term.get(term, 0.0)) for term in self.terms]
            del kept[least]

    def at(self, size: float) -> float:
        return sum(factor * TERMS[term](size) for factor, term in zip(self.coefficients(), self.terms))

    def worst_error(self) -> float:
        """The largest relative error of the fit."""
        return max(abs(self.at(size) / value - 1) for size, value in zip(self.sizes, self.measured))

    def formula(self) -> str:
        parts = []
        for factor, term in zip(self.coefficients(), self.terms):
            if factor:
                parts.append(f"{factor:.3g}" if term == "1" else f"{factor:.3g} {term}")
        return " + ".join(parts)


def simulated() -> list[Model]:
    """Messages and bytes of one run, counted by the test of the engine."""
    command = ["cargo", "test", "--release", "--quiet", "-p", "redgrease-engine", "--test", "shards", "costs"]
    # One test, whose output is a table.
    env = {**os.environ, "SIMULATION_COSTS": ",".join(map(str, SIMULATED))}
    done = subprocess.run(
        [*command, "--", "--nocapture"], cwd=ROOT, env=env, check=True, capture_output=True, text=True
    )
    rows = re.findall(r"\| ([a-z, ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", done.stdout)
    models = []
    for steps, records in SIMULATED_STEPS.items():
        chosen = [row for row in rows if row[0] == steps and int(row[2]) == records]
        if len(chosen) != len(SIMULATED):
            raise RuntimeError(f"the simulation printed other rows: {done.stdout[-500:]}")
        for name, unit, column in (("messages", "", 3), ("bytes", "B", 4)):
            model = Model(f"{steps}: {name} of a run", unit, "shards", OF_SHARDS)
            for row in chosen:
                model.add(int(row[1]), int(row[column]))
            models.append(model)
    return models


def fixed(binary: Path, shards: Sequence[int], progress: Progress) -> list[Model]:
    """Time and processor time of a run of one record for each shard."""
    time_ms = Model("time of a run of one record for each shard", "ms", "shards", OF_SHARDS)
    processor_ms = Model("processor time of it, all shards", "ms", "shards", OF_SHARDS)
    for count in shards:
        progress.show(f"{count} shards")
        with Cluster(binary, count) as cluster:
            script = "GB('PythonReader').count().run(lambda: iter([1]))"
            expected = [str(count).encode()]

            def once(server: Server, script: str = script, expected: list[bytes] = expected) -> float:
                seconds, result = timed(lambda: run_script(server.redis, script))
                if result != expected:
                    raise WrongResultError(f"{result}, not {expected}")
                return seconds * 1000

            once(cluster.servers[0])
            before = sum(sum(server.processor_seconds()) for server in cluster.servers)
            took = Spread.of([once(cluster.servers[0]) for _ in range(RUNS)])
            spent = sum(sum(server.processor_seconds()) for server in cluster.servers) - before
            progress.line(f"{count} shards: {took.median:.2f} ms [{took.q1:.2f}..{took.q3:.2f}]")
            time_ms.add(count, took.median)
            processor_ms.add(count, spent / RUNS * 1000)
    return [time_ms, processor_ms]


def repartitions(binary: Path, records: Sequence[int], progress: Progress) -> Model:
    """Time of a repartition on three shards. Their memory does not grow with the records: it needs no model."""
    time_ms = Model("time of a repartition on three shards", "ms", "records", ("1", "n"))
    with Cluster(binary, 3) as cluster:
        repartition(cluster.servers, 1000)
        for count in records:
            times, grown = [], []
            for number in range(REPEATS):
                progress.show(f"{count} records: {number + 1} of {REPEATS}")
                seconds, growth = repartition(cluster.servers, count // 3)
                times.append(seconds * 1000)
                grown.append(growth)
            took, more = Spread.of(times), Spread.of(grown)
            progress.line(
                f"{count} records: {took.median:.0f} ms [{took.q1:.0f}..{took.q3:.0f}], "
                f"largest shard grows by {more.median:.1f} MiB [{more.q1:.1f}..{more.q3:.1f}]"
            )
            time_ms.add(count, took.median)
    return time_ms


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main() -> int:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description="How the cost of a function on a cluster grows.")
    parser.add_argument("--server", default=default_server(), help="redis-7, valkey, redis-8 or a path")
    parser.add_argument("--shards", type=_numbers, default=list(SHARDS), help="shards on this machine, such as 3,6,12")
    parser.add_argument(
        "--records", type=_numbers, default=list(RECORDS), help="records that move, such as 1000,1000000"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON text")
    args = parser.parse_args()
    progress = Progress()
    binary = find_server(args.server)
    before = machine.times()
    progress.show("simulating clusters")
    models = simulated()
    if args.shards:
        models += fixed(binary, args.shards, progress)
    if args.records:
        models.append(repartitions(binary, args.records, progress))
    share = machine.others_share(before, machine.times())
    if args.json:
        rows = [
            {
                "name": model.name,
                "unit": model.unit,
                "by": model.by,
                "measured": dict(zip(model.sizes, model.measured)),
                "terms": dict(zip(model.terms, model.coefficients())),
                "worst_error": model.worst_error(),
            }
            for model in models
        ]
        print(json.dumps({"models": rows, "others_share": share}, indent=2))
        return 0
    print("| Quantity | Model | Largest error | Then |\n|---|---|---|---|")
    for model in models:
        size = MANY_SHARDS if model.by == "shards" else MANY_RECORDS
        measured = dict(zip(model.sizes, model.measured))
        told = "measured" if size in measured else "extrapolated"
        value = measured.get(size, model.at(size))
        unit = f", {model.unit}" if model.unit else ""
        print(
            f"| {model.name}{unit} | {model.formula()} | {model.worst_error():.0%} "
            f"| {size:,} {model.by}: {value:,.4g} ({told}) |"
        )
    if share is not None:
        print(f"\nOthers used {share:.0%} of the machine.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
