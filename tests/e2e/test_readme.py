"""The examples of the README have the documented output."""

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


def test_the_example_of_both_caches_makes_a_film_once(db, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    from image_server import ImageServer, picture

    [program] = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "FileCache" in block]
    port = db.server.port
    for said, here in (
        ("redgrease.RedisGears()", f"redgrease.RedisGears(port={port})"),
        ("redis://localhost:6379/0", f"redis://127.0.0.1:{port}/0"),
        ('FileCache("films"', f'FileCache("{tmp_path}/films"'),
    ):
        assert said in program
        program = program.replace(said, here)
    with ImageServer() as source:
        program += f"\nprint(film('{source.url(1)}'), film('{source.url(1)}'))\n"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        content = b"film of " + picture(1)
        assert (done.stdout, done.stderr) == (f"{('created', content)} {('hit', content)}\n", "")
        assert sum(source.downloads.values()) == 1
