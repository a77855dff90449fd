"""PEP 517 hooks. maturin builds the extension; a full wheel also carries the server module and the `redgrease` binary.

The layout of a wheel:

    redgrease/...                        the Python package
    redgrease/_native.abi3.so            the extension (maturin)
    redgrease/lib/libredgrease.so        the module that the server loads
    redgrease-VERSION.data/scripts/redgrease   the command, installed into the environment's bin/

A source archive has all files of the checkout that git knows, so that a wheel can be built from it.
An editable install has the package and the extension only: in a checkout module and binary stay in target/release.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import maturin
from maturin import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent.parent
# maturin copies this folder into the wheel's .data directory; it exists only while a wheel is built.
STAGE = ROOT / "redgrease._native.data"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build module and binary, put them where maturin expects them, and let it build the wheel."""
    release = build_release()
    suffix = "dylib" if sys.platform == "darwin" else "so"
    try:
        stage(release / "redgrease", "scripts")
        stage(release / f"libredgrease.{suffix}", "platlib/redgrease/lib")
        os.environ.setdefault("MATURIN_PEP517_ARGS", "--strip")
        return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    finally:
        shutil.rmtree(STAGE, ignore_errors=True)


def build_release():
    """Run cargo and return the output folder."""
    command = ["cargo", "build", "--release", "--locked", "-p", "redgrease-module", "-p", "redgrease-cli"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "release"


def stage(built, folder):
    """Copy one built file, without its debug information, into the wheel's data."""
    place = STAGE / folder
    place.mkdir(parents=True, exist_ok=True)
    copy = shutil.copy2(built, place)
    if shutil.which("strip"):
        subprocess.run(["strip", "-S", copy], check=True)
