"""`redgrease cache`: every subcommand, as people and scripts use it, with a server and without one."""

from __future__ import annotations

import itertools
import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .caching import COMMAND, TIMEOUT_S, Cache, clean_environment, plain_server
from .servers import Server, free_port
from .waiting import wait_until

_numbers = itertools.count()


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Server]:
    server = plain_server()
    yield server
    server.stop()


@pytest.fixture(params=["redis", "files"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    """An empty cache, once with a server that coordinates and once with file locks alone."""
    url = None
    if request.param == "redis":
        url = f"redis://127.0.0.1:{request.getfixturevalue('coordinator').port}/0"
    cache = Cache(tmp_path / "cache", url, namespace=f"cli-{next(_numbers)}")
    cache.put("first", b"to make the cache")
    cache.run("rm", "first")
    return cache


HOSTILE_KEYS = [
    b"plain.bin",
    b"two\nlines",
    b"\x1b[2J\x1b]0;title\x07",
    b"\xff\xfe\x80",
    b"..",
    b"../../etc/passwd",
    b"/absolute/path",
    b".hidden",
    b"-looks-like-an-option",
    b"--dir",
    b" blanks around ",
    b"\"quoted\" 'twice'",
    b"back\\slash\\n",
    "größe/ключ/鍵".encode(),
    "e\u0301 is not \u00e9".encode(),
    "\u00e9 is not e\u0301".encode(),
    "\u202ereversed".encode(),
    b"CON",
    b"trailing.",
    b"Case",
    b"cASE",
    b"x" * 300,
    b"*",
    b"{tag}",
]


# -- get and put


@pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 1000], ids=["empty", "text", "binary"])
def test_what_is_put_is_got(cache: Cache, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    cache.run("put", "from-file", source)
    cache.run("put", "from-stdin", input=content)
    cache.run("put", "from-dash", "-", input=content)
    for key in ("from-file", "from-stdin", "from-dash"):
        assert cache.get(key) == content
        cache.run("get", key, "-o", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == content


def test_an_entry_is_created_once_unless_it_is_replaced(cache: Cache) -> None:
    cache.put("key", b"one")
    said = cache.fails("put", "key", code="exists", input=b"two")
    assert "key" in said
    assert cache.get("key") == b"one"
    before = cache.json("stat", "key")[0]
    cache.put("key", b"three", "--replace")
    after = cache.json("stat", "key")[0]
    assert cache.get("key") == b"three"
    assert after["fence"] > before["fence"]
    assert after["digest"] != before["digest"]


def test_what_is_put_with_it_is_told(cache: Cache) -> None:
    told = cache.json(
        "put", "k", "--ttl", "1h", "--content-type", "text/plain", "--meta", "a=1", "--meta", "b=x=y", input=b"123"
    )[0]
    assert told["key"] == "k"
    assert told["size"] == 3
    assert told["content_type"] == "text/plain"
    assert told["meta"] == {"a": "1", "b": "x=y"}
    assert 3500 < told["expires"] - time.time() < 3700
    assert cache.json("stat", "k")[0]["meta"] == told["meta"]
    text = cache.run("stat", "k").stdout.decode()
    assert "text/plain" in text and "meta a : 1" in text


def test_an_expired_entry_is_gone(cache: Cache) -> None:
    cache.put("short", b"x", "--ttl", "50ms")
    wait_until(lambda: cache.run("get", "short", code=None).returncode, "it expires", until=bool)
    cache.fails("get", "short", code="missing")
    cache.put("short", b"again")


def test_a_missing_entry_has_its_own_exit_code_and_leaves_the_output_file_alone(cache: Cache, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    said = cache.fails("get", "nothing", "-o", target, code="missing")
    assert "nothing" in said
    assert target.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("target")] == ["target"]


def test_a_target_that_cannot_be_written_is_named(cache: Cache, tmp_path: Path) -> None:
    cache.put("k")
    target = tmp_path / "no" / "such" / "folder"
    assert str(target) in cache.fails("get", "k", "-o", target, code=1)
    assert str(tmp_path / "missing") in cache.fails("put", "other", tmp_path / "missing", code=1)
    assert "is a directory" in cache.fails("put", "other", tmp_path, code=2)
    assert cache.listed() == [b"k"]


def test_get_writes_into_pipes(cache: Cache, tmp_path: Path) -> None:
    cache.put("k", b"x" * 300_000)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with cache.start("get", "k", "-o", fifo) as process:
        assert fifo.read_bytes() == b"x" * 300_000
        assert process.wait(TIMEOUT_S) == 0
    assert fifo.is_fifo()


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(cache: Cache) -> None:
    with cache.start("put", "k", "-") as process:
        assert process.stdin is not None
        process.stdin.write(b"half of it")
        process.stdin.flush()
        wait_until(lambda: cache.json("locks"), "the writer holds its lock")
        process.send_signal(signal.SIGKILL)
    assert cache.run("get", "k", code=None).stdout == b""
    assert cache.listed() == []


# -- keys


def test_hostile_keys_are_keys_like_others(cache: Cache) -> None:
    for number, key in enumerate(HOSTILE_KEYS):
        cache.put(key, b"content %d" % number)
    assert sorted(cache.listed()) == sorted(HOSTILE_KEYS)
    listed = cache.run("ls").stdout
    assert len(set(listed.splitlines())) == len(HOSTILE_KEYS)
    assert not any(byte < 32 and byte != 10 for byte in listed), "control characters reach the terminal"
    listed.decode()
    for number, key in enumerate(HOSTILE_KEYS):
        assert cache.get(key) == b"content %d" % number
        assert cache.run("get", "--key-hex", key.hex()).stdout == b"content %d" % number
        assert not any(byte < 32 and byte != 10 for byte in cache.run("stat", "--", key).stdout)
    outside = [
        path for path in cache.directory.parent.rglob("*") if path.is_file() and cache.directory not in path.parents
    ]
    assert outside == []
    cache.run("rm", "--", *HOSTILE_KEYS)
    assert cache.listed() == []


def test_bytes_that_no_command_line_takes_can_be_written_in_hex(cache: Cache) -> None:
    cache.run("put", "--key-hex", "006100", input=b"nul")
    assert cache.json("ls")[0]["key"] == "\0a\0"
    assert cache.run("ls").stdout == b"\\0a\\0\n"
    assert cache.run("get", "--key-hex", "006100").stdout == b"nul"
    cache.run("rm", "--key-hex", "006100")
    assert "two hex digits" in cache.fails("get", "--key-hex", "0", code=2)


@pytest.mark.parametrize("key", ["", "k" * 4097], ids=["empty", "too long"])
def test_what_is_no_key_is_refused_everywhere(cache: Cache, key: str) -> None:
    for subcommand in ("get", "put", "stat", "rm"):
        cache.fails(subcommand, key, code="bad-key")
    assert cache.listed() == []


# -- ls and stat


def test_ls_sorts_limits_and_filters(cache: Cache) -> None:
    for key, size in (("b/2", 10), ("a/1", 30), ("b/1", 20)):
        cache.put(key, b"x" * size)
    assert cache.run("ls").stdout == b"a/1\nb/1\nb/2\n"
    assert cache.run("ls", "--sort", "size").stdout == b"a/1\nb/1\nb/2\n"
    assert cache.run("ls", "--sort", "age").stdout == b"b/2\na/1\nb/1\n"
    assert cache.run("ls", "--sort", "age", "--reverse", "--limit", 1).stdout == b"b/1\n"
    assert cache.run("ls", "--prefix", "b/").stdout == b"b/1\nb/2\n"
    assert [row["size"] for row in cache.json("ls", "--prefix", "b/")] == [20, 10]
    table = cache.run("ls", "-l").stdout.decode().splitlines()
    assert table[0].split() == ["SIZE", "AGE", "USED", "EXPIRES", "FENCE", "KEY"]
    assert table[1].endswith("a/1") and "30 B" in table[1]


def test_an_empty_cache_lists_nothing(cache: Cache) -> None:
    assert cache.run("ls").stdout == b""
    assert cache.json("ls") == []
    told = cache.json("stat")[0]
    assert (told["entries"], told["bytes"]) == (0, 0)


def test_stat_tells_about_the_cache(cache: Cache) -> None:
    cache.put("a", b"12345")
    cache.put("b", b"123")
    told = cache.json("stat")[0]
    assert (told["entries"], told["bytes"], told["writers"]) == (2, 8, 0)
    assert told["limits"]["max_bytes"] is None
    text = cache.run("stat").stdout.decode()
    assert "entries       : 2\n" in text
    assert "(8 bytes)" in text


def test_stat_of_a_missing_entry_fails_in_words_and_in_json(cache: Cache) -> None:
    assert "no entry nothing" in cache.fails("stat", "nothing", code="missing")
    said = json.loads(cache.fails("stat", "--json", "nothing", code="missing"))
    assert said["code"] == "missing"


def test_refusals_are_json_when_json_is_asked_for(cache: Cache) -> None:
    expected = {"code": "missing", "error": "there is no entry k", "key": "k"}
    for words in (["get", "--json", "k", "-o", "/dev/null"], ["stat", "--json", "k"]):
        assert json.loads(cache.fails(*words, code="missing")) == expected
    assert "--output" in cache.fails("get", "--json", "k", code=2)


def test_refusals_name_what_was_typed(cache: Cache) -> None:
    """The subcommand and its options, not the methods and arguments of the library."""
    for subcommand in ("get", "stat", "rm"):
        assert cache.fails(subcommand, "nope", code="missing") == "redgrease: there is no entry nope\n"
    cache.put("a")
    said = cache.fails("put", "a", code="exists")
    assert said.startswith('redgrease: put "a": the entry exists already') and "--replace" in said
    with cache.start("put", "b") as writer:
        wait_until(lambda: cache.json("locks"), "the writer is at work")
        said = cache.fails("put", "b", code="busy")
        assert said.startswith('redgrease: put "b": ') and "--timeout" in said
        said = cache.fails("put", "--timeout", "0.1", "b", code="timeout")
        assert "--timeout" in said and "redgrease cache locks" in said
        writer.kill()


# -- rm, evict and clear


def test_rm_removes_what_is_there_and_tells_what_is_not(cache: Cache) -> None:
    cache.put("a")
    cache.put("b")
    done = cache.run("rm", "a", "nothing", "b", code="missing")
    assert b"no entry nothing" in done.stderr
    assert cache.listed() == []
    cache.run("rm", "--force", "a")
    cache.put("a")
    assert cache.json("rm", "--force", "a", "b") == [{"key": "a", "removed": True}, {"key": "b", "removed": False}]


def test_evict_removes_by_prefix_and_a_dry_run_only_tells(cache: Cache) -> None:
    for key in ("tmp/1", "tmp/2", "keep"):
        cache.put(key, b"x" * 100)
    done = cache.run("evict", "--prefix", "tmp/", "--dry-run")
    assert sorted(done.stdout.splitlines()) == [b"tmp/1", b"tmp/2"]
    assert b"would evict 2 entries, 200 B" in done.stderr
    assert len(cache.listed()) == 3
    assert cache.json("evict", "--prefix", "tmp/")[0]["entries"] == 2
    assert cache.listed() == [b"keep"]
    assert cache.json("evict", "--older-than", "1h")[0]["entries"] == 0
    assert cache.json("evict", "--older-than", "0")[0]["entries"] == 1


def test_evict_to_a_size_takes_what_was_used_least_recently(cache: Cache) -> None:
    for key in ("a", "b", "c", "d"):
        cache.put(key, b"x" * 1000)
    cache.get("a")
    cache.run("evict", "--to-bytes", "2kB")
    assert cache.json("stat")[0]["bytes"] <= 2000
    assert b"a" in cache.listed()
    assert b"b" not in cache.listed()


@pytest.mark.parametrize(
    "conditions",
    [
        "--to-bytes 3kB",
        "--idle-for 0",
        "--to-bytes 3kB --idle-for 0",
        "--to-bytes 0 --idle-for 1h",
        "--to-bytes 5kB --older-than 0",
        "--older-than 0",
        "--prefix a",
        "--prefix a --to-bytes 1kB",
        "--prefix a --older-than 1h",
    ],
)
def test_a_dry_run_lists_what_would_go(cache: Cache, conditions: str) -> None:
    for key in ("a1", "b1", "a2", "b2", "a3", "b3"):
        cache.put(key, b"x" * 1000)
    before = set(cache.listed())
    dry = cache.json("evict", "--dry-run", *conditions.split())[0]
    assert set(cache.listed()) == before
    assert cache.json("evict", *conditions.split())[0]["entries"] == dry["entries"]
    assert before - set(cache.listed()) == {key.encode() for key in dry["keys"]}


def test_clear_needs_a_yes_when_nobody_can_be_asked(cache: Cache) -> None:
    cache.put("a")
    assert "--yes" in cache.fails("clear", code=2)
    assert cache.listed() == [b"a"]
    assert cache.json("clear", "--yes") == [{"entries": 1}]
    assert cache.listed() == []


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)], ids=["no", "nothing", "yes"])
def test_clear_asks_on_a_terminal(cache: Cache, answer: bytes, left: int) -> None:
    cache.put("a")
    master, slave = pty.openpty()
    try:
        line = cache.line("clear")
        process = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave, env=clean_environment())
        os.close(slave)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(master, 1000)
        assert b"Remove 1 entry" in seen
        os.write(master, answer)
        assert process.wait(TIMEOUT_S) == (1 if left else 0)
    finally:
        os.close(master)
    assert len(cache.listed()) == left


