"""`redgrease top`, `doctor` and `bench`."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest

from .caching import plain_server
from .command_line import REDGREASE, Cli, Terminal, has_colour, screen
from .database import Database
from .servers import Server
from .waiting import wait_until

VISIT = "GB('CommandReader').map(lambda x: int(x[1])).register(trigger='visit')"


@pytest.fixture
def port(cli: Cli, db: Database) -> int:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    return db.server.port


# -- top


def test_one_frame_in_a_pipe(cli: Cli, port: int, db: Database) -> None:
    cli.run("run", "-e", VISIT)
    cli.run("trigger", "visit", "x", code=1)
    for options in (["--once"], []):
        frame = cli.run("top", "--interval", "200ms", *options).stdout.decode()
        lines = frame.splitlines()
        assert lines[0].startswith(f"redgrease top  127.0.0.1:{port}  ") and not has_colour(frame)
        assert "1 registration" in lines and "0 executions" in lines
        row = next(line for line in lines if "trigger visit" in line)
        assert "async" in row and row.split()[-1] and "ValueError: invalid literal" in row


def test_rates_are_those_of_the_interval(cli: Cli, port: int, db: Database) -> None:
    cli.run("run", "-e", VISIT)
    stop = threading.Event()

    def visit() -> None:
        with db.server.client() as client:
            while not stop.is_set():
                client.execute_command("RG.TRIGGER", "visit", 1)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        frame = cli.run("top", "--once", "--interval", "500ms").stdout.decode().splitlines()
    finally:
        stop.set()
        thread.join(10)
    heading = next(line for line in frame if "RUN/s" in line)
    row = next(line for line in frame if "trigger visit" in line)
    end = heading.index("RUN/s") + len("RUN/s")
    assert float(row[:end].split()[-1]) > 1, frame


def test_the_screen_is_drawn_again_and_keys_quit(cli: Cli, port: int) -> None:
    terminal = Terminal(cli, "top", "--interval", "100ms", rows=30, columns=130)
    try:
        terminal.wait_for(lambda shown: "0 registrations" in screen(shown))
        cli.run("run", "-e", VISIT)
        terminal.wait_for(lambda shown: "trigger visit" in screen(shown))
        assert has_colour(terminal.shown)
        terminal.type("p")
        terminal.wait_for(lambda shown: "paused" in screen(shown))
        terminal.type("q")
        terminal.end()
    finally:
        terminal.close()
    assert "\x1b[?1049l" in terminal.shown, "the former screen is back"


def test_lines_of_json(cli: Cli, port: int, db: Database) -> None:
    """One at once and one after each interval, in the shape of the lists, with rates since the one before."""
    cli.run("run", "-e", VISIT)
    cli.run("trigger", "visit", "x", code=1)
    process = subprocess.Popen(
        [REDGREASE, "top", "--json", "--interval", "100ms"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.env
    )
    assert process.stdout is not None

    def line() -> dict:
        return json.loads(process.stdout.readline())

    first = line()
    (row,) = first.pop("registrations")
    (listed,) = json.loads(cli.run("ls", "registrations", "--json").stdout)["registrations"]
    assert row == {**listed, "runs_per_second": None, "recent_mean_run_ms": None}
    counters = json.loads(cli.run("stats", "--json").stdout)
    assert set(first) - set(counters) == {"time", "address", "executions"}
    assert first["address"] == f"127.0.0.1:{port}" and first["executions"] == [] and first["workers"]
    second = line()["registrations"][0]
    assert (second["runs_per_second"], second["recent_mean_run_ms"]) == (0.0, None)
    db.r.execute_command("RG.TRIGGER", "visit", 1)
    wait_until(line, "it is seen", until=lambda told: told["registrations"][0]["runs_per_second"] > 0)
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[1], process.returncode) == (b"", 0)
    once = cli.run("top", "--json", "--once", "--interval", "10ms").stdout.splitlines()
    assert [json.loads(each)["registrations"][0]["runs_per_second"] for each in once] == [0.0]


@pytest.mark.parametrize("key", ["\x03", "\x1b"])
def test_ctrl_c_and_escape_quit_too(cli: Cli, port: int, key: str) -> None:
    terminal = Terminal(cli, "top")
    try:
        terminal.wait_for("registrations")
        terminal.type(key)
        terminal.end()
    finally:
        terminal.close()


def test_a_signal_leaves_the_terminal_as_it_was(cli: Cli, port: int) -> None:
    terminal = Terminal(cli, "top")
    try:
        terminal.wait_for("registrations")
        terminal.process.send_signal(signal.SIGTERM)
        terminal.end()
    finally:
        terminal.close()
    assert "\x1b[?1049l" in terminal.shown


def test_a_server_that_goes_away_is_reported_and_found_again(cli: Cli, fresh_server: Callable[..., Database]) -> None:
    server: Server = fresh_server().server
    terminal = Terminal(cli, "top", "-p", server.port, "--interval", "100ms", rows=30, columns=130)
    try:
        terminal.wait_for("registrations")
        server.kill()
        terminal.wait_for(lambda shown: "; trying again" in screen(shown))
        server.start_again()
        terminal.wait_for(lambda shown: "q quit  p pause" in screen(shown))
        terminal.type("q")
        terminal.end()
    finally:
        terminal.close()


# -- doctor


def findings(cli: Cli, *options: object, code: int = 0) -> dict[str, dict]:
    done = cli.run("doctor", "--json", *options, code=code)
    return {finding["name"]: finding for finding in map(json.loads, done.stdout.splitlines())}


def test_a_healthy_server_is_told_so(cli: Cli, fresh_server) -> None:
    db = fresh_server()
    db.results("GB('ShardsIDReader').run()")
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    found = findings(cli)
    assert {name: finding["level"] for name, finding in found.items() if name != "isolation"} == {
        "server": "ok",
        "module": "ok",
        "interpreter": "ok",
        "workers": "ok",
        "registrations": "ok",
    }
    assert "Python 3." in found["interpreter"]["message"]
    assert "ok       module: version 1." in cli.run("doctor").stdout.decode()


def test_what_is_wrong_has_a_fix(cli: Cli, port: int) -> None:
    cli.run("run", "-e", VISIT)
    cli.run("trigger", "visit", "x", code=1)
    found = findings(cli)
    assert found["registrations"]["level"] == "warning"
    assert "(trigger visit) failed in 1 of 1 runs: ValueError" in found["registrations"]["message"]
    assert found["registrations"]["fix"].startswith("`redgrease show ")
    assert found["persistence"]["level"] == "warning" and "appendonly" in found["persistence"]["fix"]


def test_a_server_without_the_module_is_an_error(cli: Cli) -> None:
    server = plain_server()
    try:
        module = findings(cli, "-p", server.port, code=4)["module"]
    finally:
        server.stop()
    assert (module["level"], module["message"]) == ("error", "the module redgrease is not loaded")
    assert "MODULE LOAD" in module["fix"]


def test_a_worker_that_cannot_start_is_an_error(cli: Cli, fresh_server: Callable[..., Database]) -> None:
    server = fresh_server(python="/bin/false").server
    interpreter = findings(cli, "-p", server.port, code=1)["interpreter"]
    assert interpreter["level"] == "error" and "no function can be run" in interpreter["message"]


def test_a_worker_that_died_is_a_warning(cli: Cli, db: Database, port: int) -> None:
    cli.run("run", "-e", "import os\nGB('PythonReader').map(lambda x: os._exit(1)).run(lambda: iter([1]))", code=1)
    died = wait_until(lambda: findings(cli)["workers"], "it is counted", until=lambda row: row["level"] == "warning")
    assert "1 worker process has died" in died["message"] or "have died" in died["message"]


def test_the_nodes_of_a_cluster_are_examined(cli: Cli) -> None:
    cli.run("serve", "--cluster", 2, "--port", 0, "--background")
    first, second = sorted(cli.servers(), key=lambda record: record["port"])
    found = findings(cli, "-p", first["port"])
    assert found["cluster"]["message"].startswith("2 masters, 0 replicas, all with this module")
    assert found["interpreter"]["level"] == "ok"
    cli.call(second["port"], "SHUTDOWN", "NOSAVE")
    lost = wait_until(
        lambda: findings(cli, "-p", first["port"], code=None)["cluster"],
        "lost",
        until=lambda row: row["level"] == "error",
    )
    assert f"node 127.0.0.1:{second['port']} cannot be asked" in lost["message"]
    cli.run("stop")


# -- bench


def test_bench_measures_and_leaves_nothing(cli: Cli, port: int, db: Database) -> None:
    told = json.loads(cli.run("bench", "--json").stdout)
    assert {name: told[name]["count"] for name in ("ping", "script", "trigger")} == {
        "ping": 1000,
        "script": 30,
        "trigger": 300,
    }
    assert told["records"]["per_second"] > 1000 and told["trigger"]["p50_ms"] <= told["trigger"]["p99_ms"]
    assert json.loads(cli.run("ls", "registrations", "--json").stdout) == {"registrations": []}
    assert db.r.dbsize() == 0
    assert cli.run("bench").stdout.splitlines()[0].split() == [
        b"WHAT",
        b"COUNT",
        b"P50",
        b"ms",
        b"P99",
        b"ms",
        b"PER",
        b"SECOND",
    ]
