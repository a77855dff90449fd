"""Make requirements available in a directory of their own: ``-m redgrease.worker.install --target DIR -- REQ...``.

Prints ``importable`` when this interpreter has everything already, ``installed`` when the directory holds it (now, or
from an earlier call); anything else is an error, whose text stands on standard error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OWN_NAME = "redgrease"


def is_importable(requirement: Requirement) -> bool:
    """Tell whether the installed distribution satisfies the requirement and what its extras ask for."""
    if canonicalize_name(requirement.name) == OWN_NAME:
        return True
    if requirement.url or (requirement.marker and not requirement.marker.evaluate()):
        return not requirement.url
    try:
        distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        return False
    for extra in requirement.extras:
        for text in distribution.requires or []:
            needed = Requirement(text)
            wanted = (
                needed.marker and needed.marker.evaluate({"extra": extra}) and not needed.marker.evaluate({"extra": ""})
            )
            if wanted and not is_importable(needed):
                return False
    return True


def install(requirements: list[Requirement], target: Path) -> int:
    """Install into a fresh directory and put it in place of ``target`` in one step; return pip's exit status."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--target"]
        status = subprocess.call(
            [*command, str(fresh), *(str(requirement) for requirement in requirements)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        if status == 0:
            if target.exists():
                old = fresh.with_name(fresh.name + ".old")
                os.rename(target, old)
                os.rename(fresh, target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.rename(fresh, target)
        return status
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="redgrease.worker.install")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("requirements", nargs="*")
    arguments = parser.parse_args()
    try:
        requirements = [Requirement(text) for text in arguments.requirements]
    except InvalidRequirement as error:
        print(f"not a requirement: {error}", file=sys.stderr)
        return 2
    missing = [one for one in requirements if not is_importable(one)]
    if not missing and not arguments.force:
        print("importable")
        return 0
    wanted = [one for one in requirements if canonicalize_name(one.name) != OWN_NAME]
    if wanted and (arguments.force or not arguments.target.is_dir()):
        status = install(wanted, arguments.target)
        if status != 0:
            return status
    print("installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
