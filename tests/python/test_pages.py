"""The runner of the documentation finds blocks, and what is wrong with them."""

from __future__ import annotations

import pytest
from pages import blocks_of, here, run

PAGE = """# Title

```python
x = 1
print(x)
```

```console
1
```

Text.

```sh title="Not run by the tests: it takes a day"
sleep 86400
```

```console
not the output of the block above
```

```text
anything
```

```python
print(x + 1, id(x))
```

```console
2 ...
```
"""


def test_blocks_have_language_line_output_and_reason():
    first, second, third = blocks_of(PAGE)
    assert (first.language, first.content, first.line, first.output) == ("python", "x = 1\nprint(x)\n", 4, "1\n")
    assert second.not_run == "it takes a day"
    assert (third.output, third.not_run) == ("2 ...\n", None)


def test_output_belongs_to_the_block_right_above_it():
    page = "```python\nprint(1)\n```\n\nwords\n\n```console\n2\n```\n"
    assert blocks_of(page)[0].output is None


@pytest.mark.parametrize(
    ("page", "fragment"),
    [
        ("```python hidden\n```\n", "Not run by the tests"),
        ('```python title="Not run by the tests: no"\n```\n', "Not run by the tests"),
        ("- item\n\n  ```python\n  1\n  ```\n", "indented"),
        ("```python\n", "not closed"),
    ],
)
def test_blocks_that_would_be_overlooked_are_errors(page, fragment):
    with pytest.raises(ValueError, match=fragment):
        blocks_of(page)


def test_a_page_is_as_shown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert run(page, 1, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("```console\n1\n", "```console\n3\n", "page.md:4"),
        ("x + 1,", "x + 2,", "page.md:27"),
        ("x + 1,", "y,", "NameError"),
        ("x = 1", "import os; os._exit(3)", "exit status 3"),
        ("x = 1", "print('more'); x = 1", "more"),
        ("x = 1", "import sys; x = 1; print('to stderr', file=sys.stderr)", "to stderr"),
    ],
)
def test_what_is_not_as_shown_is_named(tmp_path, old, new, fragment):
    page = tmp_path / "page.md"
    assert old in PAGE
    page.write_text(PAGE.replace(old, new))
    [wrong] = run(page, 1, tmp_path)
    assert fragment in wrong


def test_the_server_of_a_page_is_replaced():
    replace = here(7001)
    assert replace("r = redgrease.RedisGears()") == "r = redgrease.RedisGears(port=7001)"
    assert replace('url="redis://localhost:6379/0"') == 'url="redis://localhost:7001/0"'
    assert replace("redgrease --server localhost a/") == "redgrease --server localhost --port 7001 a/"
