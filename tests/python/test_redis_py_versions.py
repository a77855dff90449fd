"""The client works with all supported versions of redis-py: the tests of the client run again with each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "try_redis_py.py"
VERSIONS = ast.literal_eval(TOOL.read_text().partition("\nVERSIONS = ")[2].partition("\n")[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_works_with_redis_py(version):
    done = subprocess.run([sys.executable, TOOL, version], capture_output=True, text=True, timeout=1700)
    if "No matching distribution" in done.stderr or "CalledProcessError" in done.stderr:
        pytest.skip(f"redis-py {version} cannot be installed here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stdout[-10_000:]
