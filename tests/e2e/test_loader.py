"""The program `redgrease` that loads scripts: each of its options, exit codes, and bad input."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import ResponseError

from .certificates import make_certificates
from .loading import REDGREASE, Loading, command, fields
from .servers import DidNotStartError, free_port
from .test_requirements import project

HELLO = command("hello", "one")


@pytest.fixture
def loading(db, tmp_path: Path) -> Loading:
    return Loading(tmp_path, db.server.port)


def trigger(db, name: str = "hello", *args: object) -> object:
    """The answer of a registered command; `None` if there is no such command."""
    try:
        (answer,) = db.r.execute_command("RG.TRIGGER", name, *args)
    except ResponseError as error:
        assert "missing" in str(error) or "not" in str(error), error
        return None
    return answer.decode()


def registrations(db) -> int:
    return len(db.r.execute_command("RG.DUMPREGISTRATIONS"))


# -- what is loaded


def test_files_and_directories_are_loaded_and_the_index_records_them(db, loading):
    script = loading.write("hello.py", HELLO)
    other = loading.folder / "other.py"
    other.write_text(command("other", 2))
    before = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    said = loading.run(loading.scripts, "other.py")
    assert (trigger(db), trigger(db, "other")) == ("one", "2")
    assert "2 files loaded into localhost:" in said
    assert f"{script}: loaded (1 registration)" in said
    record = fields(db.r.hgetall(loading.index_key(script)))
    assert set(record) == {"registration_id", "registration_ids", "last_updated"}
    assert record["last_updated"] >= before
    ids = {record["registration_id"], fields(db.r.hgetall(loading.index_key(other)))["registration_id"]}
    assert ids == {row[1].decode() for row in db.r.execute_command("RG.DUMPREGISTRATIONS")}


def test_a_script_that_is_loaded_again_replaces_exactly_what_it_registered(db, loading):
    script = loading.write("two.py", command("a", 1) + command("b", 1))
    db.ok(command("mine", "stays"))
    loading.run(loading.scripts)
    assert len(fields(db.r.hgetall(loading.index_key(script)))["registration_ids"].split()) == 2
    script.write_text(command("b", 2) + command("c", 2))
    loading.run(loading.scripts)
    assert [trigger(db, name) for name in ("a", "b", "c", "mine")] == [None, "2", "2", "stays"]
    script.write_text("GB('ShardsIDReader').run()\n")
    said = loading.run(loading.scripts)
    assert "loaded (1 result)" in said
    assert registrations(db) == 1
    assert db.r.keys("/redgrease/*") == []


def test_a_script_that_fails_keeps_what_it_registered_and_the_others_are_loaded(db, loading):
    broken = loading.write("a.py", HELLO)
    loading.run(loading.scripts)
    broken.write_text(command("new", 1) + "raise RuntimeError('seven')\n")
    loading.write("b.py", "def x(:\n")
    loading.write("c.py", command("c", 3))
    loading.write("d.py", "GB('ShardsIDReader').map(lambda _: 1 / 0).run()\n")
    loading.write("e.py", "\n")
    said = loading.run(loading.scripts, code=1)
    assert (trigger(db), trigger(db, "new"), trigger(db, "c")) == ("one", None, "3")
    assert "a.py: not loaded: RuntimeError: seven\n" in said
    assert '  File "<string>", line 2, in <module>\n' in said
    assert "b.py: not loaded: SyntaxError: " in said
    assert "d.py: not loaded: a function failed: ZeroDivisionError: division by zero\n" in said
    assert "e.py: it is empty" in said
    assert "3 of 5 files were not loaded: " in said


def test_requirements_come_first_and_scripts_have_them(db, loading):
    loading.write(
        "a.py", "import ours\n" + "GB('CommandReader').map(lambda _: ours.VERSION).register(trigger='hello')\n"
    )
    source = project(loading.folder / "source", "ours")
    loading.write("my-requirements.txt", f"# of a.py\nours @ file://{source}\n--no-index\n")
    said = loading.run(loading.scripts)
    assert trigger(db) == "of the project"
    assert said.index("my-requirements.txt: loaded (1 requirement)") < said.index("a.py: loaded")
    assert "'--no-index' is not for servers" in said.replace('"', "'")


def test_requirements_that_cannot_be_installed_do_not_keep_scripts_from_being_loaded(db, loading):
    loading.write("a.py", HELLO)
    loading.write("requirements.txt", "a b c\n")
    assert "requirements.txt: not loaded: " in loading.run(loading.scripts, code=1)
    assert trigger(db) == "one"


def test_requirement(db, loading):
    loading.write("a.py", "import ours\n" + HELLO)
    source = project(loading.folder / "source", "ours")
    loading.run("--requirement", f"ours @ file://{source}", loading.scripts)
    assert trigger(db) == "one"


def test_a_thousand_files(db, loading):
    for number in range(1000):
        loading.write(f"{number}.py", command(f"c{number}", number))
    loading.run(loading.scripts)
    assert [trigger(db, f"c{number}") for number in (0, 500, 999)] == ["0", "500", "999"]
    assert registrations(db) == 1000


# -- options


def test_index_prefix(db, loading):
    script = loading.write("a.py", HELLO)
    for prefix in ("mine", "mine/"):
        loading.run("--index-prefix", prefix, loading.scripts)
        assert db.r.keys("*") == [f"mine{script}".encode()]
    assert registrations(db) == 1


def test_recursive(db, loading):
    loading.write("below/deep/a.py", HELLO)
    assert "no script" in loading.run(loading.scripts)
    loading.run("-r", loading.scripts)
    assert trigger(db) == "one"


def test_script_pattern(db, loading):
    loading.write("a.py", command("a", 1))
    loading.write("b.gear", command("b", 2))
    loading.run("--script-pattern", "*.gear", loading.scripts)
    assert (trigger(db, "a"), trigger(db, "b")) == (None, "2")


def test_requirements_pattern(db, loading):
    loading.write("needs.in", "cloudpickle>=1\n")
    assert "needs.in: loaded (1 requirement)" in loading.run("--requirements-pattern", "*.in", loading.scripts)


@pytest.mark.parametrize(("option", "is_unblocking"), [((), True), (("--unblocking-pattern", "^x"), False)])
def test_unblocking_pattern(loading, option, is_unblocking):
    loading.write("unblocked.py", "GB('ShardsIDReader').run()\n")
    said = loading.run(*option, loading.scripts)
    assert ("loaded (execution " in said) == is_unblocking


def test_ignore(db, loading):
    for name in ("_a", "b", "test_c"):
        loading.write(f"{name}.py", command(name, 1))
    loading.write("__pycache__/d.py", command("d", 1))
    loading.run("-r", loading.scripts)
    assert [trigger(db, name) for name in ("_a", "b", "test_c", "d")] == [None, "1", "1", None]
    db.reset()
    loading.run("-i", "test_*", "--ignore", "b*", loading.scripts)
    assert [trigger(db, name) for name in ("_a", "b", "test_c")] == ["1", None, None]


def test_a_file_that_is_named_is_not_ignored(db, loading):
    loading.run(loading.write("_a.txt", HELLO))
    assert trigger(db) == "one"


def test_server_and_port(db, loading):
    loading.write("a.py", HELLO)
    loading.run("-s", "127.0.0.1", "-p", db.server.port, loading.scripts, at_port=False)
    assert trigger(db) == "one"
    said = loading.run("-p", db.server.port, loading.scripts, "--server", at_port=False, code=3)
    assert f"redis:{db.server.port}" in said


def test_url(db, loading):
    script = loading.write("a.py", "execute('SET', 'there', 1)\n" + HELLO)
    loading.run("--url", f"redis://127.0.0.1:{db.server.port}/3", loading.scripts, at_port=False, PORT="1")
    with db.client(db=3) as third:
        assert set(third.keys()) == {b"there", loading.index_key(script).encode()}
        third.flushdb()


def test_user_and_password(fresh_server, tmp_path):
    db = fresh_server()
    db.r.config_set("requirepass", "s3cret")
    loading = Loading(tmp_path, db.server.port)
    loading.write("a.py", HELLO)
    admin = db.client(password="s3cret")
    said = loading.run(loading.scripts, code=5)
    assert "NOAUTH" in said and "fix: put it into REDISCLI_AUTH" in said
    said = loading.run(loading.scripts, code=5, REDISCLI_AUTH="wrong-one")
    assert "refused the password" in said and "wrong-one" not in said
    for variables in ({"REDISCLI_AUTH": "s3cret"}, {"REDGREASE_PASSWORD": "s3cret"}):
        loading.run(loading.scripts, **variables)
    admin.execute_command("ACL SETUSER ada on >pw ~* +@all -rg.pyexecute")
    said = loading.run("--user", "ada", loading.scripts, code=5, REDISCLI_AUTH="pw")
    assert 'user "ada" may not do this' in said and "fix: let an administrator allow it: ACL SETUSER ada" in said
    needed = "+rg.pyexecute +rg.pydumpsessions +rg.unregister +ping +hset +hget +del ~/redgrease/scripts/*"
    assert needed in said
    admin.execute_command(f"ACL SETUSER bob on >pw {needed}")
    loading.run("--user", "bob", "--index-prefix", "/redgrease/scripts/bob", *_one(loading), REDISCLI_AUTH="pw")


def _one(loading: Loading) -> list[Path]:
    return [loading.write("b.py", command("b", 1))]


def test_help(loading):
    done = subprocess.run(loading.words("--help"), capture_output=True, text=True, timeout=60, check=True)
    for option in ("--watch", "--index-prefix", "--recursive", "--log-config", "<PATH>", "serve"):
        assert option in done.stdout


def test_log_level_and_format(loading):
    loading.write("a.py", HELLO)
    assert loading.run("--log-level", "error", loading.scripts) == ""
    lines = [json.loads(line) for line in loading.run("--log-format", "json", loading.scripts).splitlines()]
    assert [line["level"] for line in lines] == ["info", "info"]
    for line in loading.run("--log-format", "tabs", loading.scripts).splitlines():
        assert line.split("\t")[1] == "INFO" and line.endswith("\tEOL")


def test_log_config_is_applied_by_python(db, loading):
    loading.write("a.py", HELLO)
    handler = {"class": "logging.FileHandler", "filename": str(loading.folder / "file.log"), "formatter": "plain"}
    config = {
        "version": 1,
        "formatters": {"plain": {"format": "%(name)s|%(levelname)s|%(message)s"}},
        "handlers": {"file": handler},
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    (loading.folder / "log.json").write_text(json.dumps(config))
    loading.run("-l", "log.json", loading.scripts)
    assert trigger(db) == "one"
    lines = (loading.folder / "file.log").read_text().splitlines()
    assert lines[0] == f"redgrease.loader|INFO|{loading.scripts}/a.py: loaded (1 registration)"
    said = loading.run("--log-config", "no.json", loading.scripts, code=2)
    assert "no.json" in said


def test_timeout(loading):
    loading.write("a.py", "import time\ntime.sleep(2)\n")
    loading.write("b.py", HELLO)
    said = loading.run("--timeout", "0.3", loading.scripts, code=1)
    assert "a.py: not loaded: " in said and "did not answer in time\n    fix: wait longer with --timeout" in said
    assert "b.py: loaded" in said


# -- where options come from


def test_command_line_then_environment_then_files(db, loading):
    script = loading.write("a.py", HELLO)
    (loading.folder / "redgrease.conf").write_text("index-prefix = directory\nport = 1\nscript-pattern: '*.py'\n")
    (loading.folder / "named.conf").write_text("[loader]\nindex-prefix = named # a comment\n")

    def prefix(*args: object, **variables: str) -> str:
        db.reset()
        loading.run(*args, loading.scripts, **variables)
        (key,) = db.r.keys()
        return key.decode().removesuffix(str(script))

    named = ("-c", "named.conf")
    assert prefix() == "directory"
    assert prefix(*named) == "named"
    assert prefix(REDGREASE_CONFIG_FILE="named.conf") == "named"
    assert prefix(*named, REDGREASE_INDEX_PREFIX="variable") == "variable"
    assert prefix("--index-prefix", "option", *named, REDGREASE_INDEX_PREFIX="variable") == "option"


#: Runs a command with files of a directory as /etc/redgrease, in a mount namespace of its own. Arguments: the directory
#: (the files are in `redgrease`, and `layer` is empty), and the command.
WITH_CONFIGURATION = """
mount -t tmpfs tmpfs "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work"
cp -r "$1/redgrease" "$1/layer/upper"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/layer/upper,workdir=$1/layer/work" /etc
shift
exec "$@"
"""


def run_with_configuration(folder: Path, *words: object, code: int = 0, **options: object) -> str:
    """Run a command that finds the files of a folder in /etc; what it printed to standard error."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    isolated = ["unshare", "--mount", *user, "bash", "-euc", WITH_CONFIGURATION, "bash", folder]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount namespaces with an overlay")
    done = subprocess.run([*isolated, *words], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    assert done.returncode == code, done.stderr
    return done.stderr


def test_configuration_of_the_system(db, loading, tmp_path):
    script = loading.write("below/a.py", HELLO)
    files = tmp_path / "etc/redgrease/conf.d"
    files.mkdir(parents=True)
    (tmp_path / "etc/layer").mkdir()
    (files / "10-all.conf").write_text(f"port = {loading.port}\nindex-prefix = ten\nrecursive\n")
    (files / "20-some.conf").write_text("index-prefix = twenty\n")
    (files / "30-none.txt").write_text("index-prefix = thirty\n")

    def run(code: int = 0) -> str:
        words = (REDGREASE, loading.scripts)
        return run_with_configuration(tmp_path / "etc", *words, code=code, env=loading.environment, cwd=loading.folder)

    run()
    assert db.r.keys() == [f"twenty{script}".encode()]
    db.reset()
    (loading.folder / "redgrease.conf").write_text("index-prefix = here\n")
    run()
    assert db.r.keys() == [f"here{script}".encode()]
    (files / "20-some.conf").write_text("\nprot = 1\n")
    said = run(code=2)
    assert '/etc/redgrease/conf.d/20-some.conf, line 2: there is no option "prot"' in said and "fix: write port" in said


def test_old_names_of_variables_are_a_fallback(db, loading):
    loading.write("a.py", HELLO)
    said = loading.run(loading.scripts, at_port=False, PORT=str(db.server.port))
    assert "the environment variable PORT is used as --port: name it REDGREASE_PORT" in said
    said = loading.run(loading.scripts, at_port=False, PORT="1", REDGREASE_PORT=str(db.server.port))
    assert "PORT is used" not in said


# -- bad input


def test_errors_are_one_line_what_and_one_line_the_fix(loading):
    broken = loading.folder / "x.conf"
    broken.write_text("port = 1\nserver = 'a\n")
    for args, code, what, fix in [
        (("--wach", "scripts"), 2, "unexpected argument '--wach'", "'--watch'"),
        ((), 2, "redgrease [OPTIONS] <PATH>...", "--help"),
        (("--recursive",), 2, "required arguments were not provided", "<PATH>"),
        (("no/such.py",), 8, "no/such.py: there is no such file or directory", "name scripts"),
        (("sevre",), 8, "sevre: there is no such file", "redgrease serve"),
        (("--watch=0", "scripts"), 2, '--watch: "0" is not a delay', "above 0"),
        (("--port=x", "scripts"), 2, '--port: "x" is not a port', "1 to 65535"),
        (("-c", "no.conf", "scripts"), 2, "no.conf: No such file", "--config"),
        (("-c", "x.conf", "scripts"), 2, "x.conf, line 2: a quote is not closed", "option = value"),
        (("--unblocking-pattern", "(", "scripts"), 2, "--unblocking-pattern: ", "regular expression"),
        (("--user", "ada", "scripts"), 2, "--user ada needs a password", "REDISCLI_AUTH"),
        (("-p", str(free_port()), "scripts"), 3, "no server answers at localhost:", "redgrease serve"),
        (("-s", "no.such.invalid", "scripts"), 3, "cannot connect to no.such.invalid:6379", "correct --server"),
    ]:
        said = loading.run(*args, at_port=False, code=code)
        assert what in said and fix in said, (args, said)
        assert code == 2 or len(said.splitlines()) == 2, said


def test_nothing_is_loaded_if_a_path_does_not_exist(db, loading):
    loading.write("a.py", HELLO)
    loading.run(loading.scripts, "no.py", code=8)
    assert registrations(db) == 0


def test_a_server_without_the_module(fresh_server, tmp_path):
    db = fresh_server(with_module=False)
    loading = Loading(tmp_path, db.server.port)
    loading.write("a.py", HELLO)
    said = loading.run(loading.scripts, code=4)
    assert "does not have the module redgrease" in said and "fix: start one that has it" in said


def test_a_port_that_does_not_speak_tls(loading):
    loading.write("a.py", HELLO)
    said = loading.run("--tls", loading.scripts, code=6)
    assert "leave out --tls" in said


def test_tls(fresh_server, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH")
    make_certificates(tmp_path)
    files = {"cert": "s.pem", "key": "s.key", "ca-cert": "ca.pem"}
    conf = {f"tls-{name}-file": str(tmp_path / file) for name, file in files.items()}
    port = free_port()
    try:
        db = fresh_server(conf={"tls-port": port, "tls-auth-clients": "no", **conf})
    except DidNotStartError as error:
        pytest.skip(f"this server cannot do TLS: {error}")
    loading = Loading(tmp_path, port)
    loading.write("a.py", HELLO)
    loading.run("--cacert", tmp_path / "ca.pem", loading.scripts)
    assert trigger(db) == "one"
    loading.run("--url", f"rediss://localhost:{port}", loading.scripts, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    said = loading.run("--tls", loading.scripts, code=6, SSL_CERT_FILE=os.devnull)
    assert "no encrypted connection to localhost" in said and "--cacert FILE" in said
    said = loading.run("-s", "127.0.0.1", "--cacert", tmp_path / "ca.pem", loading.scripts, code=6)
    assert "as its certificate does" in said
    said = loading.run(loading.scripts, code=3)
    assert "TLS (--tls)" in said


def test_a_file_that_cannot_be_read(db, loading):
    if os.geteuid() == 0:
        pytest.skip("root can read any file")
    loading.write("a.py", HELLO).chmod(0)
    assert "a.py cannot be read" in loading.run(loading.scripts, code=1)


def test_a_pseudo_terminal_gets_the_same_lines(db, loading):
    loading.write("a.py", HELLO)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        loading.words(loading.scripts), stdin=theirs, stdout=theirs, stderr=theirs, env=loading.environment
    )
    os.close(theirs)
    said = b"".join(iter(_reader(ours), b"")).decode()
    os.close(ours)
    assert process.wait(60) == 0
    assert "a.py: loaded (1 registration)\r\n" in said and "1 file loaded into" in said


def _reader(descriptor: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return os.read(descriptor, 4096)
        except OSError:
            return b""  # its other end is closed

    return read
