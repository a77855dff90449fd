"""`redgrease cache stress`: its report, its flags, and its results while workers are killed and servers restart."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .caching import COMMAND, Cache, clean_environment, plain_server
from .processes import process as process_of
from .servers import ROOT, Server
from .waiting import wait_until

#: Time of a run beyond its duration: starting workers, verifying all files.
SLACK_S = 60.0
_numbers = itertools.count()

BLOCK = r"""  iterations     : (\d+)
  READS  ok/busy/missing : (\d+)/(\d+)/(\d+)  bytes=(\d+)
  WRITES ok/busy/exists  : (\d+)/(\d+)/(\d+) bytes=(\d+)
  other_errors   : (\d+)

"""
WORKER = re.compile(r"worker-(\d+) \(pid=(\d+)\)\n" + BLOCK)
AGGREGATE = re.compile(r"=== Aggregate ===\naggregate \(pid=0\)\n" + BLOCK)
EXISTS_NOTE = "Note: Create-only semantics exercised (writes_exits > 0).\n"
BUSY_NOTE = "Note: Lock contention observed (busy counters > 0).\n"


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Server]:
    server = plain_server()
    yield server
    server.stop()


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="redgrease-e2e-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@dataclass
class Stress:
    """The stress test on one cache."""

    directory: Path
    url: str | None
    namespace: str
    command: Path = COMMAND

    def line(self, *words: object) -> list[str]:
        where = ["--cache-dir", str(self.directory), "--namespace", self.namespace]
        where += ["--no-redis"] if self.url is None else ["--redis-url", self.url]
        return [str(self.command), "cache", "stress", *where, *map(str, words)]

    def run(self, *words: object, code: int = 0, timeout: float = SLACK_S) -> subprocess.CompletedProcess[str]:
        environment = clean_environment()
        done = subprocess.run(self.line(*words), capture_output=True, text=True, timeout=timeout, env=environment)
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        assert "panicked" not in done.stderr
        return done

    def json(self, *words: object, code: int = 0, timeout: float = SLACK_S) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("--json", *words, code=code, timeout=timeout).stdout)
        return told

    def start(self, *words: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.line(*words), stdout=pipe, stderr=pipe, text=True, env=clean_environment())

    def cache(self) -> Cache:
        return Cache(self.directory, self.url, self.namespace)


@pytest.fixture(params=["redis", "files"])
def stress(request: pytest.FixtureRequest, memory_path: Path) -> Stress:
    url = None
    if request.param == "redis":
        url = f"redis://127.0.0.1:{request.getfixturevalue('coordinator').port}/0"
    return Stress(memory_path / "cache", url, f"stress-{next(_numbers)}")


FAST = ("--read-sleep", 0, "--write-sleep", 0, "--durability", "none")


def workers_of(pid: int) -> list[int]:
    """Process numbers of the workers of a running tool."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(child) for child in children.read_text().split()]
    return []


def broken(told: dict[str, Any]) -> list[str]:
    return [check["name"] for check in told["invariants"] if not check["ok"]]


# -- the report


def check_report(report: str, processes: int) -> tuple[int, ...]:
    """The report has exactly the format of the proof of concept, with the same aggregates."""
    assert report.startswith("\n=== Per-process stats ===\n"), report
    rest = report.removeprefix("\n=== Per-process stats ===\n")
    sums = [0] * 10
    numbers = set()
    for _ in range(processes):
        block = WORKER.match(rest)
        assert block, rest
        numbers.add(int(block[1]))
        counts = [int(count) for count in block.groups()[2:]]
        assert counts[0] == sum(counts[1:4]) + sum(counts[5:8]) + counts[9], "each operation has one outcome"
        sums = [a + b for a, b in zip(sums, counts)]
        rest = rest[block.end() :]
    assert numbers == set(range(1, processes + 1))
    aggregate = AGGREGATE.match(rest)
    assert aggregate, rest
    total = tuple(int(count) for count in aggregate.groups())
    assert list(total) == sums
    rest = rest[aggregate.end() :]
    expected = (EXISTS_NOTE if total[5] and total[7] else "") + (BUSY_NOTE if total[2] + total[6] else "")
    assert rest.startswith(expected + ("\n" if expected else "") + "=== Run ===\n"), rest
    return total