# -- configure


NO_LIMITS = {
    "max_bytes": None,
    "max_entries": None,
    "max_entry_bytes": None,
    "min_free_bytes": None,
    "max_age": None,
    "max_idle": None,
    "low_mark": 0.9,
}


def test_configure_changes_what_is_named_and_keeps_the_rest(cache: Cache) -> None:
    assert cache.json("configure") == [NO_LIMITS]
    told = cache.json("configure", "--max-bytes", "1MiB", "--max-idle", "1.5h", "--low-mark", "0.8")
    assert told == [NO_LIMITS | {"max_bytes": 1 << 20, "max_idle": 5400, "low_mark": 0.8}]
    told = cache.json("configure", "--max-entries", 7, "--max-entry-bytes", "10kB", "--max-age", "2d")
    limits = NO_LIMITS | {"max_bytes": 1 << 20, "max_idle": 5400, "low_mark": 0.8}
    limits |= {"max_entries": 7, "max_entry_bytes": 10_000, "max_age": 172_800}
    assert told == cache.json("configure") == [limits]
    assert cache.json("stat")[0]["limits"] == limits
    # A small limit: a disk that is nearly full must not matter.
    told = cache.json("configure", "--max-bytes", "none", "--max-idle", 0, "--max-age", "0s", "--min-free-bytes", "1kB")
    assert told == [limits | {"max_bytes": None, "max_idle": None, "max_age": None, "min_free_bytes": 1000}]


