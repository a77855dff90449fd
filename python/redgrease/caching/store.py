"""Results and leases in the database, from inside a worker.

A result is a hash with the fields of its kind. Keys that hold anything else are never changed. All changes that depend
on a lease are scripts, so they are atomic: only the holder of a lease stores a result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import runtime
from .messages import shown

__all__ = [
    "RELEASE",
    "ForeignKeyError",
    "as_bytes",
    "flat_error",
    "foreign",
    "forget",
    "gears_error",
    "local_tag",
    "milliseconds",
    "native",
    "publish",
    "read",
    "renew",
    "session",
    "touch",
    "usage",
]

#: Number of hash slots of a cluster.
_SLOTS = 16384

_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Releases a lease: its key and its token."""

#: Functions of the scripts that keep the total of a cache in its limit. The index is a sorted set of keys by the time
#: at which they expire, and a hash of their sizes with the total in the field ''.
_INDEX = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function drop(index, key)
  local size = redis.call('HGET', index .. ':sizes', key)
  if size then
    redis.call('HINCRBY', index .. ':sizes', '', -size)
    redis.call('HDEL', index .. ':sizes', key)
  end
  redis.call('ZREM', index, key)
end
"""
#: Stores an entry and releases the lease, if it is still held (an empty token: without a lease). -1: the key holds
#: something else. KEYS: entry, lease. ARGV: token, time to live, number of fields, fields, values, and for a limited
#: total: index, size of the entry, limit.
_PUBLISH = (
    _INDEX
    + """
local token, life, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if token ~= '' and redis.call('GET', KEYS[2]) ~= token then return 0 end
local names, pairs_ = {}, {}
for i = 1, count do
  names[i] = ARGV[3 + i]
  pairs_[2 * i - 1], pairs_[2 * i] = ARGV[3 + i], ARGV[3 + count + i]
end
local old = redis.pcall('HMGET', KEYS[1], unpack(names))
local is_ours = not old.err
for i = 1, count do is_ours = is_ours and old[i] end
if not is_ours and redis.call('EXISTS', KEYS[1]) == 1 then
  if token ~= '' then redis.call('DEL', KEYS[2]) end
  return -1
end
redis.call('DEL', KEYS[1])
if token ~= '' then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[1], unpack(pairs_))
redis.call('PEXPIRE', KEYS[1], life)
local index = ARGV[4 + 2 * count]
if index then
  local size, limit, sizes = tonumber(ARGV[5 + 2 * count]), tonumber(ARGV[6 + 2 * count]), index .. ':sizes'
  local now = clock()
  drop(index, KEYS[1])
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 1000)) do drop(index, key) end
  while tonumber(redis.call('HGET', sizes, '') or 0) + size > limit do
    local first = redis.call('ZRANGE', index, 0, 0)[1]
    if not first then break end
    redis.pcall('DEL', first)
    drop(index, first)
  end
  redis.call('ZADD', index, now + life, KEYS[1])
  redis.call('HSET', sizes, KEYS[1], size)
  redis.call('HINCRBY', sizes, '', size)
  for _, key in ipairs({index, sizes}) do
    if redis.call('PTTL', key) < life then redis.call('PEXPIRE', key, life) end
  end
end
return 1
"""
)
#: Restarts the time to live of an entry. KEYS: entry. ARGV: time to live, index.
_TOUCH = """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 1 then
  local time = redis.call('TIME')
  redis.call('ZADD', ARGV[2], 'XX', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1], KEYS[1])
  for _, key in ipairs({ARGV[2], ARGV[2] .. ':sizes'}) do
    if redis.call('PTTL', key) < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
  end
end
return 1
"""
#: Removes an entry with its lease. KEYS: entry, lease. ARGV: number of fields, fields, index or ''. -1: something else.
_FORGET = (
    _INDEX
    + """
