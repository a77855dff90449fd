"""Examples in the docstrings of the file cache are run, each with a fresh cache, and every public object has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from redgrease import filecache
from redgrease.filecache import FileCache, RedisFileCache

MODULES = sorted(file.stem for file in Path(filecache.__file__).parent.glob("*.py") if file.stem != "stress")
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def module_of(name):
    return filecache if name == "__init__" else importlib.import_module(f"redgrease.filecache.{name}")


def examples_of(name):
    finder = doctest.DocTestFinder()
    return [test for test in finder.find(module_of(name)) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name, tmp_path, monkeypatch):
    for variable in ("DIR", "URL", "NAMESPACE"):
        monkeypatch.setenv(f"REDGREASE_CACHE_{variable}", "")
    for number, test in enumerate(examples_of(name)):
        directory = tmp_path / str(number)
        with FileCache(directory) as cache:
            test.globs["cache"] = cache
            if name == "poc":
                old = RedisFileCache(tmp_path / f"poc{number}", redis_url=None)
                old.write_bytes_create("a.bin", b"some bytes")
                test.globs["poc"] = old
            outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
            assert outcome.failed == 0, test.name


def test_every_public_method_has_an_example():
    for kind in (FileCache, RedisFileCache):
        for name, member in inspect.getmembers(kind, callable):
            if not name.startswith("_"):
                assert ">>>" in (member.__doc__ or ""), f"{kind.__name__}.{name}"
