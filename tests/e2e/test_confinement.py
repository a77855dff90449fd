"""What the kernel keeps workers from doing, and the limit of their memory: each test tries what is forbidden."""

from __future__ import annotations

import os
import pwd
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest
import redgrease

from .servers import DidNotStartError
from .test_isolation import assert_healthy

#: Not below a directory for temporary files, where workers may write.
OUTSIDE = Path(__file__).parents[2] / "target"

#: Calls of the C library that a worker may not make, each with harmless arguments: `(call, arguments)`.
FORBIDDEN_CALLS = {
    "ptrace": "(16, {server}, 0, 0)",
    "process_vm_readv": "({server}, 0, 0, 0, 0, 0)",
    "mount": "(b'none', b'/tmp', b'tmpfs', 0, 0)",
    "umount2": "(b'/no/such/place', 0)",
    "chroot": "(b'/',)",
    "unshare": "(0x10000000,)",
    "setns": "(-1, 0)",
    "sethostname": "(b'', 0)",
    "adjtimex": "(0,)",
    "swapoff": "(b'/no/such/file',)",
    "delete_module": "(b'no_such_module', 0)",
    "reboot": "(0,)",
}

#: Fails with EPERM where the kernel filters the call; the harmless arguments give other errors where it does not.
CALL = """
import ctypes, errno
def call(_):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.{call}{arguments}
    return result, errno.errorcode.get(ctypes.get_errno())
GB('ShardsIDReader').map(call).run()
"""


def outcome(db, expression: str) -> str:
    """The value of an expression in a function, or the name of its exception."""
    script = f"""
import os, subprocess, sys
def f(_):
    try:
        return str({expression})
    except Exception as error:
        return type(error).__name__
GB('ShardsIDReader').map(f).run()
"""
    (result,) = db.results(script)
    return result


@pytest.fixture
def outside():
    """A directory in which a confined worker may not write."""
    OUTSIDE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUTSIDE) as directory:
        yield Path(directory)


@pytest.mark.parametrize("call", FORBIDDEN_CALLS)
def test_a_worker_may_not_make_calls_that_change_the_system_or_look_into_other_processes(db, call):
    arguments = FORBIDDEN_CALLS[call].format(server=db.server.pid)
    assert db.results(CALL.format(call=call, arguments=arguments)) == ["(-1, 'EPERM')"]


def test_files_are_changed_only_in_directories_for_temporary_files(db, outside, tmp_path):
    kept = outside / "kept"
    kept.write_text("as it was")
    for expression in (
        f"open({str(outside / 'new')!r}, 'w')",
        f"open({str(kept)!r}, 'w')",
        f"os.truncate({str(kept)!r}, 0)",
        f"os.remove({str(kept)!r})",
        f"os.mkdir({str(outside / 'directory')!r})",
        f"os.symlink('/tmp', {str(outside / 'link')!r})",
    ):
        assert outcome(db, expression) == "PermissionError", expression
    assert kept.read_text() == "as it was" and os.listdir(outside) == ["kept"]
    assert outcome(db, f"open({str(kept)!r}).read()") == "as it was", "reading is allowed"
    assert outcome(db, f"open({str(tmp_path / 'new')!r}, 'w').write('abc')") == "3"
    assert outcome(db, "open('/dev/null', 'w').write('abc')") == "3"


def test_programs_that_a_worker_starts_are_confined_too(db, outside):
    program = f"open({str(outside / 'new')!r}, 'w')"
    assert (
        outcome(db, f"subprocess.run([sys.executable, '-c', {program!r}], stderr=subprocess.DEVNULL).returncode") == "1"
    )
    assert os.listdir(outside) == []


def test_a_worker_cannot_signal_the_server_or_other_workers(db):
    assert outcome(db, f"os.kill({db.server.pid}, 0)") == "PermissionError"
    assert outcome(db, "os.kill(os.getppid(), 9)") == "PermissionError", "its supervisor"
    assert outcome(db, "subprocess.Popen(['sleep', '60']).kill()") == "None", "its own processes"


def test_isolation_is_reported(db):
    db.results("GB('ShardsIDReader').run()")
    workers = [row for name, row in db.r.info("rg_workers").items() if name.startswith("rg_worker_")]
    assert "no-new-privs landlock seccomp" in [row["isolation"] for row in workers]