def test_the_seeds_command_line_gives_the_seeds_report(stress: Stress) -> None:
    done = stress.run("--processes", 6, "--duration", 2, "--write-prob", "0.20", "--key-suffix-chars", 2)
    total = check_report(done.stdout, 6)
    assert total[1] > 0 and total[5] > 0
    assert EXISTS_NOTE in done.stdout
    assert done.stderr == "", "the run is shorter than the time between two lines"
    for heading in ("Run", "Rates", "Latency", "Invariants"):
        assert f"\n=== {heading} ===\n" in done.stdout
    assert "BROKEN" not in done.stdout


def test_the_seeds_pauses_are_kept(stress: Stress) -> None:
    told = stress.json("--processes", 2, "--duration", 1, "--write-prob", 0.5)
    assert told["operations_per_second"] <= 2 / 0.0125 * 1.2
    assert 0.5 < told["sleep_share"] <= 1.01


def test_python_runs_the_same_tool(coordinator: Server, memory_path: Path) -> None:
    words = ["--processes", "2", "--duration", "0.5", "--write-prob", "0.20", "--cache-dir", str(memory_path / "cache")]
    words += ["--redis-url", f"redis://127.0.0.1:{coordinator.port}/0", "--namespace", f"stress-{next(_numbers)}"]
    for program in (["-m", "redgrease.filecache.stress"], [str(ROOT / "examples" / "test_poc_cache_mproc.py")]):
        line = [sys.executable, *program, *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=SLACK_S, env=clean_environment())
        assert done.returncode == 0, done
        check_report(done.stdout, 2)


def test_json_has_everything(stress: Stress) -> None:
    told = stress.json("--processes", 2, "--duration", 0.5, "--seed", 77, *FAST)
    assert told["seed"] == 77
    assert [worker["missing"] for worker in told["workers"]] == [None, None]
    assert told["aggregate"]["iterations"] == sum(worker["iterations"] for worker in told["workers"])
    assert told["latency_seconds"]["read"]["count"] == told["aggregate"]["reads"]["ok"]
    assert 0 < told["latency_seconds"]["read"]["p50"] <= told["latency_seconds"]["read"]["max"]
    assert len(told["invariants"]) >= 12 and broken(told) == []


# -- flags


@pytest.mark.parametrize(
    "words",
    [
        "--unknown",
        "--processes many",
        "--duration 0",
        "--write-prob 2",
        "--keyspace 0",
        "--value-size 9..1",
        "--processes 0 --kill-every 1s",
        "--no-redis --redis-host h",
        "--stop-for 1s",
        "--processes 99999999",
    ],
)
def test_flags_are_strict(tmp_path: Path, words: str) -> None:
    line = [COMMAND, "cache", "stress", "--cache-dir", tmp_path / "cache", *words.split()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SLACK_S, env=clean_environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert words.split()[0] in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_server_that_is_not_there_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    line = [COMMAND, "cache", "stress", "--cache-dir", tmp_path / "cache", "--redis-port", "1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SLACK_S, env=clean_environment())
    assert done.returncode not in (0, 1, 2) and done.stdout == ""
    assert "127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--processes 0",
        "--keyspace own",
        "--keyspace own --key-suffix-chars 4",
        "--keyspace 3 --blocking",
        "--keyspace 5 --fill",
        "--keyspace 5 --fill --blocking --value-size 0..70kB",
        "--write-prob 1",
        "--write-prob 0",
        "--warm-up 300ms",
        "--durability full",
        "--lease 100ms",
        "--clean-start",
    ],
)
def test_every_way_to_work_keeps_the_invariants(stress: Stress, words: str) -> None:
    told = stress.json("--processes", 3, "--duration", 0.7, *FAST, *words.split())
    assert broken(told) == []
    assert told["aggregate"]["iterations"] > 0
    assert told["aggregate"]["other_errors"] == 0, told["aggregate"]
    assert 0.6 < told["elapsed"] < 1.7


