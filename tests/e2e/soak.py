"""The soak test: a mixed load at a constant rate for a long time; memory, descriptors and threads must not grow.

`make soak` runs it for an hour, `SOAK_SECONDS` changes that. Samples are taken every 10 s. At the end the last sixth of
the time is compared with the second sixth (of an hour: minutes 50 to 60 with minutes 10 to 20), each by its median.

- Memory, descriptors and threads may grow by 5 %. Small numbers may grow by a fixed amount instead, see `ROWS`.
- Latency is the 99th percentile of a PING and a GET that are sent all the time, taken from each sample. Other programs
  on the machine change it, so it fails only when it has more than tripled and grown by more than 20 ms. A list or a
  queue that gets longer and longer does both in an hour; noise does not in the median of a sixth of the time.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .chaos import CONF, new_seed
from .load import Load, register_always
from .load_requests import Asker, BrokenError, Findings, Life
from .processes import Process, parent_of, process, workers_of
from .servers import Server, ServerKind, only_kind

SAMPLE_S = 10.0
PROBE_PAUSE_S = 0.02
GROWTH = 0.05
#: Lists of executions of this length are full after some seconds: their growth is no leak.
LOAD_ARGS = {"MaxWorkers": 6, "MaxExecutions": 100, "MaxExecutionsPerRegistration": 20}


@dataclass(frozen=True)
class Tree:
    """Resources of a worker, its supervisor, and what the worker started."""

    pid: int
    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, worker: Process) -> Tree:
        members = [worker]
        supervisor = process(parent_of(worker.pid) or 0)
        if supervisor is not None:
            members.append(supervisor)
        return cls(
            worker.pid,
            sum(each.rss() - each.shared_rss() for each in members),
            sum(each.descriptors() for each in members),
            sum(each.threads() for each in members),
        )


@dataclass(frozen=True)
class Sample:
    """Resources at one time, and the latency since the sample before."""

    at: float
    server_memory: int
    shared_memory: int
    server_descriptors: int
    server_threads: int
    trees: tuple[Tree, ...]
    used_memory: int
    p50_ms: float
    p99_ms: float


class Probe(threading.Thread):
    """Sends a PING and a GET again and again, and keeps how long they took."""

    def __init__(self, life: Life, findings: Findings) -> None:
        super().__init__(name="probe", daemon=True)
        self.asker = Asker(life, findings, self.name)
        self.stopping = threading.Event()
        self._latencies: list[float] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self.stopping.wait(PROBE_PAUSE_S):
            for command in (["PING"], ["GET", "k:1"]):
                began = time.perf_counter()
                try:
                    self.asker.ask("probe", *command)
                except BrokenError:
                    return
                with self._lock:
                    self._latencies.append((time.perf_counter() - began) * 1000)
        self.asker.close()

    def take(self) -> list[float]:
        """The latencies in ms since the last call, in ascending order."""
        with self._lock:
            taken, self._latencies = self._latencies, []
        return sorted(taken) or [0.0]


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a number of a sample, and how much it may grow."""

    name: str
    number: Callable[[Sample], float]
    #: Growth that is allowed in addition to a relative one: the larger of both counts.
    allowance: float
    share: float = GROWTH
    unit: float = 1.0


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(list(values) or [0.0])


def _largest(values: Iterable[float]) -> float:
    return max(values, default=0.0)


MB = 1e6
MIB = 1 << 20
ROWS = (
    # Allocators and the interpreter keep pages: 2 MB are no leak, as in test_leaks.py. Memory is without shared pages.
    Row("memory of the server, MB", lambda s: s.server_memory, 2 * MB, unit=MB),
    Row("used_memory of the server, MB", lambda s: s.used_memory, 2 * MB, unit=MB),
    # The rings of a worker have 2 MiB, which become resident as they are used for the first time.
    Row("shared memory of the server, MB", lambda s: s.shared_memory, LOAD_ARGS["MaxWorkers"] * 2 * MIB, unit=MB),
    Row("memory of a worker tree, largest, MB", lambda s: _largest(t.memory for t in s.trees), 2 * MB, unit=MB),
    # A worker that has served scripts has loaded 8 MB of modules more than a new one.
    Row("memory of a worker tree, mean, MB", lambda s: _mean(t.memory for t in s.trees), 8 * MB, unit=MB),
    # The number of spare workers varies by one or two; each costs the server a few descriptors.
    Row("worker trees", lambda s: len(s.trees), 2),
    Row("descriptors of the server", lambda s: s.server_descriptors, 16),
    Row("descriptors of a worker tree, largest", lambda s: _largest(t.descriptors for t in s.trees), 3),
    Row("threads of the server", lambda s: s.server_threads, 1),
    # Threads for executions start when they are needed: there are up to ExecutionThreads of them.
    Row("threads of a worker tree, largest", lambda s: _largest(t.threads for t in s.trees), 5),
    Row("latency p50, ms", lambda s: s.p50_ms, 20.0, share=2.0),
    Row("latency p99, ms", lambda s: s.p99_ms, 20.0, share=2.0),
)