def test_a_directory_can_be_made_writable(fresh_server, outside):
    db = fresh_server(load_args={"WorkerWritable": f"/usr/share:{outside}"})
    assert outcome(db, f"open({str(outside / 'new')!r}, 'w').write('abc')") == "3"
    assert outcome(db, f"open({str(outside.parent / 'new')!r}, 'w')") == "PermissionError"


def test_isolation_can_be_turned_off(fresh_server, outside):
    db = fresh_server(load_args={"WorkerIsolation": 0})
    assert outcome(db, f"open({str(outside / 'new')!r}, 'w').write('abc')") == "3"
    assert outcome(db, f"os.kill({db.server.pid}, 0)") == "None"
    assert outcome(db, "open('/proc/self/status').read().count('NoNewPrivs:\\t0')") == "1"


@pytest.mark.parametrize("paths", ["relative", "/no/such/directory", "/usr:/no/such/directory"])
def test_a_writable_path_that_is_no_directory_is_refused(fresh_server, paths):
    with pytest.raises(DidNotStartError, match="absolute paths of existing directories"):
        fresh_server(load_args={"WorkerWritable": paths})


@pytest.fixture
def public_python():
    """An environment that other users can run, with the package and what it needs in it."""
    system = "/usr/bin/python3"
    if not os.access(system, os.X_OK):
        pytest.skip(f"{system} does not exist")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        environment = Path(directory, "environment")
        subprocess.run([system, "-m", "venv", "--without-pip", environment], check=True)
        (packages,) = environment.glob("lib/python3*/site-packages")
        paths = [str(Path(redgrease.__file__).parents[1]), sysconfig.get_path("purelib")]
        (packages / "paths.pth").write_text("\n".join(paths))
        yield environment / "bin/python3"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
def test_workers_run_as_another_user(fresh_server, public_python):
    nobody = pwd.getpwnam("nobody")
    db = fresh_server(load_args={"WorkerUser": "nobody"}, python=public_python)
    assert outcome(db, "(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())") == (
        f"({nobody.pw_uid}, {nobody.pw_uid}, {nobody.pw_gid}, [])"
    )
    assert outcome(db, "os.environ['HOME']") == nobody.pw_dir
    assert_healthy(db)


def test_an_unknown_user_for_workers_is_refused(fresh_server):
    with pytest.raises(DidNotStartError, match="there is no user 'no-such-user' on this machine"):
        fresh_server(load_args={"WorkerUser": "no-such-user"})


ALLOCATE = """
def allocate(_):
    blocks = []
    while True:
        blocks.append(bytearray(16 << 20))
GB('ShardsIDReader').map(allocate).run()
"""

#: Each process stays below the limit, all of them together do not.
ALLOCATE_IN_CHILDREN = """
import os, time
def allocate(_):
    for _ in range(8):
        if os.fork() == 0:
            block = os.urandom(1 << 20) * 100
            time.sleep(60)
            os._exit(0)
    time.sleep(60)
GB('ShardsIDReader').map(allocate).run()
"""


def test_a_function_that_allocates_without_end_fails_at_the_limit(fresh_server):
    db = fresh_server(load_args={"WorkerBytesMax": 300 << 20})
    with db.pinging() as pings:
        assert "MemoryError" in db.failure(ALLOCATE)
    pings.assert_never_stalled(0.5)
    assert_healthy(db)


def test_the_memory_of_what_a_worker_started_counts_too(fresh_server):
    db = fresh_server(load_args={"WorkerBytesMax": 300 << 20})
    began = time.monotonic()
    error = db.failure(ALLOCATE_IN_CHILDREN)
    assert "with what it started it uses" in error and "more than WorkerBytesMax (314572800)" in error
    assert time.monotonic() - began < 30
    assert_healthy(db)


def test_the_limit_of_memory_can_be_changed(fresh_server):
    db = fresh_server()
    assert int(db.r.config_get("rg.WorkerBytesMax")["rg.WorkerBytesMax"]) > 1 << 28, "half of the machine's memory"
    assert db.r.execute_command("RG.CONFIGSET", "WorkerBytesMax", 200 << 20)[0] == b"OK"
    with db.pinging() as pings:
        error = db.failure(ALLOCATE)
    pings.assert_never_stalled(0.5)
    # A worker that was started before has no limit of its own: the server notices.
    assert "MemoryError" in error or "more than WorkerBytesMax (209715200)" in error
    assert_healthy(db)


def test_a_worker_is_what_the_kernel_ends_first_when_memory_is_short(db):
    assert outcome(db, "open('/proc/self/oom_score_adj').read().strip()") == "1000"
