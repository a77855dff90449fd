"""Extension of griffe, which reads docstrings for the API reference: examples become blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>>.*(?:\n(?P=indent)\S.*|\n(?P=indent)[ ]+\S.*)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """A docstring whose examples, from ``>>>`` to the next blank line, are fenced."""

    def fence(found: re.Match[str]) -> str:
        example = re.sub(r"[ ]*# doctest:.*", "", found[0])
        return f"{found['indent']}```pycon\n{example}\n{found['indent']}```"

    return _EXAMPLE.sub(fence, docstring)


class FencedExamples(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for each object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
