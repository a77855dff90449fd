"""Published clients of RedisGears 1.x, unchanged, against our server; and programs written for them with our package.

The environments are made by pip in a cache directory when the old Python is there, see `old_clients`.
"""

from __future__ import annotations

import ast
import functools
import json
import pickle
import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import old_clients
from .old_clients import GEARS_CLI_1_2, GEARSCLIENT_1_0, REDGREASE_0_3
from .servers import ROOT, Server, ServerKind, UnavailableError
from .waiting import wait_until

redgrease = pytest.importorskip("redgrease")
_native = pytest.importorskip("redgrease._native")

PROGRAMS = Path(__file__).parent / "old_programs"


@dataclass(frozen=True)
class Client:
    """A client, the program that checks it, and the Python version of the workers."""

    program: str
    packages: tuple[str, ...]
    python: str = ""
    worker: str = ""
    wanted: str = "."
    load_args: dict[str, object] = field(default_factory=dict, hash=False)

    def checks(self) -> list[str]:
        tree = ast.parse((PROGRAMS / self.program).read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        return [name for name in names if name.startswith("check_") and re.search(self.wanted, name)]


#: RedGrease 0.3 cannot parse registrations and requirements of RedisGears 1.2.
_SHORT = {"ShortReplies": 1}
CLIENTS = {
    "redgrease-0.3-on-3.11": Client("redgrease_0_3.py", REDGREASE_0_3, "3.11", "3.11", load_args=_SHORT),
    "redgrease-0.3-on-3.9": Client("redgrease_0_3.py", REDGREASE_0_3, "3.9", "3.9", load_args=_SHORT),
    # Workers of Python 3.8 do not exist: what needs no code of the client runs on any.
    "redgrease-0.3-on-3.8": Client(
        "redgrease_0_3.py", REDGREASE_0_3, "3.8", "3.9", "_(raw|script|config|getresults|dump|pystats|versions)", _SHORT
    ),
    "gearsclient-1.0-on-3.9": Client("gearsclient_1_0.py", GEARSCLIENT_1_0, "3.9", "3.9"),
}
OURS = Client("redgrease_0_3.py", ())


@functools.cache
def failures(client: Client, kind: ServerKind) -> dict[str, str | None] | str:
    """The traceback of each check that failed, or the reason why the program cannot run."""
    try:
        python = old_clients.environment(client.python, client.packages) if client.python else sys.executable
        worker = str(old_clients.worker(client.worker)) if client.worker else sys.executable
    except UnavailableError as reason:
        return str(reason)
    server = Server(kind, python=worker, load_args=client.load_args).start()
    try:
        command = [python, PROGRAMS / client.program, str(server.port), *client.checks()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{server.log()}"
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        server.stop()


def passes(client: Client, kind: ServerKind, check: str) -> None:
    found = failures(client, kind)
    if isinstance(found, str):
        pytest.skip(found)
    if found[check] is not None:
        pytest.fail(found[check], pytrace=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "check"), [(name, check) for name, client in CLIENTS.items() for check in client.checks()]
)
def test_an_old_client_works_unchanged(server_kind, client, check):
    passes(CLIENTS[client], server_kind, check)


@pytest.mark.slow
@pytest.mark.parametrize("check", OURS.checks())
def test_a_program_for_redgrease_0_3_works_with_our_package(server_kind, check):
    passes(OURS, server_kind, check)


# -- results, by the client of a function and the client that gets them


READER = "from redgrease import CommandReader, KeysReader, StreamReader, command\n"


@pytest.fixture
def r(db):
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


def pickled(value):
    """Matches a pickle of a value that Python 3.6 can load."""

    class Pickled:
        def __eq__(self, other):
            return isinstance(other, bytes) and other[:2] == b"\x80\x04" and pickle.loads(other) == value

        def __repr__(self):
            return f"a pickle of {value!r}"

    return Pickled()


def test_runs_of_scripts_with_the_package_s_functions(db, r):
    db.r.hset("h", mapping={"f": "v"})
    script = READER + "KeysReader().values().run()"
    assert db.execute(script) == [[pickled({"f": "v"})], []]
    assert db.r.execute_command("RG.WITHCODEC", 1, "RG.PYEXECUTE", script) == [[_native.dumps({"f": "v"})], []]
    assert r.gears.pyexecute(script) == {"f": "v"}
    assert r.gears.pyexecute(script, values=False) == [pickled({"f": "v"})]


def test_runs_without_a_worker_are_pickled_too(db):
    db.r.mset({"a": 1, "b": 2})
    assert db.execute(READER + "KeysReader().count().run()") == [[pickled(2)], []]
    assert db.execute(READER + "KeysReader().count().run(convertToStr=True)") == [[pickled("2")], []]


def test_results_that_are_fetched_later(db, r):
    script = READER + "KeysReader().map(lambda _: None).run()"
    db.r.set("a", 1)
    execution = db.execute(script, "UNBLOCKING")
    assert db.r.execute_command("RG.GETRESULTSBLOCKING", execution) == [[pickled(None)], []]
    later = r.gears.getresults(execution)
    assert (later.value, later.records, later.errors) == (None, [None], [])


@pytest.mark.parametrize(
    ("by_this_package", "expected"), [(False, [pickled({"a": [1]})]), (True, [[b"a", [1]]])], ids=["other", "ours"]
)
def test_commands_of_scripts_with_the_package_s_functions(db, r, by_this_package, expected):
    script = READER + "command('answer')(lambda: {'a': [1]})"
    r.gears.pyexecute(script) if by_this_package else db.ok(script)
    assert db.r.execute_command("RG.TRIGGER", "answer") == expected
    assert r.gears.trigger("answer").value == {"a": [1]}


@pytest.mark.single("each shard has a result or an error of its own")
def test_commands_of_function_objects_answer_every_client(db, r):
    redgrease.CommandReader().map(lambda _: {"a": [1]}).register(trigger="answer", on=r)
    assert db.r.execute_command("RG.TRIGGER", "answer") == [[b"a", [1]]]
    assert r.gears.trigger("answer").value == {"a": [1]}


def test_hooks_and_events_give_plain_results(db):
    db.ok(READER + "CommandReader().map(lambda _: 'hooked').register(hook='hset', mode='sync')")
    assert db.r.execute_command("HSET", "h", "f", "v") == b"hooked"
    db.ok(READER + "KeysReader().map(lambda record: record['key']).register('k*', eventTypes=['set'])")
    db.r.set("k", 1)
    done = wait_until(lambda: [row for row in db.r.execute_command("RG.DUMPEXECUTIONS") if row[3] == b"done"], "it ran")
    assert db.r.execute_command("RG.GETRESULTS", done[0][1]) == [[b"k"], []]


def test_functions_of_redgrease_0_3_without_code_run_on_any_python(db, r):
    data = (ROOT / "tests" / "pickles" / "redgrease-0.3-command.pickle").read_bytes()
    db.ok(
        "import redgrease.gearialization\nimport redgrease.runtime\n"
        f"made = redgrease.gearialization.deserialize_gear_function({data!r}, python_version=(3, 7, 16, 'final', 0))\n"
        "redgrease.runtime.run(made, GearsBuilder)\n",
        "REQUIREMENTS",
        "redgrease[runtime]",
    )
    assert db.r.execute_command("RG.TRIGGER", "echo", "a") == [pickled(["echo", "a"])]
    assert r.gears.trigger("echo", "a").value == ["echo", "a"]


def test_short_replies_have_the_fields_of_redisgears_1_0(fresh_server):
    db = fresh_server()
    db.ok("GB('StreamReader').register('s')")
    before = db.r.execute_command("RG.DUMPREGISTRATIONS")[0]
    assert db.r.execute_command("RG.CONFIGSET", "ShortReplies", 1) == [b"OK"]
    after = db.r.execute_command("RG.DUMPREGISTRATIONS")[0]
    assert after[::2] == before[::2]
    names = [b"mode", b"numTriggered", b"numSuccess", b"numFailures", b"numAborted", b"lastError", b"args", b"status"]
    assert after[7][::2] == names
    assert sorted(ast.literal_eval(after[9].decode())) == ["depsList", "sessionId"]


# -- gears-cli


@pytest.fixture
def gears_cli(fresh_server, tmp_path):
    """Runs the program ``gears-cli`` against a server; its standard output, in which colours are removed."""
    try:
        python = old_clients.environment("3.11", GEARS_CLI_1_2)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    db = fresh_server(load_args=_SHORT)

    def run(command: str, *words: object, status: int = 0) -> str:
        line = [python.with_name("gears-cli"), command, "--port", str(db.server.port), *map(str, words)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)

    run.db = db
    return run


@pytest.mark.slow
def test_gears_cli_runs_scripts(gears_cli, tmp_path):
    gears_cli.db.r.mset({"x": "1", "y": "2"})
    script = tmp_path / "script.py"
    script.write_text("GB().map(lambda record: record['value']).run()")
    assert {'1)\t"1"', '2)\t"2"'} == {re.sub(r"\d\)", f"{n})", line) for n, line in _results(gears_cli("run", script))}
    script.write_text("GB('CommandReader').map(lambda args: args[1]).register(trigger='echo')")
    assert gears_cli("run", script) == "OK\n"
    assert gears_cli.db.r.execute_command("RG.TRIGGER", "echo", "a") == [b"a"]
    script.write_text("GB().map(lambda record: record['nope']).run()")
    assert "KeyError" in gears_cli("run", script, status=1)
    script.write_text("raise ValueError('boo')")
    assert "boo" in gears_cli("run", script, status=1)


def _results(output: str) -> list[tuple[str, str]]:
    found = re.findall(r"^(\d+)\)\t(.*)$", output, re.MULTILINE)
    return [(json.loads(text), f"0)\t{text}") for _, text in found]


@pytest.mark.slow
def test_gears_cli_moves_requirements(gears_cli, fresh_server, tmp_path):
    assert "Done" in gears_cli("install-requirements", "six==1.16.0")
    (tmp_path / "requirements.txt").write_text("six==1.16.0\n")
    script = tmp_path / "script.py"
    script.write_text("import six\nGB('CommandReader').map(lambda _: six.__version__).register(trigger='version')")
    assert gears_cli("run", script, "--requirements", tmp_path / "requirements.txt") == "OK\n"
    assert "Saving exported requirement" in gears_cli("export-requirements", "--requirement", "six==1.16.0")
    (exported,) = tmp_path.glob("*.zip")
    exported.rename(tmp_path / "six.zip")
    identifier = gears_cli.db.r.execute_command("RG.DUMPREGISTRATIONS")[0][1].decode()
    gears_cli("export-requirements", "--registration-id", identifier)
    other = fresh_server()
    words = ("--requirements-path", tmp_path, "six.zip")
    output = gears_cli("import-requirements", "--port", other.server.port, *words)
    assert "imported successfully" in output
    rows = [dict(zip(row[::2], row[1::2])) for row in other.r.execute_command("RG.PYDUMPREQS")]
    assert [row[b"Name"] for row in rows] == [b"six==1.16.0"]


# -- rgsync


@pytest.mark.slow
def test_rgsync_writes_to_sqlite(fresh_server, tmp_path):
    try:
        python = old_clients.worker("3.9")
    except UnavailableError as reason:
        pytest.skip(str(reason))
    path = tmp_path / "persons.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE persons (person_id TEXT PRIMARY KEY, first TEXT, last TEXT, age INT)")
    db = fresh_server(python=str(python), load_args={"WorkerWritable": tmp_path, "InstallMax": 280_000})
    script = f"""
from rgsync import RGWriteBehind
from rgsync.Connectors import SQLiteConnection, SQLiteConnector
connector = SQLiteConnector(SQLiteConnection({str(path)!r}), 'persons', 'person_id')
mappings = {{'first_name': 'first', 'last_name': 'last', 'age': 'age'}}
RGWriteBehind(GB, keysPrefix='person', mappings=mappings, connector=connector, name='Persons', version='99.99.99')
"""
    # Its drivers for many databases are downloaded, and some are built.
    with db.server.client(socket_timeout=300) as patient:
        assert patient.execute_command("RG.PYEXECUTE", script, "REQUIREMENTS", "rgsync==1.2.0") == b"OK"
    db.r.hset("person:1", mapping={"first_name": "Ada", "last_name": "Lovelace", "age": 36})

    def rows() -> list[tuple[object, ...]]:
        with sqlite3.connect(path) as connection:
            return connection.execute("SELECT * FROM persons").fetchall()

    wait_until(rows, "the row is written", until=lambda found: found == [("1", "Ada", "Lovelace", 36)], deadline=20)
    db.r.delete("person:1")
    wait_until(rows, "the row is removed", until=lambda found: found == [], deadline=20)
