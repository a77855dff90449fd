"""Every block of Python and of shell commands in the documentation runs, and prints what the page shows."""

from __future__ import annotations

import pytest
from pages import DOCS, blocks_of, run

#: Pages whose programs need more than a server, and the tests that run them.
ELSEWHERE = {
    "filecache.md": "tests/python/test_filecache_guide.py",
    "testing.md": "tests/python/test_testing_page.py",
    "tutorials/cache_get.md": "tests/e2e/test_recipes.py",
}
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if blocks_of(page.read_text()))
#: Blocks that may say that they are not run, over all pages.
NOT_RUN_MAX = 10


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE])
def test_the_programs_of_a_page_print_what_it_shows(db, tmp_path, name):
    wrong = run(DOCS / name, db.server.port, tmp_path)
    assert not wrong, "\n".join(wrong)


def test_few_programs_are_not_run():
    reasons = [block.not_run for name in PAGES for block in blocks_of((DOCS / name).read_text()) if block.not_run]
    assert len(reasons) <= NOT_RUN_MAX, reasons
    assert len(PAGES) >= 12


def test_pages_that_others_run_exist():
    assert set(ELSEWHERE) <= set(PAGES)