def test_configured_limits_are_shown_as_a_table_and_hold(cache: Cache) -> None:
    done = cache.run("configure", "--max-bytes", "3kB", "--max-entry-bytes", "2KiB", "--max-age", "90s")
    assert done.stderr == b""
    assert [line.split(maxsplit=1) for line in done.stdout.decode().splitlines()] == [
        ["LIMIT", "VALUE"],
        ["max_bytes", "3000 (3.0 kB)"],
        ["max_entries", "none"],
        ["max_entry_bytes", "2048 (2.0 kB)"],
        ["min_free_bytes", "none"],
        ["max_age", "90 s"],
        ["max_idle", "none"],
        ["low_mark", "0.9"],
    ]
    assert "--max-entry-bytes" in cache.fails("put", "large", code="too-large", input=b"x" * 2049)
    for number in range(5):
        cache.put(f"k{number}", b"x" * 1000)
    assert cache.json("stat")[0]["bytes"] <= 3000
    cache.run("configure", "--max-entry-bytes", "none")
    cache.put("large", b"x" * 2049)


def test_limits_that_make_no_sense_are_refused_and_change_nothing(cache: Cache) -> None:
    cache.run("configure", "--max-entries", 7)
    for words, said in (
        (("--max-bytes", "18446744073709551615"), "max_bytes of 18446744073709551615; it may be up to"),
        (("--max-idle", "99999999h"), "max_idle of 359999996400 s; it may be up to"),
    ):
        assert said in cache.fails("configure", *words, code="bad-config")
        refusal = json.loads(cache.fails("configure", "--json", *words, code="bad-config"))
        assert refusal["code"] == "bad-config" and said in refusal["error"]
    for flag, wrong, fix in (
        ("--max-bytes", "many", "10MB"),
        ("--max-bytes", "0.4", "at least 1 byte"),
        ("--max-entries", "1e3", "such as 10000"),
        ("--max-age", "never", "none is no limit"),
        ("--max-idle", "0.1us", "1us"),
        ("--low-mark", "1.5", "from 0 to 1"),
        ("--low-mark", "none", "from 0 to 1"),
    ):
        said = cache.fails("configure", flag, wrong, code=2)
        assert f"'{wrong}'" in said and flag in said and fix in said
    assert cache.json("configure") == [NO_LIMITS | {"max_entries": 7}]


