"""Run the tests of the client with several versions of redis-py.

    .venv/bin/python tools/try_redis_py.py                  # all of VERSIONS
    .venv/bin/python tools/try_redis_py.py 6.4.* -- -k sync # one, with arguments of pytest

Each version gets an environment in target/redis-py, in front of the packages of the running interpreter, for workers,
too. One kind of server is used: REDGREASE_TEST_SERVERS, or valkey-9.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Supported versions.
VERSIONS = ("5.0.*", "5.2.*", "6.4.*", "newest")
#: Tests without a server, and those that use the client.
TESTS = (
    "tests/python",
    "tests/e2e/test_clients.py",
    "tests/e2e/test_cluster_clients.py",
    "tests/e2e/test_object_form.py",
)


def environment(version: str) -> Path:
    """Make an environment with a version of redis-py; its interpreter."""
    directory = ROOT / "target" / "redis-py" / version.replace("*", "x")
    python = directory / "bin" / "python"
    wanted = "redis" if version == "newest" else f"redis=={version}"
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted], check=True)
    [site] = directory.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    # Tests of the file cache run the command beside the interpreter.
    (directory / "bin" / "redgrease").symlink_to(Path(sysconfig.get_path("scripts")) / "redgrease")
    return python


def run_tests(version: str, options: list[str]) -> int:
    """Run the tests with a version of redis-py; return the exit status."""
    python = environment(version)
    shown = subprocess.run([python, "-c", "import redis; print(redis.__version__)"], check=True, capture_output=True)
    print(f"redis-py {shown.stdout.decode().strip()}", flush=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env.setdefault("REDGREASE_TEST_SERVERS", "valkey-9")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *TESTS, *options]
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def main() -> int:
    """Run the tests with each version; return 1 if any failed."""
    versions, _, options = " ".join(sys.argv[1:]).partition("--")
    failed = [version for version in versions.split() or VERSIONS if run_tests(version, options.split())]
    if failed:
        print(f"failed with redis-py {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
