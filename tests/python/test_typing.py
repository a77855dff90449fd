"""Type checkers find the mistakes in `tests/typing/programs.py`, each at its line, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "typing" / "programs.py"
LINES = PROGRAMS.read_text(encoding="utf-8").splitlines()


def planted() -> list[int]:
    return [number for number, line in enumerate(LINES, 1) if "# wrong:" in line]


def compared(found: dict[int, str]) -> str:
    """A text for each difference between what was planted and what was found."""
    missed = [f"{number}: nothing found: {LINES[number - 1]}" for number in planted() if number not in found]
    extra = [f"{number}: {LINES[number - 1]}: {found[number]}" for number in found if number not in planted()]
    return "\n".join(missed + extra)


def run(*command: str) -> str:
    environment = {**os.environ, "NO_COLOR": "1", "MYPY_FORCE_COLOR": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_mypy_finds_the_planted_mistakes(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    output = run(
        sys.executable,
        *("-m", "mypy", "--config-file=", "--check-untyped-defs", "--no-error-summary", "--hide-error-context"),
        *("--cache-dir", os.fspath(tmp_path), os.fspath(PROGRAMS)),
    )
    found = re.findall(r"^(.*programs\.py):(\d+): error: (.*)$", output, re.MULTILINE)
    assert compared({int(number): text for _, number, text in found}) == "", output
    assert "error" not in re.sub(r"(?m)^.*programs\.py:.*$", "", output)


def test_pyright_finds_the_planted_mistakes():
    pyright = shutil.which("basedpyright", path=os.path.dirname(sys.executable)) or shutil.which("pyright")
    if pyright is None:
        pytest.skip("neither basedpyright nor pyright is installed")
    output = json.loads(run(pyright, "--outputjson", "--pythonpath", sys.executable, os.fspath(PROGRAMS)))
    found = {
        each["range"]["start"]["line"] + 1: each["message"]
        for each in output["generalDiagnostics"]
        if each["severity"] == "error"
    }
    assert compared(found) == ""
