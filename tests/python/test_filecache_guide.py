"""The examples of the guide to the file cache have the documented output, without a server; `tests/e2e` has one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from .filecache_tools import DEADLINE

GUIDE = (Path(__file__).parents[2] / "docs" / "filecache.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\s*```console\n(.*?)```", GUIDE, re.DOTALL)
URL = '"redis://localhost:6379/0"'


def test_the_examples_of_the_guide(tmp_path):
    assert len(EXAMPLES) == GUIDE.count("```python") >= 7
    programs, outputs = zip(*EXAMPLES)
    program = "".join(programs).replace(URL, "None").replace('"/tmp/', f'"{tmp_path}/')
    assert program.count("None") >= 3
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.stderr) == ("".join(outputs), "")
