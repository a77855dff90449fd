"""The commands of the program for functions: run, trigger, ls, show, abort, drop, unregister, pause, resume, stats."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .caching import plain_server
from .command_line import REDGREASE, Cli, Terminal, has_colour, plain
from .database import Database
from .waiting import wait_until

SLOW = "import time\nGB('PythonReader').map(lambda x: time.sleep(0.02)).run(lambda: iter(range(10_000)))"
SQUARES = "GB('PythonReader').map(lambda x: {'n': x, 'square': x * x}).run(lambda: iter(range(3)), convertToStr=False)"


class Gears:
    """The program on one server."""

    def __init__(self, cli: Cli, db: Database) -> None:
        self.cli, self.db = cli, db
        cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"

    def __call__(self, *args: object, **more: object) -> str:
        return self.cli.run(*args, **more).stdout.decode()  # type: ignore[arg-type]

    def json(self, *args: object) -> dict:
        return json.loads(self(*args, "--json"))

    def fails(self, *args: object, code: int = 1) -> str:
        return self.cli.fails(*args, code=code)

    def lists(self, what: str) -> list[dict]:
        return self.json("ls", what)[what]


@pytest.fixture
def gears(cli: Cli, db: Database) -> Gears:
    return Gears(cli, db)


# -- run


def test_run_takes_an_expression_a_file_or_stdin(gears: Gears, tmp_path: Path) -> None:
    gears.db.r.set("a", 1)
    script = tmp_path / "count.py"
    script.write_text("GB().count().run()")
    assert gears("run", "-e", script.read_text()) == "1\n"
    assert gears("run", script) == "1\n"
    assert gears("run", input=script.read_bytes()) == gears("run", "-", input=script.read_bytes()) == "1\n"
    assert gears.lists("executions") == [], "an execution whose results were printed is dropped"


def test_results_are_lines_a_table_or_json(gears: Gears) -> None:
    assert gears("run", "-e", SQUARES) == '{"n":0,"square":0}\n{"n":1,"square":1}\n{"n":2,"square":4}\n'
    assert gears("run", "--table", "-e", SQUARES) == "n  square\n0       0\n1       1\n2       4\n"
    assert gears.json("run", "-e", SQUARES) == {
        "results": [{"n": 0, "square": 0}, {"n": 1, "square": 1}, {"n": 2, "square": 4}],
        "errors": [],
    }


def test_a_table_has_columns_for_the_texts_of_dicts_too(gears: Gears) -> None:
    gears.db.r.set("a", "it's")
    assert gears("run", "--table", "-e", "GB().run()").splitlines()[0].split() == ["key", "value", "type", "event"]
    assert "it's" in gears("run", "--table", "-e", "GB().run()").splitlines()[1]


def test_no_byte_is_lost(gears: Gears) -> None:
    script = "GB('PythonReader').run(lambda: iter([b'\\xff\\x00', 'é']), convertToStr=False)"
    assert gears.cli.run("run", "--raw", "-e", script).stdout == b"\xff\x00\n\xc3\xa9\n"
    assert gears.json("run", "-e", script)["results"] == [{"hex": "ff00"}, "é"]


def test_a_script_that_registers_says_ok(gears: Gears) -> None:
    assert gears("run", "-e", "GB('CommandReader').register(trigger='t')") == "OK\n"
    assert gears.json("run", "-e", "x = 1") == {"results": [], "errors": []}


def test_a_script_that_fails_shows_its_traceback(gears: Gears) -> None:
    said = gears.fails("run", "-e", "1 / 0")
    assert said.splitlines()[0] == "Traceback (most recent call last):"
    assert said.splitlines()[-2:] == ["ZeroDivisionError: division by zero", "redgrease: the script failed"]


def test_records_that_fail_are_errors_beside_the_results(gears: Gears) -> None:
    script = "GB('PythonReader').map(lambda x: 1 // x).run(lambda: iter([1, 0]))"
    done = gears.cli.run("run", "-e", script, code=1)
    assert done.stdout == b"1\n"
    assert done.stderr.decode().splitlines()[-2:] == [
        "ZeroDivisionError: integer division or modulo by zero",
        "redgrease: one record failed",
    ]
    errors = json.loads(gears.cli.run("run", "--json", "-e", script, code=1).stdout)["errors"]
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0]


def test_run_without_waiting_prints_an_id(gears: Gears) -> None:
    identifier = gears("run", "--no-wait", "-e", SLOW).strip()
    assert re.fullmatch(r"[0-9a-f]{40}-\d+", identifier)
    wait_until(lambda: gears.lists("executions"), "it runs", until=lambda rows: rows[0]["state"] == "running")
    number = identifier.rpartition("-")[2]
    assert gears("abort", number) == f"aborted execution {number}\n"
    wait_until(lambda: gears.lists("executions"), "it has ended", until=lambda rows: rows[0]["state"] != "running")
    assert gears("drop", identifier) == f"dropped execution {number}\n"
    assert gears.lists("executions") == []


def test_all_is_all_that_can_be_aborted_or_dropped(gears: Gears) -> None:
    ended = gears("run", "--no-wait", "-e", SQUARES).strip().rpartition("-")[2]
    wait_until(lambda: gears.lists("executions"), "it is done", until=lambda rows: rows[0]["state"] == "done")
    running = gears("run", "--no-wait", "-e", SLOW).strip().rpartition("-")[2]
    assert gears("drop", "--all") == f"dropped execution {ended}\n"
    assert gears("abort", "--all") == f"aborted execution {running}\n"
    wait_until(
        lambda: gears("drop", "--all"), "it has ended", until=lambda said: said == f"dropped execution {running}\n"
    )
    assert gears("abort", "--all") == gears("drop", "--all") == ""
    gears.fails("drop", "--all", running, code=2)


def test_a_timeout_aborts_the_execution(gears: Gears) -> None:
    said = gears.fails("run", "--timeout", 0.5, "-e", SLOW, code=7)
    assert re.search(r"it took longer than 500ms \(--timeout\); execution \d+ was aborted", said), said
    assert gears.lists("executions") == []


def test_ctrl_c_aborts_the_execution_on_the_server(gears: Gears) -> None:
    process = subprocess.Popen(
        [REDGREASE, "run", "-e", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=gears.cli.env
    )
    running = gears.db.executions
    wait_until(running, "it runs")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert re.search(rb"execution \d+ was aborted after", said), said
    assert gears.lists("executions") == []


def test_a_terminal_shows_progress_a_table_and_a_summary(gears: Gears) -> None:
    shell = Terminal(gears.cli, "run", "-e", SQUARES)
    shown = shell.end()
    assert "n  square\n" in shown and re.search(r"3 records in \d+\.\d\d s", shown), shown
    shell = Terminal(gears.cli, "run", "-e", SLOW)
    try:
        shell.wait_for(
            lambda shown: re.search(r"execution \d+ is running: \d\.\d s \(Ctrl-C aborts it\)", plain(shown))
        )
        shell.type("\x03")
        assert "was aborted after" in shell.end(code=130)
    finally:
        shell.close()


def test_a_run_without_anything_to_run_is_a_usage_error(gears: Gears) -> None:
    shell = Terminal(gears.cli, "run")
    assert "nothing to run: name a file" in shell.end(code=2)
    gears.fails("run", "file.py", "-e", "x", code=2)
    gears.fails("run", "--json", "--raw", "-e", "x", code=2)
    assert "nope.py cannot be read: No such file" in gears.fails("run", "nope.py", code=8)


# -- trigger


@pytest.fixture
def visit(gears: Gears) -> Iterator[Gears]:
    gears("run", "-e", "GB('CommandReader').map(lambda x: int(x[1])).register(trigger='visit')")
    yield gears


def test_trigger_passes_everything_behind_the_name(gears: Gears) -> None:
    gears("run", "-e", "GB('CommandReader').flatmap(lambda x: x[::-1]).register(trigger='echo')")
    assert gears("trigger", "echo", "a b", "--json", "-x") == "echo\na b\n--json\n-x\n"
    assert json.loads(gears("trigger", "--json", "echo")) == {"results": ["echo"], "errors": []}


def test_a_function_that_fails_or_is_not_there(visit: Gears) -> None:
    assert visit("trigger", "visit", 7) == "7\n"
    said = visit.fails("trigger", "visit", "x")
    assert "ValueError: invalid literal" in said and said.endswith("redgrease: the function visit failed\n")
    assert visit.fails("trigger", "nope").splitlines() == [
        "redgrease: no function is registered under the name 'nope'",
        "fix: list them with `redgrease ls registrations`",
    ]


# -- ls, show, stats


def test_ls_lists_everything_or_what_is_asked_for(visit: Gears) -> None:
    everything = visit("ls")
    assert "1 registration\n" in everything and "1 session\n" in everything and "no executions\n" in everything
    assert re.search(r"^ *\d+  CommandReader  trigger visit +async", everything, re.MULTILINE), everything
    assert visit("ls", "executions") == "no executions\n"
    (row,) = visit.lists("registrations")
    assert row["source"] == "trigger visit" and row["triggered"] == 0
    (worker, *_) = visit.lists("workers")
    assert worker["pid"] > 0 and worker["rss_bytes"] > 0
    assert set(visit.json("ls")) == {"registrations", "sessions", "executions", "workers"}
    assert "'executions'" in visit.fails("ls", "executoins", code=2)


def test_show_tells_all_about_an_execution(gears: Gears) -> None:
    gears.db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 1)
    try:
        identifier = gears("run", "--no-wait", "-e", SQUARES).strip()
        shown = wait_until(lambda: gears("show", identifier), "it is done", until=lambda shown: "done" in shown)
    finally:
        gears.db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 0)
    assert re.search(r"^state +done$", shown, re.MULTILINE) and re.search(r"^results +3$", shown, re.MULTILINE), shown
    assert shown.index("STEP") < shown.index("map")
    told = json.loads(gears("show", "--json", identifier.rpartition("-")[2]))
    (shard,) = told["shards"]
    assert (shard["state"], shard["results"]) == ("done", 3)
    assert [step["type"] for step in shard["steps"]][-1] == "collect"
    gears("drop", "--all")
    assert "there is no execution, registration or session" in gears.fails("show", identifier)


def test_show_tells_all_about_a_registration_and_a_session(visit: Gears) -> None:
    visit.fails("trigger", "visit", "x")
    (row,) = visit.lists("registrations")
    shown = visit("show", row["id"])
    assert re.search(r"^runs +1 \(0 succeeded, 1 failed, 0 aborted\)$", shown, re.MULTILINE), shown
    assert "ValueError: invalid literal" in shown
    (session,) = visit.lists("sessions")
    assert session["id"] in visit("show", session["id"][:12])


def test_stats_count_and_are_reset(visit: Gears) -> None:
    visit("trigger", "visit", 1)
    stats = visit.json("stats")
    assert (stats["registrations"], stats["triggered"], stats["succeeded"]) == (1, 1, 1)
    assert stats["workers"] >= 1 and stats["bytes_now"] > 0
    done = visit.cli.run("stats", "--reset")
    assert b"runs           1 (1 succeeded" in done.stdout and b"are zero now" in done.stderr
    assert visit.json("stats")["triggered"] == 0


# -- unregister, pause, resume


def test_unregister_takes_ids_and_names(visit: Gears) -> None:
    visit("run", "-e", "GB('CommandReader').register(trigger='other')")
    rows = {row["source"]: row["id"] for row in visit.lists("registrations")}
    assert visit("unregister", "visit", rows["trigger other"]).count("removed registration") == 2
    assert visit.lists("registrations") == []
    assert "there is no registration 'visit'" in visit.fails("unregister", "visit")


def test_a_stream_is_paused_and_resumed(visit: Gears) -> None:
    visit("run", "-e", "GB('StreamReader').foreach(lambda x: execute('incr', 'seen')).register('s', mode='sync')")
    row = next(row for row in visit.lists("registrations") if row["reader"] == "StreamReader")
    number = row["id"].rpartition("-")[2]
    assert visit("pause", number) == f"paused registration {number}\n"
    assert "paused" in next(line for line in visit("ls", "registrations").splitlines() if "StreamReader" in line)
    visit.db.r.xadd("s", {"a": 1})
    assert visit.db.r.get("seen") is None
    assert visit("resume", number) == f"resumed registration {number}\n"
    wait_until(lambda: visit.db.r.get("seen"), "the entry is read")
    other = next(row for row in visit.lists("registrations") if row["reader"] == "CommandReader")
    assert "only a StreamReader can be paused" in visit.fails("pause", other["id"])


@pytest.mark.parametrize("command", ["abort", "drop", "unregister", "pause", "resume"])
def test_what_is_not_there_is_named(gears: Gears, command: str) -> None:
    assert "99" in gears.fails(command, "99").splitlines()[0]
    gears.fails(command, code=2)


def test_changes_are_told_as_json_with_whole_ids(visit: Gears) -> None:
    visit("run", "-e", "GB('StreamReader').foreach(lambda x: x).register('s', mode='sync')")
    rows = {row["reader"]: row["id"] for row in visit.lists("registrations")}
    stream = rows["StreamReader"]
    assert visit.json("pause", stream.rpartition("-")[2]) == {"paused": [stream]}
    assert visit.json("resume", stream) == {"resumed": [stream]}
    assert visit.json("unregister", "visit", stream) == {"removed": [rows["CommandReader"], stream]}
    running = visit("run", "--no-wait", "-e", SLOW).strip()
    assert visit.json("abort", "--all") == {"aborted": [running]}
    wait_until(lambda: visit.json("drop", "--all"), "it has ended", until=lambda told: told == {"dropped": [running]})
    assert visit.json("abort", "--all") == {"aborted": []}
    assert "'99'" in visit.fails("drop", "--json", "99")


# -- failures that all share


SENTENCES = [
    ["run", "-e", "GB().run()"],
    ["trigger", "x"],
    ["ls"],
    ["show", "1"],
    ["abort", "1"],
    ["drop", "1"],
    ["unregister", "1"],
    ["pause", "1"],
    ["resume", "1"],
    ["stats"],
    ["top", "--once"],
    ["bench"],
]


def test_a_server_without_the_module(cli: Cli) -> None:
    server = plain_server()
    try:
        for words in SENTENCES:
            what, fix = cli.fails(*words, "-p", server.port, code=4).splitlines()
            assert "does not have the module" in what and "redgrease serve" in fix, words
    finally:
        server.stop()


def test_a_server_that_is_not_there(cli: Cli) -> None:
    for words in SENTENCES:
        what, fix = cli.fails(words[0], "-p", "1", *words[1:], code=3).splitlines()
        assert what == "redgrease: no server answers at 127.0.0.1:1" and "redgrease serve" in fix, words


def test_a_user_without_permission(cli: Cli, db: Database) -> None:
    db.r.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "+ping", "+hello", "+client")
    try:
        for words in [*SENTENCES, ["doctor"]]:
            options = ["-p", db.server.port, "--user", "poor"]
            done = cli.run(words[0], *options, *words[1:], code=5, REDISCLI_AUTH="secret")
            assert "NOPERM" in done.stderr.decode() + done.stdout.decode(), words
    finally:
        db.r.execute_command("ACL", "DELUSER", "poor")


# -- colours


def test_colours_are_for_terminals_without_no_color(gears: Gears) -> None:
    def shown(*args: str, **env: str) -> str:
        shell = Terminal(gears.cli, *args, **env)
        shell.end()
        return shell.shown

    assert has_colour(shown("doctor")) and not has_colour(shown("doctor", NO_COLOR="1"))
    assert not has_colour(gears("doctor"))
    assert has_colour(shown("--help")) and not has_colour(shown("--help", NO_COLOR="1"))
    assert not has_colour(gears("--help"))


@pytest.mark.parametrize("what", ["ls", "stats", "bench"])
def test_a_terminal_shows_the_same_as_a_pipe(gears: Gears, what: str) -> None:
    shown, piped = Terminal(gears.cli, what, columns=200).end(), gears(what)
    assert shown.split()[0] == piped.split()[0] and not has_colour(piped)