def test_own_keys_never_collide_and_few_keys_do(stress: Stress) -> None:
    own = stress.json("--processes", 3, "--duration", 0.5, "--keyspace", "own", *FAST)
    assert own["aggregate"]["writes"]["exists"] == 0 and own["notes"] == []
    few = stress.json("--processes", 3, "--duration", 0.5, "--keyspace", 9, *FAST)
    assert few["aggregate"]["writes"]["exists"] > 0
    assert few["aggregate"]["writes"]["ok"] == 9
    assert few["notes"][0] == EXISTS_NOTE.strip()


def test_a_second_run_finds_what_the_first_one_left(stress: Stress) -> None:
    first = stress.json("--processes", 2, "--duration", 0.5, "--write-prob", 1, *FAST)
    second = stress.json("--processes", 2, "--duration", 0.5, "--write-prob", 0, *FAST)
    assert second["aggregate"]["reads"]["ok"] > 0
    assert second["aggregate"]["reads"]["missing"] == 0
    third = stress.json("--processes", 2, "--duration", 0.5, "--write-prob", 0, "--clean-start", *FAST)
    assert third["aggregate"]["reads"]["ok"] == 0
    assert first["aggregate"]["writes"]["ok"] > 0


def test_a_limit_holds(stress: Stress) -> None:
    told = stress.json("--processes", 3, "--duration", 1.5, "--write-prob", 0.5, "--max-bytes", "200kB", *FAST)
    assert broken(told) == []
    assert told["aggregate"]["writes"]["bytes"] > 400_000, "more was written than fits"
    assert stress.cache().json("stat")[0]["bytes"] <= 200_000
    assert told["peak_bytes"] <= 200_000


# -- output during a run


def test_the_monitor_speaks_as_the_seeds(stress: Stress) -> None:
    words = ["--duration", 1.2, "--processes", 2, "--monitor-ms", 300, "--debug", "--debug-interval-ms", 500]
    done = stress.run(*words, "--debug-top", 2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("[monitor")]
    assert len(lines) >= 3
    assert all(re.fullmatch(r"\[monitor t=\ds\] total_bytes=\d+ keys=\d+", line) for line in lines), lines
    assert "[debug t=" in done.stderr and "  newest " in done.stderr
    check_report(done.stdout, 2)
    assert stress.run(*words, "--quiet").stderr == ""


def test_without_a_terminal_there_is_a_plain_line_every_five_seconds(memory_path: Path) -> None:
    def start(name: str, *words: object) -> subprocess.Popen[str]:
        words = ("--duration", 5.7, "--processes", 1, "--max-bytes", "1MB", *words)
        return Stress(memory_path / name, None, "plain").start(*words)

    runs = [start("plain"), start("quiet", "--quiet"), start("monitored", "--monitor-ms", 2000)]
    plain, quiet, monitored = (run.communicate(timeout=SLACK_S)[1] for run in runs)
    assert [run.returncode for run in runs] == [0, 0, 0], (plain, quiet, monitored)
    rates = r"reads \d+/s  writes \d+/s  hits [\d.]+ %  busy \d+  errors 0"
    assert re.fullmatch(rf"\[stress\] 5/5\.7s  {rates}  [\d.]+ \wB of 1\.0 MB, \d+ evicted\n", plain), plain
    assert quiet == ""
    assert len(monitored.splitlines()) == 2 and all(line.startswith("[monitor t=") for line in monitored.splitlines())


def test_the_peak_is_not_below_what_is_there_in_the_end(stress: Stress) -> None:
    """A run that ends before the second sample."""
    told = stress.json("--duration", 0.3, "--processes", 2, "--write-sleep", 0, "--write-prob", 1)
    assert told["peak_bytes"] >= stress.cache().json("stat")[0]["bytes"] > 0


