"""What the soak test (`soak.py`) calls growth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .soak import MB, Sample, Tree, compare

SECONDS = 600.0
TREE = Tree(pid=1, memory=int(30 * MB), descriptors=9, threads=4)
USUAL = Sample(
    at=0.0,
    server_memory=int(100 * MB),
    shared_memory=int(12 * MB),
    server_descriptors=400,
    server_threads=40,
    trees=(TREE, TREE),
    used_memory=int(80 * MB),
    p50_ms=0.3,
    p99_ms=5.0,
)


def grown(change, *, begin: float = SECONDS / 2) -> list[str]:
    """The rows that have grown when samples after ``begin`` are changed by this function of the time."""
    samples = [replace(USUAL, at=float(at)) for at in range(10, int(SECONDS) + 1, 10)]
    changed = [replace(sample, **change(sample.at)) if sample.at >= begin else sample for sample in samples]
    return [comparison.row.name for comparison in compare(changed, SECONDS) if comparison.grown]


def test_equal_samples_have_not_grown():
    assert grown(lambda at: {}) == []


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"server_memory": int(106 * MB)}, "memory of the server, MB"),
        ({"used_memory": int(85 * MB)}, "used_memory of the server, MB"),
        ({"server_descriptors": 421}, "descriptors of the server"),
        ({"server_threads": 43}, "threads of the server"),
        ({"trees": (TREE, replace(TREE, memory=int(33 * MB)))}, "memory of a worker tree, largest, MB"),
        ({"trees": (TREE, replace(TREE, descriptors=13))}, "descriptors of a worker tree, largest"),
        ({"trees": (TREE, replace(TREE, threads=10))}, "threads of a worker tree, largest"),
        ({"p99_ms": 30.0}, "latency p99, ms"),
    ],
)
def test_what_has_grown_is_named(change, row):
    assert grown(lambda at: change) == [row]


def test_growth_below_the_limits_and_single_peaks_are_no_alarm():
    assert grown(lambda at: {"server_memory": int(104 * MB), "p99_ms": 14.0}) == []
    assert grown(lambda at: {"server_memory": int(300 * MB), "p99_ms": 900.0} if at % 30 == 0 else {}) == []


def test_too_few_samples_are_an_error():
    with pytest.raises(AssertionError, match="use at least 120 s"):
        compare([USUAL], 20.0)