# -- verify, repair, doctor


def test_a_sound_cache_is_verified(cache: Cache) -> None:
    cache.put("a", b"12345")
    for depth in ([], ["--digests"]):
        done = cache.run("verify", *depth)
        assert done.stdout == b"" and b"1 entry in 1 file, 5 B: all agree" in done.stderr
    assert cache.json("verify", "--digests")[0]["problems"] == []
    cache.run("repair", "--digests")
    assert cache.get("a") == b"12345"


def the_file_of(cache: Cache, content: bytes) -> Path:
    found = [path for path in cache.files() if path.read_bytes() == content]
    assert len(found) == 1, cache.files()
    return found[0]


def damage(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def test_a_damaged_file_is_found_by_its_digest_and_repaired(cache: Cache) -> None:
    cache.put("good", b"good content")
    cache.put("bad", b"bad content")
    damage(the_file_of(cache, b"bad content"))
    problems = cache.json("verify", "--digests", code=1)[0]["problems"]
    assert [problem["kind"] for problem in problems] == ["digest-mismatch"]
    assert b"digest-mismatch" in cache.run("verify", "--digests", code=1).stdout
    problems = cache.json("repair", "--digests")[0]["problems"]
    assert problems and all(problem["repaired"] for problem in problems)
    cache.run("verify", "--digests")
    assert cache.get("good") == b"good content"
    cache.fails("get", "bad", code="missing")
    cache.put("bad", b"new content")


def test_a_damaged_file_is_never_given_out(cache: Cache) -> None:
    cache.put("bad", b"bad content")
    damage(the_file_of(cache, b"bad content"))
    done = cache.run("get", "bad", code="corrupt")
    assert done.stdout == b""


def test_a_deleted_file_is_found_and_repaired(cache: Cache) -> None:
    cache.put("a", b"here today")
    the_file_of(cache, b"here today").unlink()
    problems = cache.json("verify", code=1)[0]["problems"]
    assert "missing-file" in {problem["kind"] for problem in problems}
    cache.run("repair")
    cache.run("verify", "--digests")
    assert cache.json("stat")[0]["bytes"] == 0
    cache.put("a", b"and back")


def test_doctor_finds_a_sound_cache_sound(cache: Cache) -> None:
    cache.put("a")
    rows = cache.json("doctor")
    assert rows
    assert {row["level"] for row in rows} <= {"ok", "warning"}
    lines = cache.run("doctor").stdout.decode().splitlines()
    assert len(lines) == len(rows)


def test_a_policy_that_evicts_the_index_is_warned_of(coordinator: Server, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", f"redis://127.0.0.1:{coordinator.port}/0", namespace=f"cli-{next(_numbers)}")
    cache.put("a", b"content")
    assert b"warning" not in cache.run("ls").stderr
    with coordinator.client() as client:
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", "1gb")
            assert b"warning: the server evicts keys" in cache.run("ls").stderr
            assert cache.run("ls", "--json").stderr == b""
            rows = map(json.loads, cache.run("doctor", "--json", code=1).stdout.splitlines())
            assert {row["name"]: row["level"] for row in rows}["maxmemory-policy"] == "error"
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")


# -- locks and top


def test_locks_shows_the_writer_and_others_are_told_to_wait(cache: Cache) -> None:
    with cache.start("put", "k", "-") as process:
        assert process.stdin is not None
        process.stdin.write(b"half")
        process.stdin.flush()
        lock = wait_until(lambda: cache.json("locks"), "the writer holds its lock")[0]
        assert (lock["key"], lock["kind"]) == ("k", "writer")
        assert lock["owner"].endswith(f":{process.pid}")
        assert lock["left"] > 0
        assert b"writer" in cache.run("locks").stdout
        cache.fails("put", "k", code="busy", input=b"other")
        cache.fails("get", "k", code="busy")
        assert "locks" in cache.fails("get", "k", "--timeout", "50ms", code="timeout")
        waiting = cache.start("get", "k", "--timeout", "30s")
        assert process.communicate(b" and half")[1] == b""
        assert process.returncode == 0
        content, said = waiting.communicate(timeout=TIMEOUT_S)
        assert (content, said, waiting.returncode) == (b"half and half", b"", 0)
    assert cache.json("locks") == []
    assert cache.run("locks").stdout == b""


def test_a_broken_lock_is_lost_to_its_holder(cache: Cache) -> None:
    with cache.start("put", "k", "-") as process:
        assert process.stdin is not None
        process.stdin.write(b"mine")
        process.stdin.flush()
        wait_until(lambda: cache.json("locks"), "the writer holds its lock")
        assert cache.json("locks", "--break", "k") == [{"key": "k", "broken": True}]
        cache.put("k", b"yours")
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (cache.codes["lease-lost"], cache.codes["exists"])
    assert cache.get("k") == b"yours"
    assert "no lock is held" in cache.fails("locks", "--break", "k", code=1)


def test_top_prints_a_line_per_look(cache: Cache) -> None:
    cache.put("a", b"12345")
    lines = cache.run("top", "--count", 3, "--interval", "10ms").stdout.decode().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("entries=1 bytes=5 ")
    assert "entries/s=+0.0" in lines[2]
    rows = cache.json("top", "--count", 2, "--interval", "10ms")
    assert [row["bytes"] for row in rows] == [5, 5]
    assert rows[0]["bytes_per_second"] is None and rows[1]["bytes_per_second"] == 0


def test_top_ends_on_ctrl_c(cache: Cache) -> None:
    with cache.start("top", "--interval", "10ms") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"entries=")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0


def test_top_paints_a_picture_on_a_terminal(cache: Cache) -> None:
    cache.put("a")
    master, slave = pty.openpty()
    try:
        line = cache.line("top", "--count", 1)
        process = subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave, env=clean_environment())
        os.close(slave)
        seen = b""
        while b"writers" not in seen:
            seen += os.read(master, 1000)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        os.close(master)
    assert seen.startswith(b"\x1b[H") and b"entries" in seen


