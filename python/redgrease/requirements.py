"""Requirements: the packages that functions need on the server.

>>> sorted(map(str, resolve_requirements(["requests", "requests>=2", "requests"])))
['requests', 'requests>=2']
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = [
    "InvalidRequirement",
    "PackageOption",
    "Requirement",
    "Version",
    "default_redgrease",
    "from_packages_dict",
    "read_requirements",
    "resolve_requirements",
    "safe_requirement",
    "same_name",
    "to_packages_dict",
]

PackageOption = Union[bool, str, Version, Requirement, None]
"""Ways to require this package, see `resolve_requirements`."""

default_redgrease = Requirement("redgrease[runtime]")
"""The requirement for this package itself. Servers with the module always have it."""


def safe_requirement(requirement: Any) -> Requirement:
    """A `Requirement`, parsed if it is text.

    Raises:
        InvalidRequirement: the text is not a requirement.
    """
    return requirement if isinstance(requirement, Requirement) else Requirement(str(requirement))


def same_name(first: Any, second: Any) -> bool:
    """Whether two requirements are for the same package, whatever versions, extras and spelling."""
    try:
        names = [canonicalize_name(safe_requirement(each).name) for each in (first, second)]
    except InvalidRequirement:
        return False
    return names[0] == names[1]


def read_requirements(*paths: str | os.PathLike[str]) -> set[Requirement]:
    """All requirements of some files in the format of pip's requirements files.

    Comments are skipped, ``-r`` files are read too. Other options have no meaning on a server: they are skipped with
    a warning.

    Raises:
        InvalidRequirement: a line is not a requirement.
    """
    return {requirement for path in paths for requirement in _read(os.fspath(path), set())}


def _read(path: str, seen: set[str]) -> Iterator[Requirement]:
    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    with open(path, encoding="utf-8") as file:
        text = file.read().replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        option, _, argument = line.partition("=" if line.startswith("--requirement=") else " ")
        if option in ("-r", "--requirement"):
            yield from _read(os.path.join(os.path.dirname(path), argument.strip()), seen)
        elif line.startswith("-"):
            warnings.warn(f"{path}, line {number}: {line!r} is not for servers, skipped", stacklevel=4)
        elif line:
            try:
                yield Requirement(re.sub(r"\s--\S.*$", "", line))
            except InvalidRequirement as error:
                raise InvalidRequirement(f"{path}, line {number}: {error}") from error


def resolve_requirements(
    requirements: Iterable[Any] | Requirement | None = None, enforce_redgrease: PackageOption = None
) -> set[Requirement]:
    """Requirements without duplicates; different constraints on one package are all kept.

    Args:
        requirements: texts or `Requirement` objects; also a single one.
        enforce_redgrease: handling of this package itself. `None`: unchanged. `True`: add it if it is missing.
            `False`: remove it. Otherwise its replacement: a `Requirement`, a version (`Version` or text such as
            ``"1.2"``), a constraint (``">=1.0"``), extras (``"all"``), or a whole requirement
            (``"redgrease[all]>=1.0"``).

    Raises:
        InvalidRequirement: a text is not a requirement.
    """
    if isinstance(requirements, (str, Requirement)):
        requirements = (requirements,)  # the letters of a text are names of packages, too
    resolved = {str(each): each for each in map(safe_requirement, requirements or ())}
    kept = set(resolved.values())
    if enforce_redgrease is None:
        return kept
    present = {each for each in kept if same_name(each, default_redgrease)}
    if enforce_redgrease is True:
        return kept if present else kept | {default_redgrease}
    if enforce_redgrease is False:
        return kept - present
    return (kept - present) | {_enforced(enforce_redgrease)}


def _enforced(option: str | Version | Requirement) -> Requirement:
    if isinstance(option, Requirement):
        return option
    text = str(option).strip()
    base = str(default_redgrease)
    if not text:
        return Requirement(default_redgrease.name)
    if isinstance(option, Version) or text[0].isdigit():
        return Requirement(f"{base}=={text}")
    if text[0] in "=<>!~":
        return Requirement(f"{base}{text}")
    if default_redgrease.name not in text and re.fullmatch(r"[\w.-]+(\s*,\s*[\w.-]+)*", text):
        return Requirement(f"{default_redgrease.name}[{text}]")
    return Requirement(text)


def to_packages_dict(requirements: Iterable[Any]) -> dict[str, list[Requirement]]:
    """Requirements by the normalised name of their package."""
    packages: dict[str, list[Requirement]] = {}
    for requirement in map(safe_requirement, requirements):
        packages.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return packages


def from_packages_dict(packages: Mapping[str, Iterable[Requirement]]) -> set[Requirement]:
    """All requirements of a dict by package."""
    return {requirement for group in packages.values() for requirement in group}
