"""The examples of the README do what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\s*```console\n(.*?)```", README, re.DOTALL)


def test_the_readme_has_examples_with_their_output():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize(("program", "output"), EXAMPLES)
def test_an_example_prints_what_the_readme_shows(db, program, output):
    here = program.replace("redgrease.RedisGears()", f"redgrease.RedisGears(port={db.server.port})")
    assert here != program
    done = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (output, "")
