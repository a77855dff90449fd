"""How a row is judged: ratios pair by pair, median and quartiles, and a verdict against its bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PAIRS_MIN = 9
NOISE_MAX = 0.30
OTHERS_MAX = 0.10


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3)

    @property
    def relative(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (self.q3 - self.q1) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Bars:
    """What a row must reach; None: nothing is asked yet."""

    first: float | None = None
    final: float | None = None
    less_is_better: bool = False

    def reached(self, spread: Spread, bar: float) -> bool:
        """By the worse quartile."""
        return spread.q3 <= bar if self.less_is_better else spread.q1 >= bar


@dataclass
class Measured:
    """One row's outcome. A ratio is yardstick / ours in time, or ours / yardstick in rate, unless `unit` says else."""

    row: str
    question: str
    ratios: list[float]
    yardstick: list[float]
    ours: list[float]
    yardstick_name: str
    unit: str
    bars: Bars
    notes: list[str] = field(default_factory=list)
    #: Set where the rule for the verdict is the row's own.
    own_verdict: str | None = None
    #: What stands in the column of the ratios where they are no ratios.
    ratio_unit: str = ""
    is_noise_judged: bool = True
    extra: dict[str, Any] = field(default_factory=dict)
    #: Share of the machine that others used meanwhile, where that is known.
    others: float | None = None

    @property
    def ratio(self) -> Spread:
        return Spread.of(self.ratios)

    @property
    def noise(self) -> float:
        return Spread.of(self.yardstick).relative

    def verdict(self) -> str:
        if len(self.ratios) < PAIRS_MIN:
            return f"{self._compare()}, not judged (n < {PAIRS_MIN})"
        if self.is_noise_judged and self.noise > NOISE_MAX:
            return f"too noisy ({self.noise:.0%})"
        if self.others is not None and self.others > OTHERS_MAX:
            return f"too noisy (others used {self.others:.0%} of the machine)"
        return self._compare()

    def _compare(self) -> str:
        if self.own_verdict is not None:
            return self.own_verdict
        first, final = self.bars.first, self.bars.final
        if final is not None and self.bars.reached(self.ratio, final):
            return "bar reached"
        if first is not None and self.bars.reached(self.ratio, first):
            return "first bar reached, bar missed"
        return "shown" if first is None and final is None else "missed"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "n": len(self.ratios),
            "ratio": asdict(self.ratio),
            "yardstick_spread": self.noise,
            "verdict": self.verdict(),
        }
