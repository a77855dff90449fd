"""The notebook of the examples gives the outputs that it shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .servers import ROOT

REQUIREMENTS = ROOT / "examples" / "requirements-notebook.txt"


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """The interpreter of an environment in which notebooks can be run."""
    directory = tmp_path_factory.mktemp("notebook")
    python = directory / "bin" / "python"
    for command in (
        [sys.executable, ROOT / "tools" / "make_venv.py", directory],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        if done.returncode != 0:
            pytest.skip(f"what notebooks need cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return python


@pytest.mark.slow
def test_the_tour_gives_the_outputs_that_it_shows(db, jupyter):
    command = [jupyter, ROOT / "tools" / "run_notebook.py", "--check", "--port", str(db.server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert (db.r.dbsize(), db.registrations()) == (0, [])