def test_a_narrow_terminal_shows_all_that_matters(stress: Stress) -> None:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, 80))
        line = stress.line("--duration", 1.3, "--processes", 2, "--max-bytes", "100kB")
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=slave, env={**clean_environment(), "TERM": "xterm"}
        )
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(master, 10_000):
                shown += data
        assert process.wait(SLACK_S) == 0
    finally:
        os.close(master)
    beats = [beat.rstrip() for beat in shown.decode().replace("\x1b[2K", "").split("\r") if "busy" in beat]
    parts = r"\[[#·]+\] \d/1\.3s r \S+/s w \S+/s hit \S+% busy \S+ err 0 [\d.]+k?B/100kB ev \d+"
    assert beats and all(re.fullmatch(parts, beat) and len(beat) < 80 for beat in beats), beats


def test_a_terminal_shows_how_far_it_is(stress: Stress) -> None:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, 160))
        line = stress.line("--duration", 1.3, "--processes", 2)
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=slave, env={**clean_environment(), "TERM": "xterm"}
        )
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(master, 10_000):
                shown += data
        assert process.stdout is not None
        report = process.stdout.read().decode()
        assert process.wait(SLACK_S) == 0
    finally:
        os.close(master)
    assert "reads " in shown.decode() and "hits " in shown.decode(), shown
    check_report(report, 2)


# -- ends


def test_ctrl_c_gives_a_report_of_what_was_done(stress: Stress) -> None:
    process = stress.start("--duration", 60, "--processes", 2)
    wait_until(lambda: len(workers_of(process.pid)) == 2 and stress.directory.exists(), "workers run")
    wait_until(lambda: any(stress.directory.rglob("*.bin*")), "something was written")
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=SLACK_S)
    assert process.returncode == 130, said
    check_report(output, 2)
    assert ", interrupted" in output and "=== Invariants ===" in output


