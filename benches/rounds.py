"""What every row shares: the run's choices, names that differ per seed, and alternating measurements."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class WrongResultError(Exception):
    """Ours and the yardstick disagree: a ratio of such runs means nothing."""


@dataclass
class Progress:
    """Says on stderr where we are; one changing line on a terminal, nothing per round elsewhere."""

    is_terminal: bool = field(default_factory=sys.stderr.isatty)

    def show(self, text: str) -> None:
        if self.is_terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        self.show("")
        print(text, file=sys.stderr, flush=True)


@dataclass
class Run:
    """The choices of one `bench.py` run."""

    server: Path
    seed: int
    pairs: int
    scale: float
    #: Another build of the module, measured in turn with this one.
    against: Path | None = None
    progress: Progress = field(default_factory=Progress)

    def rng(self, row: str) -> random.Random:
        """A row's own source of chance, so that choosing rows does not change their sizes."""
        return random.Random(f"{self.seed}/{row}")

    def size(self, wanted: int, rng: random.Random) -> int:
        """About `wanted`, scaled; different per seed, never by more than a tenth."""
        return max(1, round(wanted * self.scale * rng.uniform(0.9, 1.1)))

    def rounds(self, row: str) -> Iterator[int]:
        for number in range(self.pairs):
            self.progress.show(f"{row}: {number + 1} of {self.pairs}")
            yield number
        self.progress.show("")


def word(rng: random.Random, shortest: int = 4, longest: int = 8) -> str:
    """A name of lower-case letters that cannot be known beforehand."""
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(shortest, longest)))


def words(rng: random.Random, count: int) -> list[str]:
    """Different names of one length, so that none begins another one."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[word(rng, 7, 7)] = None
    return list(found)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a call took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def in_turn(number: int, *works: Callable[[], T]) -> list[T]:
    """Runs all, beginning with another one in each round; the results are in the order of the arguments."""
    results: dict[int, T] = {}
    for step in range(len(works)):
        position = (number + step) % len(works)
        results[position] = works[position]()
    return [results[position] for position in range(len(works))]
