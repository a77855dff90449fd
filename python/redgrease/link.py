"""Sending commands to a server: choice of the node, and retries.

Commands of the engine are sent through any redis-py client, without changing it. Replies are not decoded, whatever the
client's settings. A command that starts something is sent once: if the connection breaks, or no reply arrives in time,
the caller gets the error, and nothing is started twice.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import weakref
from typing import Any

from redis.exceptions import TimeoutError

__all__ = ["Link"]

# redis-py's option for undecoded replies.
_RAW = {"NEVER_DECODE": True}
#: Minimum of the additional seconds that a client waits for a reply.
_MARGIN = 5.0


#: Clients of servers that run functions only as scripts, such as RedisGears.
_need_scripts: weakref.WeakSet[Any] = weakref.WeakSet()


class Link:
    """Sends commands of the engine through a redis-py client.

    Args:
        redis: a client of redis-py for a server or a cluster, or anything with its ``execute_command``.
    """

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self._owners: dict[str, Any] = {}

    @property
    def needs_scripts(self) -> bool:
        """Whether the server was found not to take functions as plan and callbacks; remembered with the client."""
        return self.redis in _need_scripts

    @needs_scripts.setter
    def needs_scripts(self, found: bool) -> None:
        if found:
            _need_scripts.add(self.redis)

    @property
    def is_cluster(self) -> bool:
        """Whether it is a client for a cluster."""
        return hasattr(self.redis, "get_primaries")

    def ask(self, *args: Any) -> Any:
        """Send to any shard; redis-py may send it again."""
        return self._ask(self._any(), *args)

    def send(self, *args: Any, patience: float | None = None) -> Any:
        """Send to any shard, once.

        Args:
            args: the command.
            patience: seconds that the command may take on the server. A client with a shorter time limit waits that
                long for this reply, plus its own time limit (at least `_MARGIN`).
        """
        return self._send(self._any(), *args, patience=patience)

    def ask_owner(self, shard_id: str, *args: Any) -> Any:
        """Send to the shard where an execution began; redis-py may send it again."""
        return self._ask(self._owner(shard_id), *args)

    def send_owner(self, shard_id: str, *args: Any) -> Any:
        """Send to the shard where an execution began, once."""
        return self._send(self._owner(shard_id), *args)

    def ask_all(self, *args: Any) -> dict[str, Any]:
        """Send to all shards; replies by ``"host:port"``. Without a cluster the only name is ``""``."""
        if not self.is_cluster:
            return {"": self._ask(self.redis, *args)}
        return {node.name: self._ask(self._connection(node), *args) for node in self.redis.get_primaries()}

    # -- nodes -------------------------------------------------------------------------------------------------

    def _connection(self, node: Any) -> Any:
        return self.redis.get_redis_connection(node)

    def _any(self) -> Any:
        return self._connection(random.choice(self.redis.get_primaries())) if self.is_cluster else self.redis

    def _owner(self, shard_id: str) -> Any:
        if not self.is_cluster:
            return self.redis
        if shard_id not in self._owners:
            for node in self.redis.get_primaries():
                node_id = self._ask(self._connection(node), "CLUSTER MYID")
                self._owners[node_id.decode() if isinstance(node_id, bytes) else node_id] = node
        node = self._owners.get(shard_id)
        return self._any() if node is None else self._connection(node)

    # -- one node ----------------------------------------------------------------------------------------------

    @staticmethod
    def _ask(client: Any, *args: Any) -> Any:
        return client.execute_command(*args, **_RAW)

    @staticmethod
    def _send(client: Any, *args: Any, patience: float | None = None) -> Any:
        pool = getattr(client, "connection_pool", None)
        single = getattr(client, "connection", None)
        if pool is None or hasattr(client, "inside_server") or (single is not None and patience is None):
            return client.execute_command(*args, **_RAW)
        if single is not None:
            with getattr(client, "single_connection_lock", None) or contextlib.nullcontext():
                return _exchange(single, args, patience)
        connection = pool.get_connection()
        try:
            return _exchange(connection, args, patience)
        finally:
            pool.release(connection)


def _exchange(connection: Any, args: tuple[Any, ...], patience: float | None) -> Any:
    """Send a command on a connection and read its reply."""
    own: float | None = getattr(connection, "socket_timeout", None)
    connection.send_command(*args)
    if patience is None or own is None:
        return connection.read_response(disable_decoding=True)
    wait = patience + max(own, _MARGIN)
    try:
        # Versions of redis-py before 8 have no argument for it.
        if "timeout" in inspect.signature(connection.read_response).parameters:
            return connection.read_response(disable_decoding=True, timeout=wait)
        if not connection.can_read(timeout=wait):
            raise TimeoutError
    except TimeoutError:
        # A late reply must not be taken for the reply to another command.
        connection.disconnect()
        raise TimeoutError(
            f"no reply to {args[0]} within {wait:g} s: {patience:g} s for the command, and {wait - patience:g} s for "
            "the network"
        ) from None
    except BaseException:
        connection.disconnect()
        raise
    return connection.read_response(disable_decoding=True)
