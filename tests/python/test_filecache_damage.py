"""Damaged or missing files: errors name the fix, and repairable damage is repaired."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redgrease.filecache import CacheIOError, FileCache

from .filecache_tools import DEADLINE

COMMAND = Path(sys.executable).parent / "redgrease"


@pytest.fixture
def options(tmp_path):
    options = {"directory": tmp_path / "cache", "maintenance": None}
    with FileCache(**options) as cache:
        cache.write("c", b"content")
    return options


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("garbage", [b"garbage\n", b"", b"rgcache1" + b"x" * 1000, None])
def test_a_damaged_journal_is_rebuilt_from_the_directory(options, garbage, read_only):
    journal = options["directory"] / "JOURNAL"
    if garbage is None:
        journal.unlink()
    else:
        journal.write_bytes(garbage)
    with FileCache(**options, read_only=read_only) as cache:
        assert (list(cache.keys()), cache.read("c"), cache.verify("digests").problems) == ([b"c"], b"content", ())
    assert journal.exists() == (not read_only or garbage is not None)


def test_a_damaged_marker_is_reported_once_and_adopting_repairs_it(options):
    marker = options["directory"] / "CACHE"
    marker.write_bytes(b"not json")
    with pytest.raises(CacheIOError) as caught:
        FileCache(**options)
    told = str(caught.value)
    assert told.count("is damaged") == 1 and str(marker.parent) in told and "with adopt" in told
    marker.unlink()
    with FileCache(**options, adopt=True) as cache:
        assert cache.read("c") == b"content"
    with FileCache(**options) as cache:
        assert cache.read("c") == b"content"


def test_the_doctor_finds_missing_parts(options):
    with FileCache(**options) as cache:
        shutil.rmtree(options["directory"])
        found = {finding.name: finding for finding in cache.doctor()}
        assert found["marker"].level == found["directory"].level == "error"
        assert "does not exist" in found["directory"].message


def test_problems_name_keys_as_they_are(options):
    with FileCache(**options) as cache:
        with cache.open("c") as handle:
            path = handle.path
        os.truncate(path, 1)
        (problem,) = cache.verify("sizes").problems
        assert (problem.kind, problem.name) == ("size-mismatch", "c")


def command(options, *words):
    line = [COMMAND, "cache", *words, "--dir", options["directory"]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REDGREASE_")}
    return subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, env=environment)


def test_the_command_lists_a_cache_whose_journal_is_garbage(options):
    (options["directory"] / "JOURNAL").write_bytes(b"garbage\n")
    done = command(options, "ls")
    assert (done.returncode, done.stdout) == (0, "c\n"), done


def test_the_doctor_of_the_command_examines_a_cache_that_cannot_be_opened(options):
    (options["directory"] / "CACHE").write_bytes(b"not json")
    done = command(options, "doctor", "--json")
    levels = {found["name"]: found["level"] for found in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1, done
    assert (levels["index"], levels["marker"], levels["disk"], levels["directory"]) == ("error", "error", "ok", "ok")
    away = command(options, "doctor", "--json", "--url", "redis://localhost:1")
    levels = {found["name"]: found["level"] for found in map(json.loads, away.stdout.splitlines())}
    assert (away.returncode, levels["server"], levels["disk"]) == (1, "error", "ok"), away
