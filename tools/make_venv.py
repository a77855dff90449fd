"""Make a virtual environment with pip in it, also where Debian's python3-venv is not installed.

    python3 tools/make_venv.py .venv

Methods are tried in turn: the venv module; virtualenv; uv; the venv module without pip, with one pinned pip wheel
that is downloaded and verified. If none works, the last message says what to install.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

OLDEST = (3, 11)
PIP = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def run(*command):
    """Run a command quietly and return whether it succeeded."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def has_pip(home):
    """Return whether the environment at `home` works and has pip."""
    return run(str(home / "bin" / "python"), "-c", "import pip, ssl")


def by_venv(home):
    return run(sys.executable, "-m", "venv", "--clear", str(home))


def by_virtualenv(home):
    return importlib.util.find_spec("virtualenv") is not None and run(
        sys.executable, "-m", "virtualenv", "--clear", str(home)
    )


def by_uv(home):
    return shutil.which("uv") is not None and run(
        "uv", "venv", "--clear", "--seed", "--python", sys.executable, str(home)
    )


def by_pip_wheel(home):
    """A bare environment, and pip installed by its own wheel."""
    if not run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)):
        return False
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / PIP
        try:
            wheel.write_bytes(fetch_pip())
        except (OSError, ValueError) as why:
            print(f"pip could not be fetched: {why}", file=sys.stderr)
            return False
        return run(str(home / "bin" / "python"), f"{wheel}/pip", "install", "--no-index", str(wheel))


def fetch_pip():
    """Return the pinned pip wheel from the package index that pip itself would use."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    with urllib.request.urlopen(index, timeout=60) as page:
        links = re.findall(r'href="([^"]+)"', page.read().decode())
    link = next((link for link in links if f"/{PIP}" in link), None)
    if link is None:
        raise ValueError(f"{PIP} is not in the package index")
    with urllib.request.urlopen(urllib.parse.urljoin(index, link), timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise ValueError(f"{PIP} is not the file whose checksum is known")
    return wheel


def main(home):
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST:
        sys.exit(
            f"Python {'.'.join(map(str, OLDEST))} or newer is needed to build, {sys.executable} is {version}: "
            "name another one, for example: make PYTHON=python3.12 build"
        )
    for way in (by_venv, by_virtualenv, by_uv, by_pip_wheel):
        if way(home) and has_pip(home):
            print(f"{home}: Python {version}, made {way.__name__.replace('_', ' ')}")
            return
    shutil.rmtree(home, ignore_errors=True)
    sys.exit(
        f"no virtual environment could be made with {sys.executable}.\n"
        "  Debian, as root:  apt-get install python3-venv ca-certificates\n"
        "  elsewhere:        install virtualenv or uv, then make again"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
