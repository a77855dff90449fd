"""Rows about the file cache: ours beside the naive protocol on the same server, on a file system in memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filecache_naive import Load, Naive, Opens, Outcome, Store, run_load
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn
from server import ROOT, MissingError, Server

if TYPE_CHECKING:
    from redgrease.filecache import FileCache, Got

PROGRAM = ROOT / "target" / "release" / "redgrease"
MEMORY = Path("/dev/shm")
#: Of one measurement.
SECONDS = 2.0
PROCESSES = 6
WRITE_SHARE = 0.2
NAMESPACE = "bench"
KNOWN_SET = f"{NAMESPACE}:keys:set"
CAP = 2_000_000
SAMPLE_EVERY_S = 0.05
#: Keys of the row that only hits; and of that on a disk, so that all its folders are there.
PREPARED = 300
PREPARED_ON_DISK = 1500


@dataclass(frozen=True)
class Rate:
    """What one measurement gave."""

    per_second: float
    #: CPU time of the server per operation.
    server_us: float
    #: Of one call, where that is known.
    read_us: float = 0.0
    write_us: float = 0.0


@dataclass(frozen=True)
class Ours:
    """Opens our cache in each process."""

    directory: str
    url: str
    durability: str = "full"

    def open(self) -> Store:
        from redgrease.filecache import FileCache

        return _OurStore(FileCache(self.directory, self.url, namespace=NAMESPACE, durability=self.durability))


class _OurStore:
    def __init__(self, cache: FileCache) -> None:
        from redgrease.filecache import CacheBusyError

        self.busy: type[Exception] = CacheBusyError
        self.cache = cache
        self.read: Callable[[str], bytes] = cache.read
        self.close = cache.close

    def create(self, key: str, content: bytes) -> None:
        self.cache.write(key, content)


@dataclass(frozen=True)
class OursByGet(Ours):
    """The same, reading by `get_or_create`."""

    def open(self) -> Store:
        store = super().open()
        assert isinstance(store, _OurStore)
        cache = store.cache

        def read(key: str) -> bytes:
            got: Got
            with cache.get_or_create(key, _never) as got:
                return bytes(got.read())

        store.read = read
        return store


def _never() -> bytes:
    raise AssertionError("a hit was expected")


class Stage:
    """A server without the module and a directory, emptied before each measurement."""

    def __init__(self, run: Run, server: Server, parent: Path) -> None:
        self.run = run
        self.server = server
        self.parent = parent
        self.url = f"redis://127.0.0.1:{server.port}/0"
        self.seconds = max(0.5, SECONDS * run.scale)

    @contextlib.contextmanager
    def set_up(self, parent: Path | None = None) -> Iterator[Path]:
        self.server.redis.flushall()
        directory = Path(tempfile.mkdtemp(prefix="redgrease-bench-", dir=parent or self.parent))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def load(self, **changes: Any) -> Load:
        usual = Load(
            processes=PROCESSES,
            seconds=self.seconds,
            write_share=WRITE_SHARE,
            read_sleep=0,
            write_sleep=0,
            known_set=KNOWN_SET,
            url=self.url,
        )
        return replace(usual, **changes)

    def by_python(self, load: Load, opens: Callable[[str, str], Opens], parent: Path | None = None) -> Rate:
        """A load in Python on a cache."""
        with self.set_up(parent) as directory:
            before = self._server_us()
            outcome = run_load(load, opens(str(directory), self.url))
            spent = self._server_us() - before
        _check(outcome)
        return Rate(outcome.per_second, spent / outcome.sum("iterations"), outcome.read_us, outcome.write_us)

    def by_program(self, *flags: str, processes: int = PROCESSES, write_share: float = WRITE_SHARE) -> Rate:
        """Our own load generator, which checks what it reads and, in the end, the whole cache."""
        with self.set_up() as directory:
            return self._stress(directory, processes, write_share, flags)

    def _stress(self, directory: Path, processes: int, write_share: float, flags: tuple[str, ...]) -> Rate:
        command = [str(PROGRAM), "cache", "stress", "--json", "--quiet", "--keyspace", "own"]
        command += ["--processes", str(processes), "--duration", str(self.seconds), "--write-prob", str(write_share)]
        command += ["--read-sleep", "0", "--write-sleep", "0", "--cache-dir", str(directory)]
        command += ["--namespace", NAMESPACE, *flags]
        if "--no-redis" not in flags:
            command += ["--redis-url", self.url]
        before = self._server_us()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        spent = self._server_us() - before
        if ended.returncode != 0:
            raise WrongResultError(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr or ended.stdout}")
        said = json.loads(ended.stdout)
        rate = said["operations_per_second"]
        times = said["latency_seconds"]
        iterations = rate * said["elapsed"]
        return Rate(rate, spent / iterations, times["read"]["p50"] * 1e6, times["write"]["p50"] * 1e6)

    def peak(self) -> float:
        """The most bytes that lay in the files of a bounded cache under load, as a multiple of the bound."""
        with self.set_up() as directory, _Sampler(directory) as sampler:
            self._stress(directory, PROCESSES, WRITE_SHARE, ("--max-bytes", str(CAP)))
        if sampler.samples < self.seconds / SAMPLE_EVERY_S / 10:
            raise WrongResultError(f"the files were looked at only {sampler.samples} times")
        return sampler.most / CAP

    def _server_us(self) -> float:
        info = self.server.redis.info("cpu")
        return 1e6 * (info["used_cpu_user"] + info["used_cpu_sys"])


class _Sampler:
    """Adds up the sizes of all files of a cache, again and again, while something else writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.most = 0
        self.samples = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.most = max(self.most, _bytes_below(self.directory))
            self.samples += 1

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _bytes_below(directory: Path) -> int:
    total = 0
    for name in ("files", "temporary", "quarantine"):
        for folder, _, files in os.walk(directory / name):
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, file)).st_size
    return total


