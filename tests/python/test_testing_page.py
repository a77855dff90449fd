"""The examples of docs/testing.md that need no server; `tests/e2e/test_pytest_plugin.py` has the others."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text().partition("## With a server")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_that_need_no_server():
    assert len(EXAMPLES) >= 5
    exec(compile("\n".join(EXAMPLES), "docs/testing.md", "exec"), {"__name__": "page"})
