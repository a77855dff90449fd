"""Requirements: parsing, resolving, and this package among them."""

from __future__ import annotations

import pytest
from redgrease.requirements import (
    InvalidRequirement,
    Requirement,
    Version,
    from_packages_dict,
    read_requirements,
    resolve_requirements,
    safe_requirement,
    same_name,
    to_packages_dict,
)


def texts(requirements):
    return sorted(map(str, requirements))


@pytest.mark.parametrize(
    ("given", "option", "expected"),
    [
        (None, None, []),
        (["b", "a", "b"], None, ["a", "b"]),
        (["a>=1", "a<3", "a >= 1"], None, ["a<3", "a>=1"]),
        (["a"], True, ["a", "redgrease[runtime]"]),
        (["a", "redgrease==1"], True, ["a", "redgrease==1"]),
        (["a", "Redgrease==1"], False, ["a"]),
        (["redgrease==1"], "1.2.3", ["redgrease[runtime]==1.2.3"]),
        ([], Version("1.2.3"), ["redgrease[runtime]==1.2.3"]),
        ([], ">=1.0", ["redgrease[runtime]>=1.0"]),
        ([], "~=1.0", ["redgrease[runtime]~=1.0"]),
        ([], "redgrease", ["redgrease"]),
        ([], "redgrease[all]>=1.2.3", ["redgrease[all]>=1.2.3"]),
        ([], "all", ["redgrease[all]"]),
        ([], "cli,client", ["redgrease[cli,client]"]),
        ([], "", ["redgrease"]),
        ([], Requirement("redgrease[x]"), ["redgrease[x]"]),
        ([f"p{n}" for n in range(50)], True, sorted([f"p{n}" for n in range(50)] + ["redgrease[runtime]"])),
    ],
)
def test_resolve_requirements(given, option, expected):
    assert texts(resolve_requirements(given, option)) == expected


def test_one_requirement_needs_no_list():
    assert texts(resolve_requirements("requests>=2")) == ["requests>=2"]
    assert texts(resolve_requirements(Requirement("requests"))) == ["requests"]


def test_malformed_requirements_are_refused():
    for bad in ("a b", "==1", ""):
        with pytest.raises(InvalidRequirement):
            safe_requirement(bad)


def test_same_name_is_about_the_package():
    assert same_name("foo-bar[x]>=1", "Foo_Bar")
    assert not same_name("foo", "bar")
    assert not same_name("foo", "not a requirement")


def test_read_requirements(tmp_path):
    assert read_requirements() == set()
    (tmp_path / "more.txt").write_text("numpy\n-r main.txt\n")
    main = tmp_path / "main.txt"
    main.write_text(
        "# comment\n\nredgrease[runtime]\nrequests>=2 # inline\n-r more.txt\n"
        "pkg @ https://example.com/x.zip#sha256=ab\npinned==1 \\\n  --hash=sha256:00\n"
    )
    found = texts(read_requirements(main))
    assert (
        found
        == [
            "numpy",
            "pinned==1",
            "pkg@ https://example.com/x.zip#sha256=ab",
            "redgrease[runtime]",
            "requests>=2",
        ]
        or "pkg @ https://example.com/x.zip#sha256=ab" in found
    )
    main.write_text("-e .\na\n")
    with pytest.warns(UserWarning, match="line 1: '-e .'"):
        assert texts(read_requirements(main)) == ["a"]
    main.write_text("a\nno requirement\n")
    with pytest.raises(InvalidRequirement, match="line 2"):
        read_requirements(main)


def test_packages_dict_keeps_everything():
    given = {Requirement("a>=1"), Requirement("b"), Requirement("A<3")}
    packages = to_packages_dict(given)
    assert sorted(packages) == ["a", "b"]
    assert len(packages["a"]) == 2
    assert from_packages_dict(packages) == given