def _check(outcome: Outcome) -> None:
    """No key is created twice, and no process reads what was not listed."""
    for name in ("writes_exist", "writes_busy", "reads_busy"):
        if count := outcome.sum(name):
            raise WrongResultError(f"{count:.0f} {name} in a load without conflicts")
    if not outcome.sum("iterations"):
        raise WrongResultError("nothing was done")


# -- the rows


@dataclass(frozen=True)
class CacheRow:
    question: str
    bars: Bars
    measure: Callable[[Stage, str, CacheRow], Measured]


def _compared(
    stage: Stage,
    name: str,
    row: CacheRow,
    naive: Callable[[], Rate],
    ours: Callable[[], Rate],
    other: Callable[[], Rate] | None = None,
    other_says: Callable[[Rate, Rate, Rate], float] | None = None,
    other_note: str = "",
) -> Measured:
    """Rates in turn; `other` is measured beside them, and what it says stands in the notes."""
    works = [naive, ours] + ([other] if other else [])
    rounds = [in_turn(number, *works) for number in stage.run.rounds(name)]
    yardstick, mine = [one[0] for one in rounds], [one[1] for one in rounds]
    median = {
        field: (
            Spread.of([getattr(one, field) for one in yardstick]).median,
            Spread.of([getattr(one, field) for one in mine]).median,
        )
        for field in ("server_us", "read_us", "write_us")
    }
    notes = [f"server {median['server_us'][1]:.0f} us/op (naive {median['server_us'][0]:.0f})"]
    if other_says:
        notes.append(f"{other_note} {Spread.of([other_says(*one) for one in rounds]).median:.2g}")
    return Measured(
        row=name,
        question=row.question,
        ratios=[ours.per_second / theirs.per_second for theirs, ours in zip(yardstick, mine)],
        yardstick=[one.per_second for one in yardstick],
        ours=[one.per_second for one in mine],
        yardstick_name="naive",
        unit="/s",
        bars=row.bars,
        notes=notes,
        extra={"median_us": median, "seconds": stage.seconds},
    )


def _naive(directory: str, url: str) -> Opens:
    return Naive(directory, url, NAMESPACE)


def _stress(
    stage: Stage, name: str, row: CacheRow, processes: int = PROCESSES, flags: tuple[str, ...] = ()
) -> Measured:
    load = stage.load(processes=processes)
    quiet = replace(load, known_set=None)
    return _compared(
        stage,
        name,
        row,
        lambda: stage.by_python(load, _naive),
        lambda: stage.by_program(*flags, processes=processes),
        # Our generator remembers keys; the naive one asks the server for them, as the proof of concept did.
        lambda: stage.by_python(quiet, _naive),
        lambda naive, ours, other: ours.per_second / other.per_second,
        "ratio to naive that remembers its keys",
    )


