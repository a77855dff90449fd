"""Hooks of mkdocs: pages of files that are not in `docs`, and links to them.

Links in the repository are those of its files, so that they work there, too: ``../examples/basics.py``. On the site
each example is a page with its source, and the notebook one with its outputs; some files of the root directory are
pages.
A link to anything else outside of `docs` is an error.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
#: Files of the repository, by the page that shows them.
PAGES = {
    "project/architecture.md": "ARCHITECTURE.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/readme.md": "README.md",
    "project/tests.md": "tests/README.md",
    "project/benchmarks.md": "benches/README.md",
    "project/fuzzing.md": "fuzz/README.md",
}
#: Links to these are shown as text: the site has nothing for them.
NO_PAGE = re.compile(
    r"(?:examples|docs/commands|docs/tutorials)/?$|LICENSE|pyproject|Cargo|benches/|crates/|tools/|tests/"
)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]*(?:\n[^\]\n]+)?)\]\((?P<target>[^)\s]+)\)")
_log = logging.getLogger("mkdocs.hooks.site_pages")


def pages() -> dict[str, str]:
    """Paths of the repository of all added pages, by the path of the page."""
    examples = sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("examples/*.ipynb")])
    return {**PAGES, **{f"examples/{path.stem}.md": f"examples/{path.name}" for path in examples}}


def source(page: str) -> str:
    """Path in the repository of the file of a page."""
    return pages().get(page, f"docs/{page}")


def content(path: str) -> str:
    """The Markdown of a file."""
    file = ROOT / path
    if file.suffix == ".py":
        return f"# {file.name}\n\n```python\n{file.read_text()}```\n"
    return notebook(file) if file.suffix == ".ipynb" else file.read_text()


def notebook(file: Path) -> str:
    """The cells of a notebook and their outputs as Markdown."""
    parts = []
    for cell in json.loads(file.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += [_output(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![plot](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for page, path in pages().items():
        files.append(File.generated(config, page, content=content(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files of the repository to the pages that show them."""
    return relinked(markdown, page.file.src_uri)


def relinked(markdown: str, page: str) -> str:
    """The Markdown of a page with links for the site."""
    here = PurePosixPath(source(page)).parent
    shown = {path: name for name, path in pages().items()}

    def replace(link: re.Match[str]) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        path = os.path.normpath(here / target)
        if path in shown:
            found = shown[path]
        elif path.startswith("docs/") and (ROOT / path).is_file():
            found = path[len("docs/") :]
        elif (ROOT / path).exists() and NO_PAGE.match(path):
            return link["text"]
        else:
            _log.warning("%s links to %s, which is no page", page, link["target"])
            return link[0]
        relative = os.path.relpath(found, PurePosixPath(page).parent)
        return f"[{link['text']}]({relative}{'#' + anchor if anchor else ''})"

    # Programs are left alone.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(replace, part) for part in parts)
