"""Word count: how often is each word said in all sentences?"""

from __future__ import annotations

import sys
from ast import literal_eval
from collections.abc import Sequence
from typing import Any

import common
import redgrease

SENTENCES = (
    "the cache answers what the database knew",
    "what the function computes stays where the data is",
    "the data stays and the function travels",
)

VANILLA = """
(GearsBuilder('KeysReader', 'sentence:*')
    .map(lambda record: record['value'])
    .flatmap(lambda sentence: sentence.split())
    .countby()
    .run())
"""

REDGREASE = redgrease.KeysReader("sentence:*").values().flatmap(str.split).countby().run()


def main(r: Any, sentences: Sequence[str] = SENTENCES) -> common.Comparison:
    """Count the words of ``sentences`` in both forms."""
    for number, sentence in enumerate(sentences):
        r.set(f"sentence:{number}", sentence)
    vanilla = [literal_eval(text.decode()) for text in r.gears.pyexecute(VANILLA).records]
    objects = r.gears.pyexecute(REDGREASE).records
    common.clean_up(r)
    return common.Comparison("Word count", _most_frequent_first(vanilla), _most_frequent_first(objects))


def _most_frequent_first(counts: list[dict[str, Any]]) -> dict[str, int]:
    return {c["key"]: c["value"] for c in sorted(counts, key=lambda c: (-c["value"], c["key"]))}


if __name__ == "__main__":
    sys.exit(main(common.connect(common.arguments(__doc__).parse_args())).show())
