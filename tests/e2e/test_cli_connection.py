"""How the program finds a server, what it says when there is none to talk to, and its exit codes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .caching import plain_server
from .command_line import Cli
from .database import Database
from .servers import free_port


def what_and_fix(said: str) -> tuple[str, str]:
    what, fix = said.splitlines()
    assert what.startswith("redgrease: ") and fix.startswith("fix: "), said
    return what, fix


@pytest.fixture
def port(db: Database) -> int:
    return db.server.port


def test_a_server_is_named_by_options_or_an_address_or_both(cli: Cli, port: int) -> None:
    def size(*options: object, **env: str) -> bytes:
        return cli.run("call", *options, "DBSIZE", **env).stdout

    assert cli.run("call", "--url", f"redis://127.0.0.1:{port}/2", "SET", "in-2", "x").stdout == b"OK\n"
    assert size("--url", f"redis://localhost:{port}/2") == b"1\n"
    assert size(REDGREASE_URL=f"redis://localhost:{port}/2") == b"1\n"
    assert size("-s", "localhost", "-p", port) == size("--host", "127.0.0.1", "--port", port) == b"0\n"
    assert size("-p", port, REDGREASE_URL="redis://localhost:1/2") == b"1\n", "an option replaces a part of the address"
    assert size("-p", port, REDGREASE_URL="") == b"0\n"


def test_a_user_is_named_with_the_password_in_the_environment(cli: Cli, db: Database) -> None:
    db.r.execute_command("ACL", "SETUSER", "ada", "on", ">secret", "+@all", "-flushall", "~*")
    try:
        who = cli.run("call", "-p", db.server.port, "--user", "ada", "ACL", "WHOAMI", REDISCLI_AUTH="secret")
        assert who.stdout == b"ada\n"
        said = cli.fails("call", "-p", db.server.port, "--user", "ada", "FLUSHALL", code=5, REDISCLI_AUTH="secret")
        assert said.startswith("(error) NOPERM") and "fix: let an administrator allow it" in said
        what, fix = what_and_fix(
            cli.fails("call", "-p", db.server.port, "--user", "ada", "PING", code=5, REDISCLI_AUTH="wrong")
        )
        assert "WRONGPASS" in what and "REDISCLI_AUTH" in fix
        assert "REDISCLI_AUTH" in cli.fails("call", "-p", db.server.port, "--user", "ada", "PING", code=2)
    finally:
        db.r.execute_command("ACL", "DELUSER", "ada")


def test_a_server_that_is_not_there(cli: Cli) -> None:
    port = free_port()
    what, fix = what_and_fix(cli.fails("call", "-p", port, "PING", code=3))
    assert what == f"redgrease: no server answers at 127.0.0.1:{port}" and "redgrease serve" in fix
    what, _ = what_and_fix(cli.fails("call", "-s", "no-such-host.invalid", "PING", code=3))
    assert "no-such-host.invalid:6379" in what


@contextmanager
def port_that_answers(reply: bytes) -> Iterator[int]:
    """The port of something that gives one answer, whatever it is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_something_that_is_no_server(cli: Cli) -> None:
    with port_that_answers(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        what, _ = what_and_fix(cli.fails("call", "-p", port, "PING", code=3))
    assert "cannot connect to" in what


def test_a_server_without_the_module(cli: Cli) -> None:
    server = plain_server()
    try:
        said = cli.fails("call", "-p", server.port, "RG.PYSTATS", code=4)
    finally:
        server.stop()
    assert "ERR unknown command" in said and "fix: start one that has it with `redgrease serve`" in said


@pytest.mark.parametrize("url", ["nonsense", "http://localhost"])
def test_an_address_of_another_kind_is_a_usage_error(cli: Cli, url: str) -> None:
    what, fix = what_and_fix(cli.fails("call", "--url", url, "PING", code=2))
    assert "--url (REDGREASE_URL) is not an address" in what and "redis://[USER[:PASSWORD]@]HOST[:PORT]" in fix


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["call", "--prot", "1", "PING"], "--port"),
        (["serve", "--bckground"], "--background"),
    ],
)
def test_what_was_mistyped_is_suggested(cli: Cli, typed: list[str], meant: str) -> None:
    said = cli.fails(*typed, code=2)
    assert f"'{meant}'" in said and "tip: " in said, said


