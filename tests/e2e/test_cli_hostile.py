"""The program and what it must survive: servers that answer nonsense, hang or die, outputs that are closed or full, odd
names, bytes and addresses, users who lack a permission."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .command_line import REDGREASE, Cli, Terminal, plain
from .database import Database
from .fake_server import FakeServer
from .loading import Loading, command
from .waiting import wait_until

SLOW = "import time\nGB('PythonReader').map(lambda x: time.sleep(0.02)).run(lambda: iter(range(10_000)))"
THREE = "GB('PythonReader').run(lambda: iter(range(3)))"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    return path


def start(cli: Cli, *words: object) -> subprocess.Popen[bytes]:
    line = [REDGREASE, *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.env)


# -- replies


BROKEN = {
    "garbage": b"\xff\xfe garbage\r\n",
    "nothing": None,
    "no end": b"+OK",
    "a truncated text": b"$10\r\nabc",
    "a huge text": b"$9223372036854775807\r\nabc",
    "a large text": b"$99999999999\r\nabc",
    "a huge array": b"*9223372036854775807\r\nx",
    "a large array": b"*1000000000\r\n:1",
    "a huge map": b"%9223372036854775807\r\n:1",
    "a huge set": b"~9223372036854775807\r\n:",
    "a huge push": b">9223372036854775807\r\n:",
    "a huge attribute": b"|9223372036854775807\r\n:",
    "deep nesting": b"*1\r\n" * 100_000 + b":1\r\n",
    "a long number": b":99999999999999999999\r\n",
    "no number": b",abc\r\n",
    "no flag": b"#x\r\n",
    "a short verbatim text": b"=1\r\nt\r\n",
    "a text that is not UTF-8": b"+\xff\r\n",
}
UNEXPECTED = {
    "a number": b":1\r\n",
    "OK": b"+OK\r\n",
    "null": b"_\r\n",
    "a negative array": b"*-5\r\n",
    "a negative text": b"$-7\r\n",
    "an empty array": b"*0\r\n",
    "nulls": b"*2\r\n_\r\n$-1\r\n",
    "a row of another kind": b"*1\r\n*2\r\n$2\r\nid\r\n:1\r\n",
    "an error without a text": b"-\r\n",
    "an error that is not UTF-8": b"-ERR \xff\xfe\r\n",
    "an error that draws": b"-ERR \x1b[2J\x07 bad\r\n",
    "a long text": b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n",
    "a redirection to nowhere": b"-MOVED 1 127.0.0.1:1\r\n",
}
COMMANDS = [
    ["ls"],
    ["show", "1"],
    ["abort", "--all", "--json"],
    ["pause", "1"],
    ["stats"],
    ["top", "--once", "--interval", "10ms", "--json"],
    ["doctor"],
    ["run", "-e", "x"],
    ["trigger", "x"],
    ["call", "GET", "x"],
]


@pytest.mark.parametrize("reply", [*BROKEN, *UNEXPECTED])
def test_a_server_that_answers_nonsense(cli: Cli, script: Path, reply: str) -> None:
    with FakeServer({}, otherwise={**BROKEN, **UNEXPECTED}[reply]) as server:
        for words in [*COMMANDS, [script]]:
            done = cli.run(words[0], "--url", server.url, *words[1:], code=None)
            said = done.stderr.decode(errors="replace")
            assert 0 <= done.returncode <= 8 and "panicked" not in said and "\x1b" not in said, (words, said)
            assert reply not in BROKEN or done.returncode in (1, 3, 5), (words, done)
            assert len(said) < 1000 and len(said.splitlines()) <= 3, (words, said)


def test_redirections_in_a_circle_end(cli: Cli, script: Path) -> None:
    with FakeServer({}) as server:
        server.otherwise = f"-MOVED 1 127.0.0.1:{server.port}\r\n".encode()
        said = cli.fails(script, "--url", server.url, code=1)
        assert f"127.0.0.1:{server.port} redirected a command 5 times\nfix: see whether the nodes" in said
        assert [words[0] for words in server.seen].count(b"RG.PYDUMPSESSIONS") == 5
        server.answers[b"ROLE"] = f"*5\r\n+slave\r\n+127.0.0.1\r\n:{server.port}\r\n+connected\r\n:1\r\n".encode()
        assert "is a replica of a replica, 5 times" in cli.fails(script, "--url", server.url, code=1)


# -- servers that hang or die


def test_a_server_that_does_not_answer(cli: Cli, script: Path) -> None:
    """The message tells the limit, which holds for all that is asked when a connection is made."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"redis://127.0.0.1:{listener.getsockname()[1]}/3"
        running = [start(cli, *words, "--url", address) for words in (["ls"], [script])]
        for process in running:
            _, said = process.communicate(timeout=9)
            assert process.returncode == 3
            assert b"did not answer within 5 s\nfix: see whether the server hangs" in said