# -- usage errors


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["ls", "--colour"],
        ["get"],
        ["put"],
        ["rm"],
        ["evict"],
        ["evict", "--to-bytes", "many"],
        ["evict", "--older-than", "-1"],
        ["configure", "--max-bytes"],
        ["configure", "--max-entries", "-1"],
        ["configure", "--max-entries", "1", "--max-entries", "2"],
        ["configure", "100"],
        ["put", "k", "--ttl", "0"],
        ["put", "k", "--meta", "novalue"],
        ["ls", "--sort", "colour"],
        ["top", "--interval", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(tmp_path: Path, words: list[str]) -> None:
    line = [COMMAND, "cache", *words[:1], "--dir", tmp_path, *words[1:]]
    done = subprocess.run(line, capture_output=True, timeout=TIMEOUT_S, env=clean_environment())
    assert (done.returncode, done.stdout) == (2, b""), done
    assert b"error:" in done.stderr and b"--help" in done.stderr


def test_a_directory_is_needed_and_can_come_from_the_environment(cache: Cache) -> None:
    cache.put("a")
    environment = clean_environment()
    done = subprocess.run([COMMAND, "cache", "ls"], capture_output=True, timeout=TIMEOUT_S, env=environment)
    assert done.returncode == 2 and b"--dir" in done.stderr
    environment |= {"REDGREASE_CACHE_DIR": str(cache.directory), "REDGREASE_CACHE_NAMESPACE": cache.namespace}
    environment |= {"REDGREASE_CACHE_URL": cache.url or ""}
    done = subprocess.run([COMMAND, "cache", "ls"], capture_output=True, timeout=TIMEOUT_S, env=environment)
    assert done.stdout == b"a\n", done


def test_a_misspelt_directory_is_not_made(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "misspelt", None)
    for words in (
        ["ls"],
        ["stat"],
        ["get", "k"],
        ["rm", "k"],
        ["verify"],
        ["locks"],
        ["top"],
        ["doctor"],
        ["clear", "--yes"],
        ["configure"],
        ["configure", "--max-entries", "7"],
    ):
        assert str(cache.directory) in cache.fails(*words, code="bad-config")
        json_words = ["--json", "-o", os.devnull] if words[0] == "get" else ["--json"]
        said = json.loads(cache.fails(words[0], *json_words, *words[1:], code="bad-config"))
        assert said["code"] == "bad-config" and "--dir" in said["error"]
    assert not cache.directory.exists()


def test_a_namespace_that_is_none_is_refused(cache: Cache) -> None:
    for namespace in ("", "a*"):
        for words in (["ls"], ["put", "k"]):
            wrong = Cache(cache.directory, cache.url, namespace=namespace)
            said = wrong.fails(*words, code="bad-config")
            assert said.startswith(f'redgrease: {words[0]}: namespace "{namespace}"'), said


def test_an_empty_namespace_in_the_environment_is_none(tmp_path: Path) -> None:
    environment = clean_environment() | {"REDGREASE_CACHE_DIR": str(tmp_path / "c"), "REDGREASE_CACHE_NAMESPACE": ""}
    line = [COMMAND, "cache", "put", "k", "/dev/null"]
    done = subprocess.run(line, capture_output=True, timeout=TIMEOUT_S, env=environment)
    assert done.returncode == 0, done


def test_an_empty_directory_does_not_become_a_cache_by_being_looked_at(tmp_path: Path) -> None:
    cache = Cache(tmp_path, None)
    looking = (["ls"], ["get", "k"], ["rm", "k"], ["evict", "--to-bytes", "0"], ["clear", "--yes"], ["configure"])
    for words in (*looking, ["configure", "--max-entries", "7"]):
        assert str(tmp_path) in cache.fails(*words, code="bad-config")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as somebody else")
def test_one_may_look_who_may_not_write(cache: Cache) -> None:
    cache.put("k", b"seen by the group")
    shared = Path(tempfile.mkdtemp(prefix="redgrease-e2e-"))
    try:
        shared.chmod(0o755)
        command = shutil.copy(COMMAND, shared / "redgrease")
        cache.directory.rename(shared / "cache")
        cache.directory = shared / "cache"

        def run_as_nobody(*words: str) -> subprocess.CompletedProcess[bytes]:
            line = [command, *cache.line(*words)[1:]]
            ids = {"user": 65534, "group": 0, "extra_groups": []}
            return subprocess.run(line, capture_output=True, timeout=TIMEOUT_S, env=clean_environment(), **ids)

        for words, expected in ((["ls"], b"k\n"), (["get", "k"], b"seen by the group"), (["locks"], b"")):
            done = run_as_nobody(*words)
            assert (done.returncode, done.stdout) == (0, expected), done
        assert run_as_nobody("configure").stdout == cache.run("configure").stdout != b""
        putting = (["put", "k2", "/etc/hostname"], ["put", "--replace", "k", "/etc/hostname"])
        for words in (*putting, ["configure", "--max-entries", "1"]):
            assert run_as_nobody(*words).returncode == cache.codes["denied"]
        assert cache.get("k") == b"seen by the group"
    finally:
        shutil.rmtree(shared)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    port = free_port()
    cache = Cache(tmp_path / "cache", f"redis://:secret@127.0.0.1:{port}/0")
    for words in (["put", "k"], ["put", "k", "--adopt"]):
        said = cache.fails(*words, code="unavailable")
        assert str(port) in said and "secret" not in said


def test_a_directory_belongs_to_one_cache(coordinator: Server, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{coordinator.port}/0"
    mine = Cache(tmp_path / "cache", url, namespace=f"cli-{next(_numbers)}")
    mine.put("a", b"kept")
    other = Cache(mine.directory, url, namespace=f"cli-{next(_numbers)}")
    said = other.fails("ls", code="bad-config")
    assert said.startswith("redgrease: ls: ") and said.endswith("with --adopt\n"), said
    assert other.run("ls", "--adopt").stdout == b"a\n"
    assert other.get("a") == b"kept"


def test_a_reader_that_goes_away_is_no_error(cache: Cache) -> None:
    cache.put("k", b"x" * 1_000_000)
    with cache.start("get", "k") as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None and process.stderr.read() == b""


def test_every_refusal_has_its_own_exit_code() -> None:
    listed = subprocess.run([COMMAND, "cache", "codes"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    codes = dict(reversed(line.split()) for line in listed.stdout.splitlines())
    assert {"missing", "exists", "busy", "corrupt", "unavailable", "bad-key"} <= set(codes)
    assert "0" not in codes.values() and "1" not in codes.values()
