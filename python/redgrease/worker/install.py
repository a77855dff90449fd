"""Make requirements available in a directory of their own: ``-m redgrease.worker.install --target DIR -- REQ...``.

A requirement is any argument of pip except options: names with versions, extras and markers,
``name @ URL``, ``git+https://...``, a URL or an absolute path of an archive or a project.

Prints ``importable`` if the interpreter satisfies all requirements, ``missing`` if it does not and ``--check`` is
given, ``installed`` if the directory has them (now, or from an earlier call). Anything else is an error, with its text
on standard error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OWN_NAME = "redgrease"

#: A URL for pip: a scheme, optionally after the name of a version control system.
_URL = re.compile(r"((git|hg|svn|bzr)\+)?[a-z][a-z0-9.-]*://", re.IGNORECASE)


def parse(text: str) -> Requirement | str:
    """Return a requirement, or the text unchanged if only pip understands it: a URL or an absolute path.

    Raises:
        InvalidRequirement: it is neither; options of pip are refused, too.
    """
    text = text.strip()
    if _URL.match(text):
        return text
    # A path, optionally with extras. A relative one would depend on the server's directory.
    if text.startswith("/"):
        return text
    return Requirement(text)


def is_importable(requirement: Requirement | str) -> bool:
    """Return whether installed distributions satisfy the requirement and its extras."""
    if isinstance(requirement, str):
        return False
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


def install(requirements: list[Requirement | str], target: Path) -> int:
    """Install into a new directory and atomically rename it to ``target``; return pip's exit status."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        # Its output becomes an error text: no progress bars, no colours.
        command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", "--no-color", "--target", str(fresh), "--"]
        status = subprocess.call(
            [*command, *(str(requirement) for requirement in requirements)],
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


def _is_own(requirement: Requirement | str) -> bool:
    return isinstance(requirement, Requirement) and canonicalize_name(requirement.name) == OWN_NAME


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="redgrease.worker.install")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("requirements", nargs="*")
    arguments = parser.parse_args()
    requirements = []
    for text in arguments.requirements:
        try:
            requirements.append(parse(text))
        except InvalidRequirement as error:
            print(f"not a requirement: {text!r}: {str(error).splitlines()[0]}", file=sys.stderr)
            return 2
    if all(map(is_importable, requirements)) and not arguments.force:
        print("importable")
        return 0
    wanted = [one for one in requirements if not _is_own(one)]
    if wanted and (arguments.force or not arguments.target.is_dir()):
        if arguments.check:
            print("missing")
            return 0
        status = install(wanted, arguments.target)
        if status != 0:
            return status
    print("installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