def execution(db: Database) -> None:
    states = wait_until(db.executions, "it runs", until=lambda rows: [row.status for row in rows] == ["running"])
    assert len(states) == 1


def test_a_server_that_is_killed_during_a_run(cli: Cli, fresh_server: Callable[..., Database]) -> None:
    db = fresh_server()
    process = start(cli, "run", "-p", db.server.port, "-e", SLOW)
    execution(db)
    db.server.kill()
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, b"")
    assert re.fullmatch(rb"redgrease: the connection to the server broke: .*\nfix: look at the log .*\n", said), said


@contextmanager
def frozen(db: Database) -> Iterator[None]:
    os.kill(db.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(db.server.pid, signal.SIGCONT)


def test_a_server_that_hangs_during_a_run(cli: Cli, fresh_server: Callable[..., Database]) -> None:
    db = fresh_server()
    process = start(cli, "run", "-p", db.server.port, "--timeout", 1, "-e", SLOW)
    execution(db)
    with frozen(db):
        _, said = process.communicate(timeout=20)
    assert process.returncode == 7
    assert re.search(rb"it took longer than 1s \(--timeout\); execution \d+ may still run, it was not aborted: ", said)
    cli.run("abort", "--all", "-p", db.server.port)


def test_lines_of_json_continue_when_a_server_is_back(cli: Cli, fresh_server: Callable[..., Database]) -> None:
    server = fresh_server().server
    process = start(cli, "top", "--json", "--interval", "100ms", "-p", server.port)
    assert process.stdout is not None and process.stderr is not None
    first = json.loads(process.stdout.readline())
    assert first["address"] == f"127.0.0.1:{server.port}"
    server.kill()
    assert process.stderr.readline().endswith(b"; trying again\n")
    server.start_again()
    line = process.stdout.readline()
    while json.loads(line)["uptime_seconds"] > first["uptime_seconds"]:
        line = process.stdout.readline()  # written before the server was killed
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_log_of_a_killed_server_ends(cli: Cli) -> None:
    port = cli.serve()
    process = start(cli, "logs", "-f")
    (record,) = cli.servers()
    os.kill(record["pid"], signal.SIGKILL)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, b"") and str(port).encode() in out


# -- outputs


OUTPUTS = [
    ["ls"],
    ["abort", "--all", "--json"],
    ["stats", "--reset"],
    ["top", "--once", "--interval", "10ms"],
    ["top", "--json", "--interval", "10ms"],
    ["doctor"],
    ["run", "-e", THREE],
    ["run", "--json", "-e", THREE],
    ["run", "-e", "x = 1"],
    ["run", "--no-wait", "-e", THREE],
    ["call", "PING"],
    ["man"],
    ["completions", "bash"],
    ["cache", "codes"],
]


