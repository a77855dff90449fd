"""The helper that finds libclang for the build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "with_libclang.py"


@pytest.mark.parametrize("library", ["libclang.so.1", "libclang-14.so", None])
def test_llvm_config_counts_only_when_libclang_is_where_it_says(tmp_path, library):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libclang-cpp.so.14").touch()
    if library:
        (tmp_path / "lib" / library).touch()
    program = tmp_path / "llvm-config"
    program.write_text(f"#!/bin/sh\necho {tmp_path / 'lib'}\n")
    program.chmod(0o755)
    found = subprocess.run(
        [sys.executable, "-c", "import with_libclang; print(with_libclang.llvm_config_libclang())"],
        cwd=TOOL.parent,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.strip() == str(library is not None)
