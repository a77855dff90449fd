"""`tools/check_words.py` finds the words of its table, and prints the replacements."""

from __future__ import annotations

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "check_words.py"))
WORDS = TOOL["replacements"]("# A comment\ncosy -> small\nat home -> local\n")


def test_words_and_phrases_are_found_in_any_case_and_inside_names():
    text = "A Cosy one,\nif run.at_home() or it is\nAT HOME"
    assert TOOL["findings"]("a.py", text, WORDS) == [
        "a.py:1: 'Cosy': write 'small' (tools/words.txt)",
        "a.py:2: 'at_home': write 'local' (tools/words.txt)",
        "a.py:3: 'AT HOME': write 'local' (tools/words.txt)",
    ]


def test_parts_of_other_words_are_not_found():
    assert TOOL["findings"]("a.py", "cosying, uncosy, at homes, bat home", WORDS) == []
