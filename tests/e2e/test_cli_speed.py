"""The program is small and starts at once: the shortest of many runs counts, so that other load does not matter."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from .command_line import REDGREASE, Cli
from .database import Database

RUNS = 40
COUNT = "GB().count().run()"


def shortest(command: Sequence[str | Path], env: dict[str, str]) -> float:
    """Seconds."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=20, env=env)
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["run", "--help"]])
def test_the_program_starts_in_less_than_15_ms(cli: Cli, words: list[str]) -> None:
    assert shortest([REDGREASE, *words], cli.env) < 0.015


def test_run_takes_at_most_10_ms_more_than_redis_cli(cli: Cli, db: Database) -> None:
    redis_cli = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if redis_cli is None:
        pytest.skip("no redis-cli on PATH")
    port = str(db.server.port)
    yardstick = shortest([redis_cli, "-p", port, "RG.PYEXECUTE", COUNT], cli.env)
    ours = shortest([REDGREASE, "run", "-p", port, "-e", COUNT], cli.env)
    assert ours - yardstick < 0.010, (ours, yardstick)


def test_the_program_without_debug_information_is_smaller_than_15_mb(tmp_path: Path) -> None:
    """As the wheel contains it."""
    if shutil.which("strip") is None:
        pytest.skip("no strip on PATH")
    program = tmp_path / "redgrease"
    subprocess.run(["strip", "-S", "-o", program, REDGREASE], check=True, timeout=60)
    assert program.stat().st_size < 15_000_000
