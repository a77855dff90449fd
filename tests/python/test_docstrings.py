"""Examples in docstrings are run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import redgrease

FILES = sorted(Path(redgrease.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_examples_of(name):
    module = redgrease if name == "__init__" else importlib.import_module(f"redgrease.{name}")
    assert doctest.testmod(module).failed == 0
