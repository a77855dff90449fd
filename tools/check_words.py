"""Find the words of `tools/words.txt` in all tracked texts, and print what to write instead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Files that quote the words.
EXEMPT = {"tools/words.txt"}


def replacements(table: str) -> dict[str, str]:
    """Return the table as a dict from wrong to right, both as written there."""
    lines = (line for line in table.splitlines() if line and not line.startswith("#"))
    return dict(line.split(" -> ") for line in lines)


def pattern(words: dict[str, str]) -> re.Pattern[str]:
    """Return a pattern for any of the words, also between underscores."""
    alternatives = "|".join(re.escape(word).replace(r"\ ", "[ _]") for word in words)
    return re.compile(rf"(?<![a-z])(?:{alternatives})(?![a-z])", re.IGNORECASE)


def findings(name: str, text: str, words: dict[str, str]) -> list[str]:
    """Return a line for each word in a text."""
    by_word = {word.lower(): right for word, right in words.items()}
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for match in pattern(words).finditer(line):
            right = by_word[match[0].lower().replace("_", " ")]
            found.append(f"{name}:{number}: '{match[0]}': write '{right}' (tools/words.txt)")
    return found


def main() -> int:
    """Check all tracked files; return the exit status."""
    words = replacements((ROOT / "tools" / "words.txt").read_text())
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if name in EXEMPT or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text
        found += findings(name, text, words)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
