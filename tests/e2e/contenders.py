"""Our cache and the naive one with the same few methods, so that one scenario runs on both.

Imported by the tests and by the processes that they start, so it imports nothing but the caches.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from redgrease.filecache import CacheError, FileCache

sys.path.append(str(Path(__file__).resolve().parents[2] / "benches"))
sys.path.append(str(Path(__file__).resolve().parent))

from filecache_naive import CacheBusyError as NaiveBusyError
from naive_bounded import NaiveBoundedCache


class Contender(Protocol):
    """The operations of scenarios."""

    def read(self, key: str) -> bytes: ...
    def reading(self, key: str) -> contextlib.AbstractContextManager[BinaryIO]: ...
    def read_waiting(self, key: str, timeout: float) -> bytes: ...
    def create(self, key: str, content: bytes) -> None: ...
    def creating(self, key: str) -> contextlib.AbstractContextManager[BinaryIO]: ...
    def make(self, key: str, producer: Callable[[], bytes], timeout: float) -> bytes: ...

    def outcome(self, call: Callable[[], object]) -> str:
        """`ok`, or a word for the exception."""
        ...

    def readers(self, key: str) -> int:
        """Leases or locks of readers that are currently valid."""
        ...

    def indexed(self) -> dict[str, int]:
        """Sizes in the index by key."""
        ...

    def members(self) -> set[str]:
        """Keys in the order of use."""
        ...

    def total(self) -> int:
        """The sum that evictions are based on."""
        ...

    def evict_all(self) -> None: ...
    def maintain(self) -> None: ...
    def close(self) -> None: ...


class Ours:
    """`redgrease.filecache`."""

    def __init__(self, directory: str | os.PathLike[str], url: str | None, **options: Any) -> None:
        options.pop("purge_ms", None)
        options.pop("evicting_ms", None)
        settings = {"command_timeout": 20.0, "connect_timeout": 20.0, "maintenance": None, **options}
        self.cache = FileCache(directory, url, **settings)

    def read(self, key: str) -> bytes:
        return self.cache.read(key)

    def reading(self, key: str) -> Any:
        return self.cache.open(key)

    def read_waiting(self, key: str, timeout: float) -> bytes:
        return self.cache.read(key, timeout)

    def create(self, key: str, content: bytes) -> None:
        self.cache.write(key, content)

    def creating(self, key: str) -> Any:
        return self.cache.create(key)

    def make(self, key: str, producer: Callable[[], bytes], timeout: float) -> bytes:
        with self.cache.get_or_create(key, producer, timeout=timeout) as got:
            return got.read()

    def outcome(self, call: Callable[[], object]) -> str:
        try:
            call()
        except CacheError as error:
            return error.code
        return "ok"

    def readers(self, key: str) -> int:
        locks = self.cache.locks()
        return sum(lock.kind == "reader" and lock.key == key.encode() and lock.left > 0 for lock in locks)

    def indexed(self) -> dict[str, int]:
        return {stat.key.decode(): stat.size for stat in self.cache.entries()}

    def members(self) -> set[str]:
        strays = [problem for problem in self.cache.verify("index").problems if problem.kind == "stray-member"]
        return set(self.indexed()) | {problem.message for problem in strays}

    def total(self) -> int:
        return self.cache.info().bytes

    def evict_all(self) -> None:
        self.cache.evict(to_bytes=0)

    def maintain(self) -> None:
        self.cache.maintain()

    def close(self) -> None:
        self.cache.close()


class Naive:
    """The naive protocol; options that it does not have are ignored."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        url: str,
        *,
        namespace: str = "poc-cache",
        lease: float = 60.0,
        max_bytes: int = 0,
        purge_ms: int = 2000,
        evicting_ms: int = 1500,
        **_: Any,
    ) -> None:
        self.cache = NaiveBoundedCache(
            directory, url, round(lease * 1000), namespace, max_bytes, purge_ms=purge_ms, evicting_ms=evicting_ms
        )

    def read(self, key: str) -> bytes:
        return self.cache.read_bytes(key)

    def reading(self, key: str) -> Any:
        return self.cache.open_for_read(key)

    def read_waiting(self, key: str, timeout: float) -> bytes:
        end = time.monotonic() + timeout
        while True:
            try:
                return self.cache.read_bytes(key)
            except (NaiveBusyError, FileNotFoundError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def create(self, key: str, content: bytes) -> None:
        self.cache.write_bytes_create(key, content)

    def creating(self, key: str) -> Any:
        return self.cache.open_for_create(key)

    def make(self, key: str, producer: Callable[[], bytes], timeout: float) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self.cache.read_bytes(key)
        content = producer()
        with contextlib.suppress(FileExistsError, NaiveBusyError):
            self.cache.write_bytes_create(key, content)
        return self.read_waiting(key, timeout)

    def outcome(self, call: Callable[[], object]) -> str:
        try:
            call()
        except FileExistsError:
            return "exists"
        except FileNotFoundError:
            return "missing"
        except NaiveBusyError:
            return "busy"
        except Exception as error:
            return getattr(error, "code", None) or type(error).__name__
        return "ok"

    def readers(self, key: str) -> int:
        return int(self.cache.redis.get(self.cache._locks(key)[1]) or 0)

    def indexed(self) -> dict[str, int]:
        return {key.decode(): int(size) for key, size in self.cache.redis.hgetall(self.cache.sizes).items()}

    def members(self) -> set[str]:
        return {key.decode() for key in self.cache.redis.zrange(self.cache.used, 0, -1)}

    def total(self) -> int:
        return int(self.cache.redis.get(self.cache.total) or 0)

    def evict_all(self) -> None:
        while self.cache.evict_one():
            pass

    def maintain(self) -> None:
        pass

    def close(self) -> None:
        self.cache.close()


KINDS: dict[str, Any] = {"ours": Ours, "naive": Naive}


def main() -> None:
    """A process that runs a piece of code with a `cache`, prints lines, and waits for lines."""
    import json

    what = json.loads(sys.argv[1])

    def say(line: object) -> None:
        # In a single write: children that it forks may print at the same time.
        os.write(1, f"{line}\n".encode())

    def hear() -> str:
        line = sys.stdin.readline()
        if not line:
            sys.exit("nobody is there any more")
        return line.rstrip("\n")

    if what["user"]:
        # Imported here, not at the start: that user may have no access to the interpreter's directory.
        import redis

        if what["url"]:
            with redis.Redis.from_url(what["url"]) as warm_up:
                warm_up.ping()
        user, group = what["user"]
        os.setgroups([group])
        os.setgid(group)
        os.setuid(user)
    if what["gate"] and what["from_start"]:
        _pass_gate(what)
    try:
        cache = KINDS[what["kind"]](what["directory"], what["url"], **what["options"])
        if what["gate"] and not what["from_start"]:
            _pass_gate(what)
        exec(what["code"], {"cache": cache, "say": say, "hear": hear, "os": os, "time": time})
    except Exception as error:
        say(f"!{type(error).__name__}: {error}")
    else:
        say("done")


def _pass_gate(what: dict[str, Any]) -> None:
    import syscalls

    syscalls.hand_over(what["families"], what["gate"])


if __name__ == "__main__":
    main()