def _rust(stage: Stage, name: str, row: CacheRow) -> Measured:
    return _stress(stage, name, row)


def _one(stage: Stage, name: str, row: CacheRow) -> Measured:
    return _stress(stage, name, row, processes=1)


def _bounded(stage: Stage, name: str, row: CacheRow) -> Measured:
    return _stress(stage, name, row, flags=("--max-bytes", str(CAP)))


def _alone(stage: Stage, name: str, row: CacheRow) -> Measured:
    return _stress(stage, name, row, flags=("--no-redis",))


def _python(stage: Stage, name: str, row: CacheRow) -> Measured:
    load = stage.load()
    return _compared(stage, name, row, lambda: stage.by_python(load, _naive), lambda: stage.by_python(load, Ours))


def _python_own(stage: Stage, name: str, row: CacheRow) -> Measured:
    load = stage.load(known_set=None)
    return _compared(stage, name, row, lambda: stage.by_python(load, _naive), lambda: stage.by_python(load, Ours))


def _hit(stage: Stage, name: str, row: CacheRow) -> Measured:
    load = stage.load(known_set=None, write_share=0.0, prepared=PREPARED)
    return _compared(
        stage,
        name,
        row,
        lambda: stage.by_python(load, _naive),
        lambda: stage.by_python(load, OursByGet),
        lambda: stage.by_python(load, Ours),
        lambda naive, ours, other: other.per_second / naive.per_second,
        "read() instead",
    )


def _durable(stage: Stage, name: str, row: CacheRow) -> Measured:
    load = stage.load(known_set=None, write_share=1.0, processes=1, prepared=PREPARED_ON_DISK)
    disk = ROOT / "target"
    return _compared(
        stage,
        name,
        row,
        lambda: stage.by_python(load, _naive, disk),
        lambda: stage.by_python(load, Ours, disk),
        lambda: stage.by_python(load, lambda directory, url: Ours(directory, url, "file"), disk),
        lambda naive, ours, other: other.per_second / naive.per_second,
        "file synced, directory not, as naive",
    )


def _peak(stage: Stage, name: str, row: CacheRow) -> Measured:
    began = time.monotonic()
    peaks = [stage.peak() for _ in stage.run.rounds(name)]
    return Measured(
        row=name,
        question=row.question,
        ratios=peaks,
        yardstick=[CAP / 1e6] * len(peaks),
        ours=[peak * CAP / 1e6 for peak in peaks],
        yardstick_name="bound",
        unit="MB",
        bars=row.bars,
        ratio_unit="of the bound",
        notes=[f"most {max(peaks):.3f}"],
        extra={"seconds": time.monotonic() - began},
    )


ROWS: dict[str, CacheRow] = {
    "cache-rust": CacheRow("six processes, four reads per create", Bars(final=4), _rust),
    "cache-python": CacheRow("the same from Python", Bars(final=2), _python),
    "cache-python-own": CacheRow("the same, without the load's own requests", Bars(final=2), _python_own),
    "cache-one": CacheRow("one process", Bars(), _one),
    "cache-bounded": CacheRow("the same, kept below 2 MB", Bars(), _bounded),
    "cache-peak": CacheRow("bytes on disk of a cache bounded to 2 MB", Bars(final=1.05, less_is_better=True), _peak),
    "cache-hit": CacheRow("get_or_create of what is there", Bars(), _hit),
    "cache-durable": CacheRow("creates that survive a power cut, on a disk", Bars(), _durable),
    "cache-alone": CacheRow("without a server", Bars(), _alone),
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows with one server."""
    _find_all()
    with Server(run.server, module=None) as server:
        stage = Stage(run, server, MEMORY)
        for name in chosen:
            row = ROWS[name]
            yield row.measure(stage, name, row)


def _find_all() -> None:
    if not os.access(MEMORY, os.W_OK):
        raise MissingError(f"{MEMORY} is no file system in memory that can be written to; the rows need one")
    try:
        said = subprocess.run([PROGRAM, "cache", "stress", "--help"], capture_output=True, timeout=20, check=False)
    except OSError:
        said = None
    if said is None or said.returncode != 0:
        raise MissingError(f"{PROGRAM} is missing or has no `cache stress`: run `make build`")
