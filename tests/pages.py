"""Fenced blocks of the pages of the documentation, and a program that runs them.

A block of Python is run, in one namespace with the others of its page; a block ``sh`` is run by a shell. A block
``console`` behind one of them, with only blank lines between, is what it prints; ``...`` stands for any text. A block
that is not run says so to the reader: ``title="Not run by the tests: reason"``. Blocks of other languages are not run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUN = ("python", "sh")
_FENCE = re.compile(r"^```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<content>.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r'title="Not run by the tests: (?P<reason>[^"]{10,})"')
_SECONDS = 120.0


@dataclass(frozen=True)
class Block:
    """A fenced block that is run, or that says why it is not.

    Attributes:
        line: number of its first line.
        output: what it prints, if the page shows that.
        not_run: the reason why it is not run.
    """

    language: str
    content: str
    line: int
    output: str | None
    not_run: str | None


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page's text.

    Raises:
        ValueError: a block has options other than a reason for not being run, or is indented.
    """
    found = list(_FENCE.finditer(page))
    if page.count("```") != 2 * len(found):
        raise ValueError("a fence is indented, or not closed")
    blocks = []
    for fence, following in zip(found, [*found[1:], None]):
        if fence["language"] not in RUN:
            continue
        reason = _NOT_RUN.search(fence["options"])
        if fence["options"] and reason is None:
            raise ValueError(f'write title="Not run by the tests: reason", not {fence["options"]!r}')
        shown = following is not None and following["language"] == "console"
        if shown and page[fence.end() : following.start()].strip():
            shown = False
        blocks.append(
            Block(
                fence["language"],
                fence["content"],
                page.count("\n", 0, fence.start()) + 2,
                following["content"] if shown else None,
                reason and reason["reason"],
            )
        )
    return blocks


def run(page: Path, port: int, directory: Path) -> list[str]:
    """Run the blocks of a page with the server at ``port``; what is wrong with each that is not as shown."""
    own = here(port)
    blocks = [block for block in blocks_of(page.read_text()) if block.not_run is None]
    programs = [{"language": block.language, "line": block.line, "content": own(block.content)} for block in blocks]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "REDGREASE_URL": f"redis://127.0.0.1:{port}"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), str(page)],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        cwd=directory,
        env=environment,
    )
    if done.returncode != 0:
        return [f"{page}: exit status {done.returncode}\n{done.stdout}{done.stderr}"]
    wrong = []
    for block, printed in zip(blocks, json.loads(done.stdout)):
        shown = own(block.output or "")
        as_shown = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)
        if not as_shown:
            wrong.append(f"{page.name}:{block.line}:\n{block.content}shows:\n{shown}printed:\n{printed}")
    return [*wrong, *([done.stderr] if done.stderr else [])]


def here(port: int) -> Callable[[str], str]:
    """A function that replaces the server of the pages by that at ``port``."""

    def replace(text: str) -> str:
        text = re.sub(r"\b(redgrease(?:\.asyncio)?\.RedisGears|redis\.Redis)\(\)", rf"\1(port={port})", text)
        text = re.sub(r"\bredgrease --server localhost(?= )", f"redgrease --server localhost --port {port}", text)
        text = re.sub(r"\bGearsLoader\((?=server=)", rf"GearsLoader(port={port}, ", text)
        return text.replace("localhost:6379", f"localhost:{port}")

    return replace


def _main(page: str) -> None:
    """Run the programs of the standard input, and print what each prints as JSON."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    printed = []
    for program in json.load(sys.stdin):
        content = program["content"]
        if program["language"] == "sh":
            done = subprocess.run(["sh", "-e", "-c", content], capture_output=True, text=True, timeout=60, check=False)
            printed.append(done.stdout + done.stderr + (f"exit status {done.returncode}" if done.returncode else ""))
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile("\n" * (program["line"] - 1) + content, page, "exec"), module.__dict__)
            except Exception:
                output.write(traceback.format_exc())
        printed.append(output.getvalue())
    json.dump(printed, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