def test_ctrl_c_during_the_checks_ends_at_once(stress: Stress, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = stress.start("--duration", 0.2, "--processes", 2, "--before-checks", f"echo > {fifo}")
    assert process.stdout is not None
    heading = next(line for line in process.stdout if line.startswith("=== Latency"))
    assert heading, "the work is done; the checks wait until somebody reads what the hook writes"
    process.send_signal(signal.SIGINT)
    assert process.wait(SLACK_S) == 130
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert "Invariants" not in process.communicate(timeout=SLACK_S)[0]
    finally:
        os.close(reader)


def test_workers_do_not_outlive_their_parent(stress: Stress) -> None:
    process = stress.start("--duration", 60, "--processes", 3)
    pids = wait_until(lambda: workers_of(process.pid), "three workers", until=lambda pids: len(pids) == 3)
    workers = [process_of(pid) for pid in pids]
    process.kill()
    process.communicate(timeout=SLACK_S)
    wait_until(
        lambda: [worker for worker in workers if worker and worker.alive()], "workers end", until=lambda w: not w
    )


def test_a_missing_worker_is_a_failure_and_its_counts_are_kept(stress: Stress) -> None:
    process = stress.start("--duration", 1.5, "--processes", 2, "--lease", "200ms", *FAST)
    pids = wait_until(lambda: workers_of(process.pid), "two workers", until=lambda pids: len(pids) == 2)
    wait_until(lambda: any(stress.directory.rglob("*.bin*")), "something was written")
    os.kill(pids[0], signal.SIGKILL)
    output, said = process.communicate(timeout=SLACK_S)
    assert process.returncode == 1
    assert "worker 1 is missing" in said and "signal: 9" in said
    check_report(output, 2)
    assert "MISSING        : worker-1" in output
    assert "BROKEN" not in output


def test_a_run_goes_on_when_the_program_is_replaced(stress: Stress, tmp_path: Path) -> None:
    stress.command = Path(shutil.copy(COMMAND, tmp_path / "redgrease"))
    process = stress.start(
        "--json", "--duration", 1, "--processes", 2, "--kill-every", "200ms", "--lease", "200ms", *FAST
    )
    wait_until(lambda: any(stress.directory.rglob("*.bin*")), "something was written")
    stress.command.unlink()
    output, said = process.communicate(timeout=SLACK_S)
    assert process.returncode == 0, said
    assert json.loads(output)["chaos"]["killed"] >= 2


DAMAGE = """
import pathlib, os
entry = next(path for path in pathlib.Path(os.environ["REDGREASE_CACHE_DIR"]).rglob("*.bin*") if path.is_file())
content = entry.read_bytes()
"""


@pytest.mark.parametrize(
    "how",
    ["entry.unlink()", "entry.write_bytes(content[:-1])", "entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))"],
    ids=["deleted", "cut", "changed"],
)
def test_damage_behind_the_caches_back_is_noticed(stress: Stress, tmp_path: Path, how: str) -> None:
    script = tmp_path / "damage.py"
    script.write_text(f"{DAMAGE}entry.chmod(0o600)\n{how}\n")
    hook = f"{sys.executable} {script}"
    words = ["--processes", 2, "--duration", 0.5, "--lease", "200ms", "--before-checks", hook]
    told = stress.json(*words, *FAST, code=1)
    assert "each entry is a file of its length and digest" in broken(told)
    done = stress.run(*words, *FAST, "--clean-start", code=1)
    check_report(done.stdout, 2)
    assert "BROKEN each entry is a file of its length and digest" in done.stdout


def test_an_acknowledged_entry_that_was_removed_is_noticed(stress: Stress) -> None:
    clear = " ".join(map(str, stress.cache().line("clear", "--yes")))
    told = stress.json("--processes", 2, "--duration", 0.5, "--before-checks", clear, *FAST, code=1)
    assert broken(told) == ["no acknowledged create is lost"]


# -- injected faults


def chaos(stress: Stress, coordinator: Server, seconds: float, *words: object) -> dict[str, Any]:
    """A run with kills and stops, during which the server loses all its data."""
    process = stress.start("--json", "--processes", 6, "--duration", seconds, *FAST, *words)
    began = time.monotonic()
    # Not to synchronise: the restart must happen in the middle of the run.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(seconds / 2)
    coordinator.kill()
    coordinator.restart()
    output, said = process.communicate(timeout=seconds + SLACK_S)
    assert process.returncode == 0, f"{output}\n{said}"
    told: dict[str, Any] = json.loads(output)
    assert broken(told) == []
    assert time.monotonic() - began >= seconds
    assert told["aggregate"]["errors"]["unavailable"] > 0, "the workers noticed that the server was away"
    return told


@pytest.fixture
def forgetful() -> Iterator[Server]:
    """A server for one test, which restarts it."""
    server = plain_server()
    yield server
    server.stop()


def test_nothing_breaks_while_workers_are_killed_and_the_server_forgets(forgetful: Server, memory_path: Path) -> None:
    stress = Stress(memory_path / "cache", f"redis://127.0.0.1:{forgetful.port}/0", "chaos")
    words = ["--kill-every", "500ms", "--stop-every", "5s", "--lease", "500ms", "--write-prob", 0.2]
    told = chaos(stress, forgetful, 20, *words)
    assert told["chaos"]["killed"] >= 30 and told["chaos"]["stopped"] >= 3
    assert told["aggregate"]["iterations"] >= 30_000


def test_nothing_breaks_without_a_server_while_workers_are_killed(memory_path: Path) -> None:
    stress = Stress(memory_path / "cache", None, "chaos")
    words = ["--kill-every", "200ms", "--stop-every", "1s", "--lease", "300ms", "--write-prob", 0.2]
    told = stress.json("--processes", 4, "--duration", 4, *FAST, *words)
    assert broken(told) == []
    assert told["chaos"]["killed"] >= 15 and told["chaos"]["stopped"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", ["", "--fill --blocking --keyspace 200", "--max-bytes 2MB"], ids=["plain", "fill", "limit"]
)
def test_nothing_breaks_in_a_minute(forgetful: Server, memory_path: Path, more: str) -> None:
    stress = Stress(memory_path / "cache", f"redis://127.0.0.1:{forgetful.port}/0", "chaos")
    words = ["--kill-every", "500ms", "--stop-every", "5s", "--lease", "1s", "--write-prob", 0.2]
    told = chaos(stress, forgetful, 60, *words, *more.split())
    assert told["aggregate"]["iterations"] >= 100_000
