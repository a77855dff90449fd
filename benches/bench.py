#!/usr/bin/env python3
"""`make bench`: the engine against public yardsticks, judged by ratios of the same run. See README.md beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import batch
import beside
import calls
import calm
import events
import filecache
import machine
import objects
import overhead
import shards
import triggers
import whole
from judge import PAIRS_MIN, Measured, Spread
from rounds import Run
from server import MODULE, ROOT, MissingError, default_server, find_server

GROUPS: dict[str, tuple[list[str], Callable[[Run, list[str]], Iterator[Measured]]]] = {
    "batch": (list(batch.ROWS), batch.measure),
    "trigger": (list(triggers.ROWS), triggers.measure),
    "calls": (list(calls.ROWS), calls.measure),
    "overhead": (list(overhead.COMMANDS), overhead.measure),
    "calm": (list(calm.ROWS), calm.measure),
    "beside": (list(beside.ROWS), beside.measure),
    "events": (list(events.ROWS), events.measure),
    "whole": (list(whole.ROWS), whole.measure),
    "objects": (list(objects.ROWS), objects.measure),
    "shards": (list(shards.ROWS), shards.measure),
    "filecache": (list(filecache.ROWS), filecache.measure),
}


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        for group, (rows, _) in GROUPS.items():
            print(f"{group}: {' '.join(rows)}")
        return 0
    try:
        chosen = _chosen_rows(arguments.rows)
        server = find_server(arguments.server)
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    pairs = arguments.n or (3 if arguments.quick else PAIRS_MIN)
    run = Run(server, arguments.seed, pairs, 0.1 if arguments.quick else 1.0, arguments.against)
    facts = _facts(arguments, run)
    _print_header(facts)
    measured, failures = _measure(run, chosen)
    _print_table(measured, facts)
    for row, reason in failures.items():
        print(f"{row}: NOT MEASURED: {reason}")
    facts["load_at_end"] = os.getloadavg()[0]
    if arguments.json:
        report = {"facts": facts, "rows": [one.as_json() for one in measured], "failures": failures}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the engine against its yardsticks and print ratios.")
    parser.add_argument("--rows", help="rows or groups, with commas between (default: all); see --list")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--n", type=int, help=f"pairs per row (default {PAIRS_MIN}; below it nothing is judged)")
    parser.add_argument(
        "--server", default=default_server(), help="redis-7, valkey, redis-8 or a path (now %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="chooses names, sizes, lambdas")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the sizes and 3 pairs: a look, not a judgement"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="LIBRARY",
        help="measure another build of the module in turn with this one, in the rows about triggers, calls and events",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    return parser.parse_args()


def _chosen_rows(text: str | None) -> dict[str, list[str]]:
    wanted = set(text.split(",")) if text else set(GROUPS)
    known = set(GROUPS) | {row for rows, _ in GROUPS.values() for row in rows}
    if unknown := wanted - known:
        raise MissingError(f"no row or group is called {', '.join(sorted(unknown))}: see --list")
    chosen = {group: [row for row in rows if {row, group} & wanted] for group, (rows, _) in GROUPS.items()}
    return {group: rows for group, rows in chosen.items() if rows}


def _measure(run: Run, chosen: dict[str, list[str]]) -> tuple[list[Measured], dict[str, str]]:
    """A row that fails is told and costs the rest of its group another server, not the run."""
    measured: list[Measured] = []
    failures: dict[str, str] = {}
    for group, rows in chosen.items():
        left = list(rows)
        while left:
            started, before = time.monotonic(), machine.times()
            try:
                for one in GROUPS[group][1](run, left):
                    after = machine.times()
                    one.others = machine.others_share(before, after)
                    measured.append(one)
                    seconds = time.monotonic() - started
                    run.progress.line(f"{one.row}: {_ratio(one)} {one.verdict()} ({seconds:.0f} s)")
                    left = left[1:]
                    started, before = time.monotonic(), after
            except MissingError as error:
                failures |= dict.fromkeys(left, str(error))
                break
            except Exception as error:
                failures[left[0]] = f"{type(error).__name__}: {error}"
                run.progress.line(f"{left[0]}: {failures[left[0]]}")
                left = left[1:]
    return measured, failures


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _facts(arguments: argparse.Namespace, run: Run) -> dict[str, Any]:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")), platform.processor()
    )
    banner = _output(str(run.server), "--version")
    module = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(MODULE.stat().st_mtime)) if MODULE.is_file() else "missing"
    return {
        "server": next((part[2:] for part in banner.split() if part.startswith("v=")), banner),
        "server_banner": banner,
        "is_bar_server": "Redis server v=7.0.15 " in banner,
        "commit": _output("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "module_built": module + " UTC",
        "package": metadata.version("redgrease"),
        "redis_py": metadata.version("redis"),
        "hiredis": _version_or_none("hiredis"),
        "python": platform.python_version(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_at_start": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "seed": run.seed,
        "n": run.pairs,
        "against": arguments.against and str(arguments.against),
        "quick": arguments.quick,
    }


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _version_or_none(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent (the yardstick is slower without it)"


def _print_header(facts: dict[str, Any]) -> None:
    name = facts["server_banner"].split(" server", 1)[0]
    print(f"redgrease {facts['package']}, commit {facts['commit']}, module built {facts['module_built']}")
    client = f"redis-py {facts['redis_py']}, hiredis {facts['hiredis']}, Python {facts['python']}"
    print(f"server {name} {facts['server']}; client {client}")
    print(f"machine {facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, load {facts['load_at_start']:.2f}")
    print(f"{facts['date']}, seed {facts['seed']}, n {facts['n']}")
    if facts["load_at_start"] > 0.5:
        print("the machine is not idle: expect noise")
    if facts["quick"]:
        print("QUICK: a tenth of the sizes and few pairs; a look, not a judgement")
    if not facts["is_bar_server"]:
        print("the bars are for Redis 7.0.15: here they are shown for comparison only")
    print(flush=True)


def _ratio(one: Measured) -> str:
    spread, unit = one.ratio, one.ratio_unit and f" {one.ratio_unit}"
    return f"{_number(spread.median)} [{_number(spread.q1)}..{_number(spread.q3)}]{unit}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def _print_table(measured: list[Measured], facts: dict[str, Any]) -> None:
    head = ["row", "n", "ratio [q1..q3]", "first bar", "bar", "verdict", "yardstick", "ours", "also"]
    lines = [head]
    for one in measured:
        yardstick, ours = Spread.of(one.yardstick), Spread.of(one.ours)
        sign = "<= " if one.bars.less_is_better else ""
        first, final = (sign + _number(bar) if bar is not None else "-" for bar in (one.bars.first, one.bars.final))
        others = [] if one.others is None else [f"others used {one.others:.0%}"]
        verdict = one.verdict() if facts["is_bar_server"] else f"({one.verdict()})"
        lines.append(
            [
                one.row,
                str(len(one.ratios)),
                _ratio(one),
                first,
                final,
                verdict,
                f"{one.yardstick_name} {_number(yardstick.median)} {one.unit} ({yardstick.relative:.0%})",
                f"{_number(ours.median)} {one.unit} ({ours.relative:.0%})",
                "; ".join(one.notes + others),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print(
        "\nratio: yardstick time / our time, for rates ours / yardstick; `<=`: a multiple or ms, less is better; "
        "(x %): distance of the quartiles"
    )


if __name__ == "__main__":
    sys.exit(main())
