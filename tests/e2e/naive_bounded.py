"""The naive protocol with a bound: an index of sizes and uses in Redis, and a purge in the writer's own call.

Like `filecache_naive` (in `benches/`), it exists for comparison: the obvious way to bound such a cache, step by step as
it is usually written, so that tests of hazards can show that they find its errors. The index is updated in separate
commands after the lock was released; a read records its use after it released its lock; a process that writes too much
purges, unless another one did so recently.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from filecache_naive import NaiveFileCache
from redis.backoff import NoBackoff
from redis.retry import Retry

# KEYS: writer, readers, evicting. ARGV: milliseconds.
MAY_EVICT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') > 0 then return 0 end
if redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
"""


class NaiveBoundedCache(NaiveFileCache):
    """Files in one directory, with locks and an index in Redis, up to about `max_bytes`."""

    #: Target of a purge below the bound.
    purge_factor = 0.2

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        redis_url: str,
        lock_ttl_ms: int = 60_000,
        namespace: str = "poc-cache",
        max_bytes: int = 0,
        purge_ms: int = 2000,
        evicting_ms: int = 1500,
    ) -> None:
        super().__init__(cache_dir, redis_url, lock_ttl_ms, namespace)
        # One attempt, like its authors' clients; the default would hide lost replies by waiting for seconds.
        self.redis.set_retry(Retry(NoBackoff(), 0))
        self.max_bytes, self.purge_ms, self.evicting_ms = max_bytes, purge_ms, evicting_ms
        self.used, self.sizes, self.total = (f"{namespace}:idx:{name}" for name in ("lru", "size", "total"))
        self.known, self.mutex, self.log = (f"{namespace}:{name}" for name in ("keys:set", "purge:mutex", "evict:log"))
        self._may_evict = self.redis.script_load(MAY_EVICT)

    @contextlib.contextmanager
    def open_for_read(self, key: str) -> Iterator[BinaryIO]:
        with super().open_for_read(key) as file:
            yield file
        self.redis.zadd(self.used, {key: self.now()})

    @contextlib.contextmanager
    def open_for_create(self, key: str) -> Iterator[BinaryIO]:
        with super().open_for_create(key) as file:
            yield file
        size = self._path(key).stat().st_size
        self.redis.hset(self.sizes, key, size)
        self.redis.incrby(self.total, size)
        self.redis.sadd(self.known, key)
        self.redis.zadd(self.used, {key: self.now()})
        self._purge()

    def now(self) -> int:
        """Microseconds of this host's own clock."""
        return time.monotonic_ns() // 1000

    def evicting(self, key: str) -> str:
        """The marker of an eviction in progress."""
        return f"{self.namespace}:lock:evict:{key}"

    def _bytes(self) -> int:
        return int(self.redis.get(self.total) or 0)

    def _purge(self) -> None:
        if self.max_bytes <= 0 or self._bytes() < self.max_bytes:
            return
        if not self.redis.set(self.mutex, "1", nx=True, px=self.purge_ms):
            return
        while self._bytes() > self.max_bytes * (1 - self.purge_factor):
            if not self.evict_one() or not self.redis.set(self.mutex, "1", xx=True, px=self.purge_ms):
                return

    def evict_one(self) -> bool:
        """Evict the least recently used entry; returns whether that succeeded."""
        oldest = self.redis.zrange(self.used, 0, 0)
        if not oldest:
            return False
        key = oldest[0].decode()
        size = self.redis.hget(self.sizes, key)
        if size is None:
            self.redis.zrem(self.used, key)
            self.redis.srem(self.known, key)
            return False
        keys = (*self._locks(key), self.evicting(key))
        if not self.redis.evalsha(self._may_evict, 3, *keys, self.evicting_ms):
            self.redis.zadd(self.used, {key: self.now()})
            return False
        try:
            self._path(key).unlink()
        except OSError:
            self._forget(key, int(size))
            return False
        self._forget(key, int(size))
        self.redis.lpush(self.log, key)
        return True

    def _forget(self, key: str, size: int) -> None:
        self.redis.hdel(self.sizes, key)
        self.redis.decrby(self.total, size)
        self.redis.zrem(self.used, key)
        self.redis.srem(self.known, key)