# -- TLS


def test_an_encrypted_connection(cli: Cli, tls_server: int, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    for options in (
        ["-s", "localhost", "-p", tls_server, "--tls", "--cacert", authority],
        ["-s", "localhost", "-p", tls_server, "--cacert", authority],
        ["--url", f"rediss://localhost:{tls_server}", "--cacert", authority],
    ):
        assert cli.run("call", *options, "PING", REDISCLI_AUTH="pw").stdout == b"PONG\n"
    trusted = cli.run("call", "--url", f"rediss://:pw@localhost:{tls_server}", "PING", SSL_CERT_FILE=str(authority))
    assert trusted.stdout == b"PONG\n"


def test_an_encrypted_connection_that_is_refused(cli: Cli, tls_server: int, tmp_path: Path) -> None:
    options = ["-p", tls_server, "--tls", "PING"]
    env = {"REDISCLI_AUTH": "pw", "SSL_CERT_FILE": os.devnull}
    what, fix = what_and_fix(cli.fails("call", "-s", "localhost", *options, code=6, **env))
    assert "no encrypted connection" in what and "--cacert" in fix
    env["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    what, fix = what_and_fix(cli.fails("call", "-s", "127.0.0.1", *options, code=6, **env))
    assert "--server as its certificate does" in fix, (what, fix)
    what, fix = what_and_fix(cli.fails("call", "-p", tls_server, "PING", code=3, **env))
    assert "--tls" in fix


def test_a_port_that_does_not_speak_tls(cli: Cli) -> None:
    with port_that_answers(b"-ERR Protocol error\r\n") as port:
        what, fix = what_and_fix(cli.fails("call", "-p", port, "--tls", "PING", code=6))
    assert "no encrypted connection" in what and "does not speak TLS" in fix


def test_a_file_of_certificates_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    assert f"--cacert {tmp_path}/none" in cli.fails("call", "--cacert", tmp_path / "none", "PING", code=8)


def test_a_mistyped_command_is_suggested(cli: Cli) -> None:
    """A first word that is no command is a path to load."""
    what, fix = what_and_fix(cli.fails("cal", "PING", code=8))
    assert (what, fix) == (
        "redgrease: cal: there is no such file or directory",
        "fix: write redgrease call, or name scripts to load",
    )


# -- help


def test_every_command_has_examples_and_a_line_in_the_list(cli: Cli) -> None:
    listed = re.findall(r"^  (\w+)  +\S", cli.run("--help").stdout.decode(), re.MULTILINE)
    commands = [name for name in listed if name != "help"]
    assert {"run", "trigger", "ls", "show", "logs", "abort", "drop", "unregister", "pause", "resume"} <= set(commands)
    assert {"stats", "top", "bench", "doctor", "serve", "stop", "call", "cache", "completions", "man"} <= set(commands)
    for name in commands:
        shown = cli.run(name, "--help").stdout.decode()
        assert f"  redgrease {name}" in shown.partition("Example")[2], name


# -- completions and man


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions_know_the_subcommands(cli: Cli, shell: str) -> None:
    script = cli.run("completions", shell).stdout.decode()
    assert "redgrease" in script and "--replicas" in script if shell != "fish" else "replicas" in script


def test_bash_accepts_its_completions(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "redgrease.bash"
    script.write_bytes(cli.run("completions", "bash").stdout)
    typed = "COMP_WORDS=(redgrease serv); COMP_CWORD=1; _redgrease redgrease serv redgrease"
    ask = f'source {script}; {typed}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "serve\n", done


def test_man_prints_a_page_or_writes_all(cli: Cli, tmp_path: Path) -> None:
    assert b".TH redgrease 1" in cli.run("man").stdout
    cli.run("man", "--dir", tmp_path / "man1")
    pages = {path.name for path in (tmp_path / "man1").iterdir()}
    assert {"redgrease.1", "redgrease-serve.1", "redgrease-cache-ls.1"} <= pages
    assert "cannot be written" in cli.fails("man", "--dir", "/dev/null/x")
