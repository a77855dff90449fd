"""The interface of the proof of concept: its names, its outcomes, its key rule."""

from __future__ import annotations

import inspect
import threading
import time

import pytest
from redgrease.filecache import CacheBusyError, RedisFileCache

from .filecache_tools import DEADLINE


@pytest.fixture
def cache(tmp_path):
    cache = RedisFileCache(tmp_path / "parent" / "cache", redis_url=None)
    yield cache
    cache.close()


def test_the_constructor():
    parameters = inspect.signature(RedisFileCache).parameters
    assert [(name, parameter.default) for name, parameter in list(parameters.items())[:4]] == [
        ("cache_dir", "/tmp/poc-cache"),
        ("redis_url", "redis://localhost:6379/0"),
        ("lock_ttl_ms", 60_000),
        ("namespace", "poc-cache"),
    ]


def test_options_reach_the_cache(tmp_path):
    cache = RedisFileCache(tmp_path, None, 5000, "other", max_bytes=1000)
    assert (cache.cache.namespace, cache.cache.info().limits.max_bytes) == ("other", 1000)
    assert "lease=5.0" in repr(cache)
    assert repr(cache).startswith("RedisFileCache(")
    cache.close()
    for wrong in (0, -1, 1, 10**15):
        with pytest.raises(ValueError, match="lease"):
            RedisFileCache(tmp_path / "x", None, wrong)


def test_write_and_read(cache):
    assert cache.write_bytes_create("a.bin", b"content") is None
    assert cache.read_bytes("a.bin") == b"content"
    with cache.open_for_read("a.bin") as file:
        assert file.read(3) == b"con"
        assert file.read() == b"tent"
    assert file.closed
    with cache.open_for_create("b.bin") as file:
        assert file.write(b"x") == 1
        assert not cache.exists("b.bin")
    assert cache.exists("b.bin")


def test_outcomes(cache):
    for read in (cache.read_bytes, lambda key: cache.open_for_read(key).__enter__()):
        with pytest.raises(FileNotFoundError):
            read("missing")
    cache.write_bytes_create("a", b"1")
    with pytest.raises(FileExistsError):
        cache.write_bytes_create("a", b"2")
    with pytest.raises(FileExistsError), cache.open_for_create("a"):
        raise AssertionError("not reached")
    with cache.open_for_create("b"):
        other = RedisFileCache(cache.cache.directory, None)
        for use in (
            lambda: other.read_bytes("b"),
            lambda: other.write_bytes_create("b", b""),
            lambda: other.open_for_create("b").__enter__(),
        ):
            with pytest.raises(CacheBusyError):
                use()
        other.close()
    assert cache.read_bytes("a") == b"1"


def test_an_exception_in_the_block_publishes_nothing(cache):
    with pytest.raises(ZeroDivisionError), cache.open_for_create("a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not cache.exists("a")
    cache.write_bytes_create("a", b"whole")


@pytest.mark.parametrize("key", ["a/b", "/", ".hidden", ".", "..", "../x"])
def test_the_key_rule(cache, key):
    for use in (
        cache.read_bytes,
        cache.exists,
        lambda key: cache.open_for_read(key).__enter__(),
        lambda key: cache.open_for_create(key).__enter__(),
        lambda key: cache.write_bytes_create(key, b""),
        lambda key: cache.read_bytes_blocking(key, 0),
        lambda key: cache.write_bytes_create_blocking(key, b"", 0),
    ):
        with pytest.raises(ValueError, match="FileCache"):
            use(key)
    with pytest.raises(ValueError):
        cache.read_bytes("")


def test_blocking_calls(cache):
    assert cache.read_bytes_blocking("a", timeout=0) is None
    began = time.monotonic()
    assert cache.read_bytes_blocking("a", timeout=0.1, backoff=0.01) is None
    assert 0.08 < time.monotonic() - began < 5
    read = []
    thread = threading.Thread(target=lambda: read.append(cache.read_bytes_blocking("a", timeout=DEADLINE)))
    thread.start()
    with cache.open_for_create("a") as file:
        old = RedisFileCache(cache.cache.directory, None)
        assert old.read_bytes_blocking("a", timeout=0.05) is None
        assert old.write_bytes_create_blocking("a", b"", timeout=0.05) is False
        assert old.write_bytes_create_blocking("a", b"", timeout=0) is False
        file.write(b"made")
    thread.join(DEADLINE)
    assert read == [b"made"]
    assert old.write_bytes_create_blocking("b", b"", timeout=1.0) is True
    with pytest.raises(FileExistsError):
        old.write_bytes_create_blocking("b", b"", timeout=DEADLINE)
    old.close()
