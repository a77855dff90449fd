"""Run the notebook of the examples with a server: `python tools/run_notebook.py --port 6379`.

Without options it writes the outputs into the notebook. ``--check`` writes nothing, and fails if the text of an output
is not the one in the notebook, or if there are other plots than there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
CELL_SECONDS = 120


def executed(notebook: Any, port: int) -> Any:
    """A copy of a notebook with new outputs."""
    copy = nbformat.from_dict({**notebook, "cells": [{**cell} for cell in notebook.cells]})
    for cell in copy.cells:
        cell.source = cell.source.replace("redgrease.RedisGears()", f"redgrease.RedisGears(port={port})")
    os.environ["PYTHONPATH"] = str(ROOT / "python")
    NotebookClient(copy, timeout=CELL_SECONDS, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    for before, after in zip(notebook.cells, copy.cells):
        after.source = before.source
        after.metadata = before.metadata
    copy.metadata = notebook.metadata
    return copy


def shown(cell: Any) -> list[str]:
    """What the outputs of a cell show: their texts, and the kinds of others."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        texts.append("image/png" if "image/png" in data else output.get("text", data.get("text/plain", "")))
    return texts


def main() -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=6379, help="port of a server that is empty (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compare the outputs instead of writing them")
    given = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    result = executed(notebook, given.port)
    if not given.check:
        nbformat.write(result, NOTEBOOK)
        return 0
    wrong = 0
    for before, after in zip(notebook.cells, result.cells):
        if shown(before) != shown(after):
            wrong += 1
            print(f"{before.source}\nshows:   {shown(before)}\nprinted: {shown(after)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
