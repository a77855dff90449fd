"""Make requirements available in a directory of their own: ``-m redgrease.worker.install --target DIR -- REQ...``.

A requirement is any argument of pip except options: names with versions, extras and markers,
``name @ URL``, ``git+https://...``, a URL or an absolute path of an archive or a project.

The directory gets ``wheels``, the archives of the requirements and all that they need, and ``packages``, what they
contain. Wheels that are there already are taken as they are: servers without a network get them from others. A file
``locked`` names the wheels that have to be downloaded, with their digests.

Prints ``wheel FILE BYTES SHA256 INDEXES`` for each wheel, with the indexes of the requirements that need it, and as the
last line ``missing`` if something has to be installed and ``--check`` is given, ``installed`` if the directory has all
of it, or ``importable`` if there is nothing to install, or nothing can be installed and the interpreter itself
satisfies all requirements. Anything else is an error, with its text on standard error.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from redgrease.worker import supervise

OWN_NAME = "redgrease"

#: What the client ``gearsclient`` requires of each function: workers have what its functions import.
CLIENT = "git+https://github.com/RedisGears/redisgears-py.git"

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
    if _is_own(requirement):
        return True
    if isinstance(requirement, str):
        return False
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


def install(requirements: list[Requirement | str], target: Path, force: bool) -> bool:
    """Install into a new directory and atomically rename it to ``target``; return whether that was possible."""
    fresh = _fresh_directory(target)
    try:
        fresh.chmod(0o755)
        (fresh / "wheels").mkdir()
        if not force and _given(target, fresh) and _unpack(fresh):
            return _swap(fresh, target)
        # Those that are there may be for another interpreter: shards of a cluster may have different ones.
        for wheel in (fresh / "wheels").iterdir():
            wheel.unlink()
        return _build(requirements, target, fresh) and _unpack(fresh) and _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpack(fresh: Path) -> bool:
    """Install the wheels of a directory into it; return whether that was possible."""
    wheels = sorted((fresh / "wheels").iterdir())
    # Markers may leave nothing to be installed.
    (fresh / "packages").mkdir(exist_ok=True)
    return not wheels or _pip("install", "--no-index", "--no-deps", "--target", fresh / "packages", "--", *wheels) == 0


def _fresh_directory(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    except OSError as error:
        remedy = "set the load argument RequirementsDir to a directory that the user of the workers may write"
        sys.exit(f"{target.parent} cannot be written ({error.strerror}): {remedy}")


def _given(target: Path, fresh: Path) -> bool:
    """Take wheels that are there already; return False if there are none."""
    try:
        wheels = list((target / "wheels").iterdir())
    except FileNotFoundError:
        return False
    for wheel in wheels:
        shutil.copyfile(wheel, fresh / "wheels" / wheel.name)
    return True


def _build(requirements: list[Requirement | str], target: Path, fresh: Path) -> bool:
    """Make the wheels: from indexes, or if that fails, from the wheels that other sets of requirements have."""
    into = ("--wheel-dir", fresh / "wheels")
    locked = _locked(target)
    if locked is not None:
        pins = [f"{name}=={version}" for name, version in map(_name_and_version, locked)]
        if _pip("wheel", *into, "--no-deps", "--", *pins) != 0:
            return False
        return _is_as_locked(fresh / "wheels", locked)
    texts = [str(requirement) for requirement in requirements]
    if _pip("wheel", *into, "--", *texts) == 0:
        return True
    directories = (wheels for wheels in target.parent.glob("*/wheels") if wheels.parent != fresh)
    others = [("--find-links", wheels) for wheels in directories]
    found = [word for pair in others for word in pair]
    return bool(found) and _pip("wheel", *into, "--no-index", *found, "--", *texts) == 0


def _locked(target: Path) -> dict[str, str] | None:
    """Return the wheels that have to be downloaded, with their digests; None if any will do."""
    try:
        lines = (target / "locked").read_text().splitlines()
    except FileNotFoundError:
        return None
    return dict(line.split() for line in lines)


def _name_and_version(file: str) -> tuple[str, str]:
    name, version, *_ = file.split("-")
    return name.replace("_", "-"), version


def _is_as_locked(wheels: Path, locked: dict[str, str]) -> bool:
    others = sorted(wheel.name for wheel in wheels.iterdir() if locked.get(wheel.name) != _sha256(wheel))
    remedy = "export the requirement there (RG.PYEXPORTREQ) and import it here"
    for name in others:
        print(f"{name} is not the wheel that the master has: {remedy}", file=sys.stderr)
    return not others


def _pip(verb: str, *words: str | Path) -> int:
    # Its output becomes an error text: no progress bars, no colours.
    command = [sys.executable, "-m", "pip", verb, "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--no-color", *map(str, words)]
    return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _swap(fresh: Path, target: Path) -> bool:
    """Put a new directory in the place of the old one, if there is one."""
    old = fresh.with_name(fresh.name + ".old")
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(fresh, target)
    except OSError:
        # Another server that shares the directory was faster.
        if not (target / "packages").is_dir():
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    return True


def show_wheels(target: Path, requirements: list[Requirement | str]) -> None:
    """Print the wheels of a directory, and which requirements need them."""
    wheels = sorted((target / "wheels").glob("*.whl"))
    needs: dict[str, set[str]] = {}
    for wheel in wheels:
        needs[str(canonicalize_name(_name_and_version(wheel.name)[0]))] = _dependencies(wheel)
    needed_by = [_closure(requirement, needs) for requirement in requirements]
    for wheel in wheels:
        name = canonicalize_name(_name_and_version(wheel.name)[0])
        indexes = ",".join(str(index) for index, names in enumerate(needed_by) if name in names)
        print("wheel", wheel.name, wheel.stat().st_size, _sha256(wheel), indexes or "-")


def _closure(requirement: Requirement | str, needs: dict[str, set[str]]) -> set[str]:
    """Return the names of the packages that a requirement needs, of those that are there."""
    if isinstance(requirement, str):
        # What a URL or a path contains is not known: all of it, to be sure.
        return set(needs)
    found, left = set[str](), [str(canonicalize_name(requirement.name))]
    while left:
        name = left.pop()
        if name in needs and name not in found:
            found.add(name)
            left += needs[name]
    return found


def _dependencies(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (
            name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1
        )
        headers = HeaderParser().parsestr(archive.read(metadata).decode(errors="replace"))
    return {str(canonicalize_name(Requirement(text).name)) for text in headers.get_all("Requires-Dist") or ()}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_own(requirement: Requirement | str) -> bool:
    if isinstance(requirement, str):
        return requirement == CLIENT
    return canonicalize_name(requirement.name) == OWN_NAME


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="redgrease.worker.install")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--user")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("requirements", nargs="*")
    arguments = parser.parse_args()
    if arguments.user:
        supervise.become(arguments.user)
    # All that pip starts ends with the server, or when the server requests it.
    supervise.split()
    requirements = []
    for text in arguments.requirements:
        try:
            requirements.append(parse(text))
        except InvalidRequirement as error:
            print(f"not a requirement: {text!r}: {str(error).splitlines()[0]}", file=sys.stderr)
            return 2
    wanted = [one for one in requirements if not _is_own(one)]
    if not wanted:
        print("importable")
        return 0
    if arguments.force or not (arguments.target / "packages").is_dir():
        if arguments.check:
            print("missing")
            return 0
        if not install(wanted, arguments.target, arguments.force):
            if arguments.force or not all(map(is_importable, wanted)):
                return 1
            print("importable")
            return 0
    show_wheels(arguments.target, requirements)
    print("installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
