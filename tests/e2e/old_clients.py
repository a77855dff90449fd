"""Virtual environments with published packages of old clients, made once and kept in a cache directory.

``REDGREASE_TEST_CACHE`` is the directory; by default it is ``redgrease-tests`` in the user's cache directory.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .servers import ROOT, UnavailableError

CACHE = Path(
    os.environ.get("REDGREASE_TEST_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redgrease-tests"
)

#: What a client of each kind has installed.
REDGREASE_0_3 = ("redgrease[client]==0.3.30", "redis==3.5.3")
GEARSCLIENT_1_0 = ("gearsclient==1.0.2",)
GEARS_CLI_1_2 = ("gears-cli==1.2.0",)
#: What a worker needs in its interpreter in addition to our package, which is taken from the checkout.
WORKER = ("cloudpickle", "redis", "packaging")


@functools.cache
def python(version: str) -> Path:
    """An interpreter such as ``"3.9"``. Raises `UnavailableError` if there is none."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted((root / "versions").glob(f"{version}.*/bin/python"), key=lambda path: _numbers(path.parts[-3]))
    on_path = shutil.which(f"python{version}")
    for candidate in [*reversed(found), *([Path(on_path)] if on_path else [])]:
        if (
            subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    raise UnavailableError(f"no Python {version} in {root} or on PATH")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


@functools.cache
def environment(version: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages, from wheels. Raises `UnavailableError` with the reason."""
    interpreter = python(version)
    key = hashlib.sha256("\n".join([str(interpreter), *packages]).encode()).hexdigest()[:12]
    directory = CACHE / f"python-{version}-{key}"
    program = directory / "bin" / "python"
    if (directory / "complete").exists() and program.exists():
        return program
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _checked([interpreter, "-m", "venv", directory], "an environment")
    _checked([program, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *packages], " ".join(packages))
    (directory / "complete").touch()
    return program


def worker(version: str) -> Path:
    """An interpreter for workers, with our package of this checkout."""
    program = environment(version, WORKER)
    (site,) = program.parents[1].glob("lib/python*/site-packages")
    (site / "redgrease-checkout.pth").write_text(f"{ROOT / 'python'}\n")
    return program


def _checked(command: Sequence[object], what: str) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UnavailableError(f"{what} cannot be installed: {lines[-1] if lines else done.returncode}")
