"""The command `redgrease`: serve, stop, logs and call, run as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from .command_line import REDGREASE, Cli, is_running, server_pid
from .database import Database
from .processes import workers_of
from .servers import KINDS, ServerKind, free_port
from .waiting import wait_until

ALL_VALUES = "GB('KeysReader').map(lambda r: r['value']).run()"


# -- serve and stop


def test_serve_runs_functions_in_every_server_and_stop_leaves_nothing_running(
    cli: Cli, server_kind: ServerKind
) -> None:
    port = cli.serve("--server-binary", server_kind.binary())
    cli.call(port, "SET", "answer", "42")
    assert cli.call(port, "RG.PYEXECUTE", ALL_VALUES).split() == [b"42"]
    pid = server_pid(port)
    workers = workers_of(pid)
    assert workers

    assert b"stopped" in cli.run("stop").stdout

    assert not is_running(pid)
    wait_until(lambda: [p.pid for p in workers if p.alive()], "workers end", until=lambda left: not left)


def test_serve_takes_the_embedded_server_and_the_module_of_its_own_environment(cli: Cli) -> None:
    KINDS[0].binary()
    del cli.env["REDGREASE_MODULE"]
    said = cli.run("serve", "--background", "--port", "0", PATH="/usr/bin:/bin").stdout.decode()
    assert said.startswith("Valkey 9."), said
    (record,) = cli.servers()
    assert f"redgrease call --port {record['port']} PING" in said
    modules = json.loads(cli.call(record["port"], "--json", "MODULE", "LIST"))
    assert "rg" in [module["name"] for module in modules]


def test_serve_in_the_foreground_shows_the_log_and_ends_on_a_signal(cli: Cli) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process, port = cli.serve_here()
        pid = server_pid(port)
        process.send_signal(number)
        rest, log = process.communicate(timeout=20)
        assert (process.returncode, rest) == (0, ""), (number, log)
        assert "Ready to accept connections" in log
        assert not is_running(pid)
        assert list(cli.state.iterdir()) == []


def test_ctrl_c_reaches_the_command_and_not_the_server(cli: Cli) -> None:
    process, port = cli.serve_here()
    pid = server_pid(port)
    assert os.getsid(pid) == pid, "the server has a session of its own"
    assert os.getsid(process.pid) != pid


def test_a_killed_serve_takes_its_server_along(cli: Cli) -> None:
    process, port = cli.serve_here()
    pid = server_pid(port)
    process.kill()
    wait_until(lambda: is_running(pid), "the server ends", until=lambda running: not running)


def test_a_server_that_dies_ends_serve_with_an_error(cli: Cli) -> None:
    process, port = cli.serve_here()
    os.kill(server_pid(port), signal.SIGKILL)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended unexpectedly (signal: 9" in log


def test_stop_ends_a_server_in_the_foreground_of_another_terminal(cli: Cli) -> None:
    process, port = cli.serve_here()
    cli.run("stop", "--port", port)
    assert process.wait(20) == 0


def test_a_server_without_a_folder_forgets_and_leaves_no_file(cli: Cli) -> None:
    port = cli.serve()
    cli.call(port, "SET", "a", "1")
    cli.run("stop")
    files = {path.name for path in cli.state.rglob("*") if path.is_file()}
    assert files == {"server.json", "server.log"}
    cli.serve(port=port)
    assert cli.call(port, "DBSIZE") == b"0\n"
    assert len(list(cli.state.iterdir())) == 1, "what the server before left is swept"


def test_a_server_with_a_folder_remembers(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "my data"
    port = cli.serve("--dir", data)
    cli.call(port, "SET", "a", "1")
    cli.run("stop")
    cli.serve("--dir", data, port=port)
    assert cli.call(port, "GET", "a") == b"1\n"
    assert (data / "server.log").is_file()


def test_two_servers_do_not_use_one_folder(cli: Cli, tmp_path: Path) -> None:
    port = cli.serve("--dir", tmp_path)
    cli.call(port, "SET", "a", "1")
    refused = cli.run("serve", "--background", "--port", "0", "--dir", tmp_path, code=1)
    assert f"--dir {tmp_path} is used by another server: stop the server on port {port} with" in refused.stderr.decode()
    os.kill(server_pid(port), signal.SIGKILL)
    port = cli.serve("--dir", tmp_path)
    assert cli.call(port, "GET", "a") == b"1\n"


def test_a_server_in_the_background_has_a_session_of_its_own(cli: Cli) -> None:
    pid = server_pid(cli.serve())
    assert os.getsid(pid) == pid


def test_what_follows_the_dashes_reaches_the_server_and_set_reaches_the_module(cli: Cli) -> None:
    port = cli.serve("--set", "MaxExecutions=7", "--", "--maxmemory", "123mb")
    assert cli.call(port, "CONFIG", "GET", "maxmemory").split()[1] == str(123 * 1024 * 1024).encode()
    modules = json.loads(cli.call(port, "--json", "MODULE", "LIST"))
    args = next(module["args"] for module in modules if module["name"] == "rg")
    assert args[-2:] == ["MaxExecutions", "7"]


def test_a_server_with_a_password_is_started_called_and_stopped(cli: Cli) -> None:
    port = cli.serve("--", "--requirepass", "secret")
    assert "NOAUTH" in cli.fails("call", "--port", port, "PING", code=5)
    assert cli.run("call", "--port", port, "PING", REDISCLI_AUTH="secret").stdout == b"PONG\n"
    assert b"stopped" in cli.run("stop").stdout


@pytest.mark.slow
def test_a_server_that_does_not_react_is_killed(cli: Cli) -> None:
    port = cli.serve()
    pid = server_pid(port)
    os.kill(pid, signal.SIGSTOP)
    assert b"killed" in cli.run("stop").stdout
    assert not is_running(pid)


# -- errors of serve


def test_a_port_in_use_is_an_error_that_names_the_owner(cli: Cli) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        said = cli.fails("serve", "--port", port)
        assert f"port {port} is in use by another program" in said and "--port" in said
    port = cli.serve()
    assert f"redgrease stop --port {port}" in cli.fails("serve", "--port", port)
    assert cli.call(port, "PING") == b"PONG\n"


def test_a_module_that_does_not_load_shows_the_words_of_the_server(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    broken.chmod(0o755)
    said = cli.fails("serve", "--background", "--port", free_port(), "--module", broken)
    assert "invalid ELF header" in said or "file too short" in said
    assert f"The module {broken} does not load in" in said and "--module" in said
    assert list(cli.state.iterdir()) == []


def test_a_load_argument_with_a_wrong_value_is_shown(cli: Cli) -> None:
    said = cli.fails("serve", "--background", "--port", free_port(), "--set", "MaxExecutions=many")
    assert "MaxExecutions" in said and "--set" in said


def test_a_server_option_that_does_not_exist_is_shown(cli: Cli) -> None:
    said = cli.fails("serve", "--background", "--port", free_port(), "--", "--no-such-option", "1")
    assert "no-such-option" in said and "after --" in said


@pytest.mark.parametrize("option", ["--module", "--server-binary", "--python"])
def test_a_part_that_is_not_there_is_named_before_anything_starts(cli: Cli, option: str) -> None:
    said = cli.fails("serve", "--port", free_port(), option, "/nowhere/at/all")
    assert f"{option} /nowhere/at/all: there is no such" in said


@pytest.mark.parametrize("option", ["--server-binary", "--python"])
def test_a_file_that_cannot_be_run_is_not_called_missing(cli: Cli, tmp_path: Path, option: str) -> None:
    said = cli.fails("serve", "--port", free_port(), option, "/etc/passwd")
    assert f"{option} /etc/passwd: the file is not executable" in said
    assert f"{option} {tmp_path}: it is a directory" in cli.fails("serve", "--port", free_port(), option, tmp_path)


def test_a_python_without_the_package_is_a_warning(cli: Cli, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=60)
    port = free_port()
    binary = KINDS[0].binary()
    said = cli.run(
        "serve", "--background", "--port", port, "--python", bare / "bin" / "python", "--server-binary", binary
    )
    assert b"has no package redgrease" in said.stderr
    assert cli.call(port, "PING") == b"PONG\n"


def test_a_server_that_never_answers_ends_at_the_deadline(cli: Cli, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\necho here I am\nexec sleep 60\n")
    mute.chmod(0o755)
    said = cli.fails("serve", "--port", free_port(), "--server-binary", mute, "--timeout", "0.5")
    assert "did not answer within 0.5 s" in said and "here I am" in said


def test_a_state_folder_that_cannot_be_used_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli.fails("serve", "--port", free_port(), REDGREASE_STATE_DIR=str(tmp_path / "file" / "state"))
    assert "set REDGREASE_STATE_DIR" in said


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["serve", "--prot", "1"],
        ["serve", "--port", "65536"],
        ["serve", "--timeout", "0"],
        ["serve", "--set", "x"],
        ["serve", "--", "--port", "1"],
        ["serve", "--", "--daemonize", "yes"],
        ["call"],
        ["call", "--raw", "--json", "PING"],
        ["logs", "--tail", "-1"],
        ["--fly"],
    ],
)
def test_a_wrong_command_line_ends_with_2(cli: Cli, args: Sequence[str]) -> None:
    assert cli.fails(*args, code=2)


# -- stop and logs


def test_stop_and_logs_without_a_server_say_so(cli: Cli) -> None:
    assert "no server that `redgrease serve` started is running" in cli.fails("stop")
    assert "on port 7" in cli.fails("stop", "--port", 7)
    assert "no log" in cli.fails("logs")


def test_stop_and_logs_ask_which_of_several_servers_is_meant(cli: Cli) -> None:
    first, second = cli.serve(), cli.serve()
    for subcommand in ("stop", "logs"):
        said = cli.fails(subcommand, code=2)
        assert str(first) in said and str(second) in said
    cli.run("stop", "--port", first)
    cli.run("stop")


def test_logs_show_the_whole_log_or_its_end_also_of_a_server_that_ended(cli: Cli) -> None:
    port = cli.serve()
    whole = cli.run("logs").stdout
    assert b"Ready to accept connections" in whole
    assert cli.run("logs", "--tail", 2).stdout == b"".join(whole.splitlines(keepends=True)[-2:])
    os.kill(server_pid(port), signal.SIGKILL)
    wait_until(lambda: cli.run("stop", code=None).returncode, "the server is gone")
    assert cli.run("logs", "--port", port).stdout.startswith(whole)


def test_logs_follow_until_the_server_ends(cli: Cli) -> None:
    port = cli.serve()
    follower = subprocess.Popen([REDGREASE, "logs", "-f", "-n", "0"], stdout=subprocess.PIPE, env=cli.env)
    cli.call(port, "RG.PYEXECUTE", "print('a word from inside'); " + ALL_VALUES)
    cli.run("stop")
    followed, _ = follower.communicate(timeout=20)
    assert follower.returncode == 0
    assert b"a word from inside" in followed
    assert b"Ready to accept connections" not in followed


def test_a_reader_that_goes_away_is_no_error(cli: Cli) -> None:
    cli.serve()
    logs = subprocess.Popen([REDGREASE, "logs", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.env)
    assert logs.stdout is not None
    logs.stdout.readline()
    logs.stdout.close()
    cli.run("stop")
    assert logs.wait(20) == 0
    assert logs.stderr is not None and logs.stderr.read() == b""


# -- call


@pytest.fixture(scope="module")
def port_and_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Cli]]:
    cli = Cli(tmp_path_factory.mktemp("call"))
    yield cli.serve(), cli
    cli.stop_all()


def test_call_prints_a_reply_with_its_types(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    cli.call(port, "RPUSH", "typed", "plain", 'with "quotes"')
    script = "return {1, 'two', {3, {}}, false}"
    assert cli.call(port, "--no-raw", "EVAL", script, 0).decode() == (
        '1) (integer) 1\n2) "two"\n3) 1) (integer) 3\n   2) (empty array)\n4) (nil)\n'
    )
    assert cli.call(port, "--no-raw", "LRANGE", "typed", 0, 1).decode() == '1) "plain"\n2) "with \\"quotes\\""\n'
    assert cli.call(port, "--no-raw", "PING") == b"PONG\n"


def test_call_keeps_every_byte_both_ways(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    value = bytes(range(1, 256))
    subprocess.run([REDGREASE, "call", "--port", str(port), "SET", "bytes", value], check=True, env=cli.env)
    assert cli.call(port, "GET", "bytes") == value + b"\n"
    assert cli.call(port, "--no-raw", "STRLEN", "bytes") == b"(integer) 255\n"
    assert json.loads(cli.call(port, "--json", "GET", "bytes")) == {"hex": value.hex()}
    cli.run("call", "--port", port, "-x", "SET", "bytes", input=b"\x00" + value)
    assert cli.call(port, "GET", "bytes") == b"\x00" + value + b"\n"


def test_call_prints_json_for_scripts(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    cli.call(port, "HSET", "hash", "field", "é")
    assert json.loads(cli.call(port, "--json", "HGETALL", "hash")) == {"field": "é"}
    assert json.loads(cli.call(port, "--json", "EVAL", "return {1, 'two', false}", 0)) == [1, "two", None]
    done = cli.run("call", "--port", port, "--json", "NOPE", code=1)
    assert json.loads(done.stderr)["error"].startswith("ERR unknown command")
    assert done.stdout == b""


def test_an_error_reply_goes_to_stderr_and_ends_with_1(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    cli.call(port, "SET", "text", "x")
    assert cli.fails("call", "--port", port, "LPUSH", "text", "y") == (
        "(error) WRONGTYPE Operation against a key holding the wrong kind of value\n"
    )


def test_options_after_the_command_belong_to_the_command(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    cli.call(port, "SET", "option", "--json")
    assert cli.call(port, "GET", "option") == b"--json\n"
    assert cli.call(port, "ECHO", "-x") == b"-x\n"


def test_call_without_a_server_says_what_to_do(cli: Cli) -> None:
    port = free_port()
    said = cli.fails("call", "--port", port, "PING", code=3)
    assert said.splitlines() == [
        f"redgrease: no server answers at 127.0.0.1:{port}",
        "fix: start one with `redgrease serve`, or name another with --server and --port, or --url",
    ]


def test_call_gives_up_at_its_deadline(port_and_cli: tuple[int, Cli]) -> None:
    port, cli = port_and_cli
    said = cli.fails("call", "--port", port, "--timeout", "0.3", "BLPOP", "nothing", 0, code=7)
    assert "no reply within 300ms (--timeout)" in said


@pytest.mark.parametrize("words", [["SHUTDOWN", "NOSAVE"], ["debug", "segfault"]])
def test_a_command_that_ends_the_server_is_no_error(
    cli: Cli, fresh_server: Callable[..., Database], words: list[str]
) -> None:
    port = fresh_server(conf={"crash-memcheck-enabled": "no"}).server.port
    done = cli.run("call", "--port", port, *words)
    assert done.stdout == b""
    assert done.stderr.decode() == f"127.0.0.1:{port} closed the connection, as {words[0].upper()} requests\n"


def test_a_command_that_is_answered_before_the_connection_ends_prints_its_reply(cli: Cli) -> None:
    port = cli.serve()
    assert cli.call(port, "QUIT") == b"OK\n"
    assert cli.call(port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").strip().isdigit()


def test_a_shutdown_that_the_server_refuses_is_an_error(cli: Cli, tmp_path: Path) -> None:
    port = cli.serve("--dir", tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    assert "SHUTDOWN" in cli.fails("call", "--port", port, "SHUTDOWN", "SAVE")
    assert "ERR" in cli.fails("call", "--port", port, "SHUTDOWN", "ABORT")


def test_a_connection_that_ends_unasked_is_an_error(cli: Cli) -> None:
    port = cli.serve()
    command = [REDGREASE, "call", "--port", str(port), "BLPOP", "nothing", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.env) as waiting:
        with redis.Redis(port=port) as client:
            wait_until(lambda: client.info("clients")["blocked_clients"], "a client waits", until=lambda n: n == 1)
            client.client_kill_filter(_type="normal")
        _, said = waiting.communicate(timeout=20)
    assert (waiting.returncode, f"127.0.0.1:{port} broke" in said.decode()) == (3, True), said


def test_version_names_the_product(cli: Cli) -> None:
    assert cli.run("--version").stdout.startswith(b"redgrease 1.")