local names = {}
for i = 1, tonumber(ARGV[1]) do names[i] = ARGV[1 + i] end
local old = redis.pcall('HMGET', KEYS[1], unpack(names))
local is_ours = not old.err
for i = 1, #names do is_ours = is_ours and old[i] end
redis.call('DEL', KEYS[2])
if not is_ours then return redis.call('EXISTS', KEYS[1]) == 1 and -1 or 0 end
local index = ARGV[2 + #names]
if index ~= '' then drop(index, KEYS[1]) end
return redis.call('DEL', KEYS[1])
"""
)


class ForeignKeyError(Exception):
    """A key holds something that is not of this cache."""


def foreign(key: str, what: str, option: str) -> str:
    """Error text for a key that holds something else than `what`; `option` decides on the names of keys."""
    return f"{shown(key)} is not {what} of this cache, and is not changed: delete it, or register with another {option}"


def native(name: str) -> Any:
    """A name of the server's module."""
    return getattr(sys.modules["redisgears"], name)


def session() -> Any:
    """The session that this thread belongs to."""
    return native("getGearsSession")()


def gears_error() -> Any:
    """The exception of error replies of commands."""
    return native("GearsError")


def flat_error(text: str) -> NoReturn:
    """End the request with exactly this error reply."""
    raise native("GearsFlatError")(text)


def milliseconds(seconds: float) -> str:
    """A time for a command."""
    return str(max(1, round(seconds * 1000)))


def as_bytes(value: Any) -> bytes:
    """The bytes of a reply, which is text where it is UTF-8."""
    return value if isinstance(value, bytes) else str(value).encode()


def read(key: str, fields: Sequence[str]) -> list[Any] | None:
    """The fields of the entry at a key; `None` if there is none.

    Raises:
        ForeignKeyError: the key holds something else.
    """
    # Twice: it may have been stored between the two look-ups.
    for _ in range(2):
        try:
            values: list[Any] = runtime.execute("HMGET", key, *fields)
        except gears_error() as refusal:
            if "non local key" in str(refusal):
                _moved(key)
            if "WRONGTYPE" in str(refusal):
                raise ForeignKeyError(key) from None
            raise
        if None not in values:
            return values
        if str(runtime.execute("EXISTS", key)) != "1":
            return None
    raise ForeignKeyError(key)


def publish(
    key: str, lease: str, token: str, seconds: float, content: dict[str, Any], limit: tuple[str, int, int] | None
) -> int:
    """Store an entry and release its lease.

    Args:
        key: key of the entry.
        lease: key of the lease.
        token: the lease's token; ``""``: without a lease.
        seconds: time to live.
        content: fields and values.
        limit: name of the cache's index, size of this entry, and limit of the total; `None`: no limit.

    Returns:
        1, or 0 if the lease is lost (another worker stores a newer entry), or -1 if the key holds something else.
    """
    bound = () if limit is None else (limit[0], str(limit[1]), str(limit[2]))
    words = (token, milliseconds(seconds), str(len(content)), *content, *content.values(), *bound)
    return int(runtime.execute("EVAL", _PUBLISH, "2", key, lease, *words))


def renew(lease: str, token: str, seconds: float) -> None:
    """Renew a lease that is still held."""
    runtime.execute("EVAL", _RENEW, "1", lease, token, milliseconds(seconds))


def touch(key: str, seconds: float, index: str | None = None) -> None:
    """Restart the time to live of an entry."""
    if index is None:
        runtime.execute("PEXPIRE", key, milliseconds(seconds))
    else:
        runtime.execute("EVAL", _TOUCH, "1", key, milliseconds(seconds), index)


def forget(key: str, lease: str, fields: Sequence[str], index: str | None = None) -> bool:
    """Remove an entry, and its lease, so that a run that began before stores nothing; return whether it was there.

    Raises:
        ForeignKeyError: the key holds something else.
    """
    found = int(runtime.execute("EVAL", _FORGET, "2", key, lease, str(len(fields)), *fields, index or ""))
    if found < 0:
        raise ForeignKeyError(key)
    return bool(found)


def usage(index: str) -> tuple[int, int]:
    """Number and total size of the entries in an index."""
    total = runtime.execute("HGET", f"{index}:sizes", "")
    return int(runtime.execute("ZCARD", index)), int(total or 0)


def local_tag() -> str:
    """A text whose slot this shard serves; the same as long as its slots are. Without a cluster any text is."""
    try:
        me = runtime.execute("CLUSTER", "MYID")
    except gears_error():
        return "0"
    ranges = [(first, last) for first, last, owner, *_ in runtime.execute("CLUSTER", "SLOTS") if owner[2] == me]
    for number in range(_SLOTS):
        slot = runtime.execute("CLUSTER", "KEYSLOT", number)
        if any(first <= slot <= last for first, last in ranges):
            return str(number)
    return "0"


def _moved(key: str) -> NoReturn:
    """Redirect a client of a cluster to the owner of a key, with the cluster's error replies."""
    slot = runtime.execute("CLUSTER", "KEYSLOT", key)
    for first, last, owner, *_ in runtime.execute("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            host, port, node = owner[:3]
            if node == runtime.execute("CLUSTER", "MYID"):
                flat_error(f"TRYAGAIN slot {slot} is just being moved")
            flat_error(f"MOVED {slot} {host or ''}:{port}")
    flat_error(f"CLUSTERDOWN slot {slot} is not served")
