"""Links of the documentation site, and its figures."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest
import redgrease

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import draw_figures  # noqa: E402
import site_pages  # noqa: E402


@pytest.mark.parametrize(
    ("page", "link", "found"),
    [
        ("index.md", "[a](../examples/basics.py)", "[a](examples/basics.md)"),
        ("tutorials/cache_get.md", "[a](../../examples/tour.ipynb)", "[a](../examples/tour.md)"),
        ("tutorials/cache_get.md", "[a](../configuration.md#x)", "[a](../configuration.md#x)"),
        ("project/architecture.md", "[a](docs/decisions/README.md)", "[a](../decisions/README.md)"),
        ("project/architecture.md", "[a](#glossary)", "[a](#glossary)"),
        ("project/readme.md", "[a\nb](ARCHITECTURE.md)", "[a\nb](architecture.md)"),
        ("project/readme.md", "[a](LICENSE-MIT)", "a"),
        ("index.md", "[a](https://example.org/x.py)", "[a](https://example.org/x.py)"),
        ("index.md", "![a](images/overview.svg)", "![a](images/overview.svg)"),
        ("index.md", "```\n[a](nowhere.md)\n```", "```\n[a](nowhere.md)\n```"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(page, link, found, caplog):
    assert site_pages.relinked(f"x {link}\n" if "```" not in link else link, page).strip().removeprefix("x ") == found
    assert caplog.records == []


def test_a_link_to_nothing_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        site_pages.relinked("[a](../nowhere.py)", "index.md")
    assert "index.md links to ../nowhere.py" in caplog.text


@pytest.mark.parametrize("name", draw_figures.FIGURES)
def test_figures_are_as_drawn(name):
    assert (draw_figures.IMAGES / f"{name}.svg").read_text(encoding="utf-8") == draw_figures.FIGURES[name]()


def test_the_api_reference_has_all_names_that_the_package_exports():
    documented = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for module, members in re.findall(
            r"^::: redgrease\.(\S+)(?:\n    options:\n      members: \[(.*)\])?", page.read_text(), re.M
        ):
            documented |= set(members.split(", ")) if members else {module}
    modules = redgrease._BARE | {name: module for name, (module, _) in redgrease._OPTIONAL.items()}
    missing = {name for name, module in modules.items() if not {name, module} & documented}
    # Other names of documented ones, an instance of one, and classes of another package.
    assert missing == {"trigger", "GB", "cmd", "Requirement", "Version"}