@dataclass(frozen=True)
class Comparison:
    """A row with the medians of both parts of the time."""

    row: Row
    early: float
    late: float

    @property
    def limit(self) -> float:
        return self.early + max(self.early * self.row.share, self.row.allowance)

    @property
    def grown(self) -> bool:
        return self.late > self.limit

    def __str__(self) -> str:
        change = (self.late / self.early - 1) * 100 if self.early else 0.0
        values = [f"{value / self.row.unit:>10.2f}" for value in (self.early, self.late, self.limit)]
        return f"{self.row.name:<38}{''.join(values)} {change:>+8.1f} %  {'GROWN' if self.grown else ''}"


def compare(samples: list[Sample], seconds: float) -> list[Comparison]:
    """Compare the last sixth of the time with the second one."""
    sixth = seconds / 6
    early = [sample for sample in samples if sixth <= sample.at < 2 * sixth]
    late = [sample for sample in samples if sample.at >= 5 * sixth]
    assert early and late, f"{len(samples)} samples in {seconds:.0f} s are too few: use at least 120 s"
    return [
        Comparison(row, statistics.median(map(row.number, early)), statistics.median(map(row.number, late)))
        for row in ROWS
    ]


class Soak:
    """One run of the soak test."""

    def __init__(self, kind: ServerKind, seconds: float, seed: str) -> None:
        self._seconds = seconds
        self._seed = seed
        self._server = Server(kind, load_args=LOAD_ARGS, conf={**CONF, "appendfsync": "everysec"})
        self._findings = Findings(seed)
        self._samples: list[Sample] = []

    def run(self) -> int:
        """Run, print the tables, and return the exit status."""
        self._server.start()
        life = Life(self._server)
        asker = Asker(life, self._findings, "checker")
        try:
            register_always(asker, record=False)
            probe = Probe(life, self._findings)
            probe.start()
            with Load(
                life, self._findings, self._seed, clients=4, pause_s=0.05, admin_interval_s=15.0, harm=False
            ) as load:
                self._take_samples(asker, probe)
            probe.stopping.set()
            probe.join(30)
        finally:
            asker.close()
            self._server.stop()
        tally = load.result()[1]
        tally.add(probe.asker.tally)
        print(tally.table())
        return self._print_comparison()

    def _take_samples(self, asker: Asker, probe: Probe) -> None:
        began = time.monotonic()
        print(f"{'s':>6} {'server MB':>9} {'fds':>4} {'threads':>7} {'workers: MB (fds, threads)'}")
        while (now := time.monotonic() - began) < self._seconds:
            if self._findings.too_many.wait(min(SAMPLE_S, self._seconds - now)):
                return
            sample = self._sample(asker, probe, time.monotonic() - began)
            self._samples.append(sample)
            trees = " ".join(f"{t.memory / MB:.0f} ({t.descriptors}, {t.threads})" for t in sample.trees)
            print(
                f"{sample.at:>6.0f} {sample.server_memory / MB:>9.1f} {sample.server_descriptors:>4} "
                f"{sample.server_threads:>7} {trees}  p99 {sample.p99_ms:.1f} ms",
                flush=True,
            )

    def _sample(self, asker: Asker, probe: Probe, at: float) -> Sample:
        server = process(self._server.pid)
        assert server is not None
        info = asker.ask("sample", "INFO", "memory")
        assert isinstance(info, bytes)
        used = next(line for line in info.decode().splitlines() if line.startswith("used_memory:"))
        shared = server.shared_rss()
        latencies = probe.take()
        return Sample(
            at,
            server.rss() - shared,
            shared,
            server.descriptors(),
            server.threads(),
            self._trees(),
            int(used.split(":")[1]),
            latencies[len(latencies) // 2],
            latencies[len(latencies) * 99 // 100],
        )

    def _trees(self) -> tuple[Tree, ...]:
        trees = []
        for worker in sorted(workers_of(self._server.pid), key=lambda worker: worker.pid):
            try:
                trees.append(Tree.of(worker))
            except OSError:
                continue  # it ended in the meantime
        return tuple(trees)

    def _print_comparison(self) -> int:
        comparisons = compare(self._samples, self._seconds)
        print(f"{'':<38}{'2nd sixth':>10}{'last sixth':>10}{'limit':>10} {'change':>10}")
        print("\n".join(map(str, comparisons)))
        violations = self._findings.violations
        for violation in violations:
            print(f"VIOLATION (seed {self._seed}, after {violation.at:.1f} s): {violation.what}")
        grown = [comparison.row.name for comparison in comparisons if comparison.grown]
        print(f"grown: {', '.join(grown)} (seed {self._seed})" if grown else "nothing has grown")
        return 1 if grown or violations else 0


def main() -> int:
    seconds = float(os.environ.get("SOAK_SECONDS") or 3600)
    seed = os.environ.get("SOAK_SEED") or new_seed()
    kind = only_kind("soak")
    print(f"soak: {kind.name}, seed {seed}, {seconds:.0f} s", flush=True)
    return Soak(kind, seconds, seed).run()


if __name__ == "__main__":
    sys.exit(main())
