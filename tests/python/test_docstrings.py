"""Examples in docstrings are run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import redgrease

PACKAGE = Path(redgrease.__file__).parent
FILES = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("testing/*.py")])


@pytest.mark.parametrize("name", [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in FILES])
def test_examples_of(name):
    module = importlib.import_module(f"redgrease.{name}".removesuffix(".__init__"))
    assert doctest.testmod(module).failed == 0
