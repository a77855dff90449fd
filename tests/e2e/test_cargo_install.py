"""The command alone, as `cargo install` makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .servers import ROOT, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command."""
    root = tmp_path_factory.mktemp("cargo-install")
    cargo = ["cargo", "install", "--quiet", "--locked", "--path", ROOT / "crates/redgrease-cli", "--root", root]
    # The dependencies that `make build` compiled are used again.
    target = {"CARGO_TARGET_DIR": str(ROOT / "target")}
    subprocess.run(cargo, check=True, timeout=1500, env={**os.environ, **target})
    return root / "bin" / "redgrease"


@pytest.fixture
def run(command: Path, tmp_path: Path) -> Run:
    def run(*words: str, **env: str) -> subprocess.CompletedProcess:
        clean = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "REDGREASE_STATE_DIR": str(tmp_path / "state"), **env}
        return subprocess.run([command, *words], capture_output=True, text=True, timeout=60, env=clean, cwd=tmp_path)

    return run


def test_it_finds_module_and_package_in_the_active_environment(run: Run) -> None:
    port = str(free_port())
    active = {"VIRTUAL_ENV": str(Path(sys.executable).parents[1])}
    started = run("serve", "--background", "--port", port, **active)
    assert started.returncode == 0, started
    try:
        called = run("call", "--port", port, "RG.PYEXECUTE", "GB('ShardsIDReader').map(lambda _: 6 * 7).run()")
        assert called.stdout.strip() == "42", called
    finally:
        run("stop", "--port", port)


def test_without_a_python_that_has_the_package_it_names_what_is_missing(run: Run) -> None:
    started = run("serve", "--port", str(free_port()), "--python", "/usr/bin/python3", "--server-binary", "/bin/true")
    assert started.returncode == 1
    assert "the server module was not found" in started.stderr and "--module PATH" in started.stderr, started