def test_a_reader_that_has_gone_is_no_error(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    for words in OUTPUTS:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([REDGREASE, *words], stdout=writer, stderr=subprocess.PIPE, env=cli.env, timeout=60)
        assert done.returncode == 0 and b"rror" not in done.stderr, (words, done)
        failing = [REDGREASE, "show", "99"]
        assert subprocess.run(failing, stdout=writer, stderr=writer, env=cli.env, timeout=60).returncode == 1
        os.close(writer)


def test_changes_are_made_also_if_nobody_reads_them(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    for _ in range(2):
        cli.run("run", "--no-wait", "-e", SLOW)
    reader, writer = os.pipe()
    os.close(reader)
    assert subprocess.run([REDGREASE, "abort", "--all"], stdout=writer, env=cli.env, timeout=60).returncode == 0
    os.close(writer)
    wait_until(
        db.executions,
        "all have ended",
        until=lambda rows: {row.status for row in rows}.isdisjoint({"created", "running"}),
    )


def test_a_full_disk_is_an_error(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    cli.serve()
    for words in [*OUTPUTS, ["logs"], ["logs", "-f"]]:
        with open("/dev/full", "wb") as full:
            done = subprocess.run([REDGREASE, *words], stdout=full, stderr=subprocess.PIPE, env=cli.env, timeout=60)
        assert done.returncode == 1 and b"redgrease: the output cannot be written: No space left" in done.stderr, done


# -- names, bytes and addresses


def test_large_names_and_control_characters(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    name = "n" * 1_000_000
    cli.run("run", input=f"GB('CommandReader', desc='{name}').register(trigger='{name}')".encode())
    cli.run("run", "-e", "GB().register('\\x1b[2J*')")
    for words in (["ls"], ["top", "--once", "--interval", "10ms"], ["doctor"], ["stats"]):
        shown = cli.run(*words).stdout
        assert len(shown) < 10_000 and b"\x1b" not in shown, words
    rows = json.loads(cli.run("ls", "registrations", "--json").stdout)["registrations"]
    assert {row["source"] for row in rows} == {f"trigger {name}", "keys \x1b[2J*"}
    removed = cli.run("unregister", "--json", *[row["id"] for row in rows]).stdout
    assert json.loads(removed) == {"removed": [row["id"] for row in rows]}


def test_texts_of_functions_change_no_terminal(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    name = "x) failed\n\x1b[2Kok     everything: is fine (\u202e"
    script = f"def fail(x):\n    raise Exception({name!r})\n"
    script += f"GB('CommandReader', desc={name!r}).map(fail).register(trigger={name!r})"
    cli.run("run", input=script.encode())
    cli.run("trigger", name, code=None)
    [row] = json.loads(cli.run("ls", "registrations", "--json").stdout)["registrations"]
    assert "\x1b[2Kok" in row["last_error"]
    for words in (["doctor"], ["show", row["id"]], ["ls"], ["top", "--once", "--interval", "10ms"]):
        shown = cli.run(*words).stdout.decode()
        assert "failed" in shown and "\x1b" not in shown and "\u202e" not in shown, words
    assert not re.search("^ok +everything", cli.run("doctor").stdout.decode(), re.MULTILINE)
    as_json = cli.run("show", "--json", row["id"]).stdout.decode()
    assert "\u202e" not in as_json and name in json.loads(as_json)["source"]


@pytest.mark.parametrize(
    ("source", "error"),
    [(b"x = '\xff'\n", "SyntaxError: (unicode error)"), (b"x = 'a\0b'\n", "SyntaxError: source code string cannot")],
)
def test_scripts_are_sent_as_they_are(cli: Cli, db: Database, tmp_path: Path, source: bytes, error: str) -> None:
    script = tmp_path / "bad.py"
    script.write_bytes(source)
    for words in (["run", script], [script]):
        said = cli.fails(*words, "--url", f"redis://127.0.0.1:{db.server.port}")
        assert error in said and "['" not in said, said


def test_results_that_are_no_texts(cli: Cli, db: Database) -> None:
    cli.env["REDGREASE_URL"] = f"redis://127.0.0.1:{db.server.port}"
    nasty = (
        "{'text': 'a\\0\\'\"\\\\\u00e9\\U0001f600', 'bytes': b'\\xff', 'list': [1, -2.5e300, float('nan'), (True,)]}"
    )
    columns = cli.run("run", "--table", "-e", f"GB('PythonReader').run(lambda: iter([{nasty}]))").stdout.decode()
    assert re.split("  +", columns.splitlines()[1]) == [
        "a '\"\\\u00e9\U0001f600",
        "0xff",
        '[1,-2.5e+300,"nan",[true]]',
    ], columns


def test_forms_of_addresses(cli: Cli, fresh_server: Callable[..., Database], tmp_path: Path, script: Path) -> None:
    path = tmp_path / "socket"
    port = fresh_server(conf={"bind": "127.0.0.1 ::1", "unixsocket": path}).server.port
    for options, place in [
        (["--url", f"redis://[::1]:{port}"], f"[::1]:{port}"),
        (["-s", "::1", "-p", port], f"[::1]:{port}"),
        (["-s", "[::1]", "-p", port], f"[::1]:{port}"),
        (["--url", f"unix://{path}?db=3"], str(path)),
        (["--url", f"redis+unix://{path}"], str(path)),
        (["--url", f"valkey://localhost:{port}/3"], f"localhost:{port}"),
    ]:
        assert cli.run("ls", *options, "executions").stdout == b"no executions\n"
        assert json.loads(cli.run("top", "--once", "--interval", "1ms", "--json", *options).stdout)["address"] == place
        assert f"1 file loaded into {place}\n" in cli.run(*options, script).stderr.decode()
    for address, what in [
        ("redis://[::1", "--url (REDGREASE_URL) is not an address"),
        (f"redis://:p@[::1]:{port}/x", "Invalid database"),
    ]:
        said = cli.fails("ls", "--url", address, code=2)
        assert what in said and ":p@" not in said and "fix: write redis://" in said, said
    said = cli.fails("ls", "--url", f"redis://127.0.0.1:{port}/99")
    assert f"cannot connect to 127.0.0.1:{port}: DB index is out of range\nfix: correct --url" in said


def test_what_is_no_file_is_not_loaded(cli: Cli, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.py"
    os.mkfifo(fifo)
    said = cli.fails(fifo, code=8)
    assert f"{fifo}: this is no regular file\nfix: name files and directories" in said


# -- permissions


def test_a_user_who_may_run_and_nothing_else(cli: Cli, db: Database) -> None:
    allowed = ["+rg.pyexecute", "+rg.withcodec", "+rg.getresultsblocking"]
    db.r.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", *allowed)
    options = ["-p", db.server.port, "--user", "poor"]
    cli.env["REDISCLI_AUTH"] = "secret"
    try:
        assert cli.run("run", *options, "-e", THREE).stdout == b"0\n1\n2\n"
        shell = Terminal(cli, "run", *options, "-e", SLOW)
        try:
            shell.wait_for(lambda shown: re.search(r"execution \d+ is running: \d\.\d s", plain(shown)))
            shell.type("\x03")
            said = shell.end(code=130)
        finally:
            shell.close()
        assert "may still run, it was not aborted: NOPERM" in said, said
    finally:
        db.r.execute_command("ACL", "DELUSER", "poor")
        cli.env.pop("REDISCLI_AUTH")
        cli.run("abort", "--all", "-p", db.server.port)


def test_the_changes_that_were_made_before_one_fails_are_told(cli: Cli) -> None:
    ids = [f"{'0' * 40}-{number}" for number in (1, 2, 3)]
    rows = "".join(f"*6\r\n+executionId\r\n+{each}\r\n+status\r\n+running\r\n+registered\r\n:0\r\n" for each in ids)
    answers = iter([b"+OK\r\n", b"-ERR not this one\r\n"])
    commands = {b"RG.DUMPEXECUTIONS": f"*3\r\n{rows}".encode(), b"RG.ABORTEXECUTION": lambda _: next(answers)}
    with FakeServer(commands) as server:
        done = cli.run("abort", "--all", "--json", "--url", server.url, code=1)
    assert json.loads(done.stdout) == {"aborted": ids[:1]}
    assert done.stderr == b"redgrease: not this one\n"


# -- progress


def test_the_progress_of_a_run_shows_what_the_server_tells(cli: Cli) -> None:
    """Servers may tell the number of results before the end; this one also has an execution that waits."""
    identifier = f"{'0' * 40}-7"
    state = {"status": "created", "results": -1}

    def plan(_: list[bytes]) -> bytes:
        fields = f"+status\r\n+{state['status']}\r\n+results\r\n:{state['results']}\r\n"
        return f"*1\r\n*4\r\n+shard_id\r\n+x\r\n+execution_plan\r\n*4\r\n{fields}".encode()

    commands = {
        b"RG.WITHCODEC": lambda words: f"+{identifier}\r\n".encode() if words[2] == b"RG.PYEXECUTE" else results(),
        b"RG.GETEXECUTION": plan,
        b"RG.DROPEXECUTION": b"+OK\r\n",
    }
    ended = socket.socketpair()

    def results() -> bytes:
        ended[1].recv(1)
        return b"*2\r\n*0\r\n*0\r\n"

    with FakeServer(commands) as server:
        shell = Terminal(cli, "run", "--url", server.url, "-e", "x")
        try:
            shell.wait_for(lambda shown: re.search(r"execution 7 waits: \d\.\d s \(Ctrl-C aborts it\)", plain(shown)))
            state.update(status="running", results=1234)
            shell.wait_for(lambda shown: re.search(r"execution 7 is running: 1234 records, \d\.\d s", plain(shown)))
            ended[0].send(b"x")
            shell.end()
        finally:
            shell.close()
            for end in ended:
                end.close()


# -- the index


def test_a_registration_of_the_index_that_is_not_there_is_no_error(db: Database, tmp_path: Path) -> None:
    """An index outlives the registrations of a server that does not save them."""
    loading = Loading(tmp_path, db.server.port)
    kept = loading.write("kept.py", command("kept", 1))
    paths = [loading.write(name, command(name, 1)) for name in ("gone.py", "nonsense.py")]
    with loading.watch() as watching:
        for row in db.r.execute_command("RG.DUMPREGISTRATIONS"):
            db.r.execute_command("RG.UNREGISTER", row[1])
        db.r.hset(loading.index_key(paths[0]), "registration_id", f"{'0' * 40}-999")
        db.r.hset(loading.index_key(paths[1]), "registration_id", "nonsense")
        for path in paths:
            path.unlink()
        watching.wait_for("removed (0 registrations)", count=2)
        assert "error" not in watching.log()
    assert db.r.keys("*") == [loading.index_key(kept).encode()]
