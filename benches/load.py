"""The load generator for many connections: redis-benchmark, which is not the bottleneck."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

from server import MissingError


@dataclass(frozen=True)
class Load:
    """What one run of the generator saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def generator() -> str:
    found = shutil.which("redis-benchmark") or shutil.which("redis-benchmark", path="/usr/bin:/usr/local/bin")
    if found is None:
        raise MissingError("no redis-benchmark here. Debian, as root: apt-get install redis-tools")
    return found


def drive(port: int, connections: int, requests: int, *command: str, pipeline: int = 1) -> Load:
    """So many requests of one command over so many connections; waits for all replies."""
    line = [generator(), "-p", str(port), "-c", str(connections), "-n", str(requests), "-P", str(pipeline)]
    ended = subprocess.run([*line, "--csv", *command], capture_output=True, text=True, timeout=120, check=False)
    rows = [row for row in csv.reader(ended.stdout.splitlines()) if len(row) >= 8 and row[1] != "rps"]
    if ended.returncode != 0 or len(rows) != 1:
        raise RuntimeError(f"redis-benchmark ended with status {ended.returncode}: {ended.stderr or ended.stdout}")
    _, rate, _, _, p50, _, p99, worst = rows[0][:8]
    return Load(float(rate), float(p50), float(p99), float(worst))


def requests_for(seconds: float, port: int, connections: int, *command: str) -> int:
    """How many requests take about so long."""
    drive(port, connections, 500, *command)
    return max(500, int(drive(port, connections, 2000, *command).per_second * seconds))
