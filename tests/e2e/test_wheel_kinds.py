"""The wheel without compiled parts, and the source archive."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from .servers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Sends a script as a text and a function as an object, and imports what needs the compiled extension.
CLIENT = """
import sys, redgrease
r = redgrease.RedisGears(port=int(sys.argv[1]))
print(r.gears.pyexecute("GB('ShardsIDReader').map(lambda _: 6 * 7).run()"))
r.set("key", "value")
print(redgrease.KeysReader().map(lambda record: record["value"]).run(on=r))
try:
    import redgrease.filecache
except ImportError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel without compiled parts, made of the wheel that `make wheel` has built."""
    directory = tmp_path_factory.mktemp("pure")
    make = [sys.executable, ROOT / "tools/make_pure_wheel.py", ROOT / "dist", directory]
    subprocess.run(make, check=True, timeout=60)
    (wheel,) = directory.glob("*-py3-none-any.whl")
    subprocess.run([sys.executable, ROOT / "tools/make_venv.py", directory / "env"], check=True, timeout=120)
    python = directory / "env/bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True, timeout=300)
    return python


def test_the_wheel_without_compiled_parts_is_a_client_with_plain_replies(fresh_server, python, tmp_path):
    db = fresh_server()
    done = subprocess.run(
        [python, "-c", CLIENT, str(db.server.port)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == ["b'42'", "b'value'", "No module named 'redgrease._native'"]


def test_the_source_archive_has_all_that_a_wheel_is_built_from(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, 'tools'); import wheel_backend; wheel_backend.build_sdist({str(tmp_path)!r})"
    )
    # maturin is beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, cwd=ROOT, env={**os.environ, "PATH": path})
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("redgrease-*/")
    for part in (
        "crates/redgrease-module/src/lib.rs",
        "crates/redgrease-cli/src/main.rs",
        "tools/wheel_backend.py",
        "LICENSE-MIT",
    ):
        assert (tree / part).is_file(), part
    # Members, dependencies and lock file of the workspace fit together.
    cargo = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1"]
    done = subprocess.run(cargo, cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
